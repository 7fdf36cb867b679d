package admin

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"grapevine/block"
	"grapevine/channel/evidence"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
	"grapevine/node"
	"grapevine/wire"
)

// EvidenceList is `evidence ls`.
type EvidenceList struct {
	Meta
	Items []EvidenceItem `json:"items"`
}

// EvidenceItem is a file of evidence. Settled says that an operator has dealt
// with it; Code is why it proves nothing, "" where it does.
type EvidenceItem struct {
	File    string `json:"file"`
	Channel string `json:"channel"`
	Type    string `json:"type"` // "fork", "encodings" or "encoding"
	Number  uint64 `json:"number"`
	Found   Time   `json:"found"`
	Settled bool   `json:"settled"`
	OK      bool   `json:"ok"`
	Code    string `json:"code"`
}

// EvidenceVerification is `evidence verify`.
type EvidenceVerification struct {
	Meta
	EvidenceItem
	Message     string           `json:"message"`
	GenesisHash string           `json:"genesisHash"`
	Pinned      bool             `json:"pinned"` // the genesis block was the reader's own
	ConfigBlock uint64           `json:"configBlock"`
	Headers     []EvidenceHeader `json:"headers"`
	Accused     []EvidenceSigner `json:"accused"`
}

// EvidenceHeader is one of a fork's.
type EvidenceHeader struct {
	Hash         string           `json:"hash"`
	PreviousHash string           `json:"previousHash"`
	DataHash     string           `json:"dataHash"`
	Signers      []EvidenceSigner `json:"signers"`
}

// EvidenceSigner is who signed.
type EvidenceSigner struct {
	MSPID   string `json:"mspId"`
	Subject string `json:"subject"`
	PKIID   string `json:"pkiId"`
}

// VerifyEvidence proves a file's bytes, with the genesis block that the reader
// trusts, or, if it is nil, the one within.
func VerifyEvidence(file string, raw, genesis []byte) (*EvidenceVerification, error) {
	out := &EvidenceVerification{EvidenceItem: EvidenceItem{File: file}, Pinned: genesis != nil}
	e, err := evidence.Read(raw)
	if err != nil {
		return nil, err
	}
	out.EvidenceItem = evidenceItem(file, e)
	p, err := evidence.Verify(raw, genesis, node.Judges())
	if err != nil {
		out.Code, out.Message = fault.Of(err).Reason, err.Error()
		return out, nil
	}
	out.OK = true
	out.GenesisHash, out.ConfigBlock = hex.EncodeToString(p.Genesis[:]), p.Config.Number()
	out.Accused = signersOf(p.Accused)
	if e.Kind != wire.Evidence_KIND_FORK {
		return out, nil
	}
	both, err := p.Headers()
	if err != nil {
		return nil, err
	}
	for _, b := range both {
		who, err := block.Signers(p.Config.Rules(), b)
		if err != nil {
			return nil, err
		}
		hash := block.HeaderHash(b.Header)
		out.Headers = append(out.Headers, EvidenceHeader{
			Hash: hex.EncodeToString(hash[:]), PreviousHash: hex.EncodeToString(b.Header.PreviousHash),
			DataHash: hex.EncodeToString(b.Header.DataHash), Signers: signersOf(who),
		})
	}
	return out, nil
}

func signersOf(list []*msp.Identity) (out []EvidenceSigner) {
	for _, who := range list {
		out = append(out, EvidenceSigner{who.MSPID(), who.Certificate().Subject.String(), who.PKIID().String()})
	}
	return out
}

func evidenceItem(file string, e *wire.Evidence) EvidenceItem {
	return EvidenceItem{File: file, Channel: e.Channel, Type: evidence.Kind(e.Kind), Number: e.Number, Found: Time{time.UnixMilli(int64(e.Found))}}
}

// ListEvidence lists what a data folder keeps, each file proven again.
func ListEvidence(dir string) (*EvidenceList, error) {
	out := &EvidenceList{}
	all, err := node.ReadEvidence(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		v, err := VerifyEvidence(e.File, e.Raw, nil)
		if err != nil {
			return nil, err
		}
		v.Settled = e.Settled
		out.Items = append(out.Items, v.EvidenceItem)
	}
	return out, nil
}

// Evidence asks which evidence the node keeps.
func (c *Client) Evidence(ctx context.Context) (*EvidenceList, error) {
	return get[EvidenceList](ctx, c, "/evidence", nil)
}

func (s *Server) evidence(*http.Request) (any, error) {
	if s.Peer != nil {
		return ListEvidence(s.Peer.Dir())
	}
	return ListEvidence(s.Orderer.Dir())
}
