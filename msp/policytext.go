package msp

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/hyperledger/fabric-protos-go-apiv2/common"
	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"google.golang.org/protobuf/proto"
)

const (
	maxPolicyText  = 64 << 10
	maxPolicyDepth = 100
)

// principalText is MSPID.role, as in Fabric: no other character may be in an MSP
// ID that a policy's text names.
var principalText = regexp.MustCompile(`^([[:alnum:].-]+)\.(admin|member|client|peer|orderer)$`)

// ParsePolicy reads the text form of a signature policy, such as
//
//	OutOf(2, 'Org1MSP.peer', AND('Org2MSP.admin', 'Org3MSP.member'))
//
// into the envelope that Fabric's tools make of it: one principal per mention, in
// the order of the text. Gates are AND, OR and OutOf, also in lower or upper case.
func ParsePolicy(text string) (*common.SignaturePolicyEnvelope, error) {
	if len(text) > maxPolicyText {
		return nil, fmt.Errorf("policy of %d bytes, at most %d: %w", len(text), maxPolicyText, BadPolicy)
	}
	p := &policyParser{text: text, out: &common.SignaturePolicyEnvelope{}}
	rule, err := p.gate(maxPolicyDepth)
	if err == nil {
		if p.space(); p.at < len(text) {
			err = p.errorf("something after the policy's end")
		}
	}
	if err != nil {
		return nil, err
	}
	p.out.Rule = rule
	return p.out, nil
}

// A policyParser reads by recursive descent.
type policyParser struct {
	text string
	at   int // next byte
	out  *common.SignaturePolicyEnvelope
}

func (p *policyParser) gate(depth int) (*common.SignaturePolicy, error) {
	if depth == 0 {
		return nil, p.errorf("nested deeper than %d", maxPolicyDepth)
	}
	word := p.word()
	kind := strings.ToLower(word)
	if (kind != "and" && kind != "or" && kind != "outof") || !p.eat('(') {
		return nil, p.errorf("want AND(, OR( or OutOf(, have %q", word)
	}
	n := 0
	if kind == "outof" {
		digits := strings.Trim(p.word(), "'\"")
		var err error
		if n, err = strconv.Atoi(digits); err != nil || n < 0 || !p.eat(',') {
			return nil, p.errorf("OutOf wants a number and a comma, has %q", digits)
		}
	}
	var rules []*common.SignaturePolicy
	for {
		rule, err := p.operand(depth)
		if err != nil {
			return nil, err
		}
		if rules = append(rules, rule); p.eat(')') {
			break
		}
		if !p.eat(',') {
			return nil, p.errorf("want a comma or a closing parenthesis")
		}
	}
	switch kind {
	case "and":
		n = len(rules)
	case "or":
		n = 1
	}
	if n > len(rules)+1 { // Fabric allows one more, to say "never"
		return nil, p.errorf("%d out of %d", n, len(rules))
	}
	return &common.SignaturePolicy{Type: &common.SignaturePolicy_NOutOf_{
		NOutOf: &common.SignaturePolicy_NOutOf{N: int32(n), Rules: rules},
	}}, nil
}

func (p *policyParser) operand(depth int) (*common.SignaturePolicy, error) {
	p.space()
	if p.at == len(p.text) || p.text[p.at] != '\'' && p.text[p.at] != '"' {
		return p.gate(depth - 1)
	}
	quote := p.text[p.at : p.at+1]
	name, _, closed := strings.Cut(p.text[p.at+1:], quote)
	if !closed {
		return nil, p.errorf("quotation mark without its match")
	}
	m := principalText.FindStringSubmatch(name)
	if m == nil {
		return nil, p.errorf("%q is not MSPID.role with a role of admin, member, client, peer or orderer", name)
	}
	p.at += len(name) + 2
	role, err := proto.Marshal(&mspproto.MSPRole{
		MspIdentifier: m[1],
		Role:          mspproto.MSPRole_MSPRoleType(mspproto.MSPRole_MSPRoleType_value[strings.ToUpper(m[2])]),
	})
	if err != nil {
		return nil, p.errorf("%q: %v", name, err)
	}
	p.out.Identities = append(p.out.Identities, &mspproto.MSPPrincipal{
		PrincipalClassification: mspproto.MSPPrincipal_ROLE,
		Principal:               role,
	})
	return &common.SignaturePolicy{Type: &common.SignaturePolicy_SignedBy{SignedBy: int32(len(p.out.Identities) - 1)}}, nil
}

// word takes what stands before the next parenthesis, comma or space.
func (p *policyParser) word() string {
	p.space()
	n := strings.IndexAny(p.text[p.at:], "(), \t\r\n")
	if n < 0 {
		n = len(p.text) - p.at
	}
	w := p.text[p.at : p.at+n]
	p.at += n
	return w
}

func (p *policyParser) eat(c byte) bool {
	p.space()
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *policyParser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *policyParser) errorf(format string, args ...any) error {
	return fmt.Errorf("policy, at byte %d: %s: %w", p.at, fmt.Sprintf(format, args...), BadPolicy)
}
