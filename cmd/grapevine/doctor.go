package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"grapevine/cmd/grapevine/admin"
	"grapevine/cmd/grapevine/conf"
	"grapevine/cmd/grapevine/fault"
	"grapevine/msp"
)

// endsSoon is how long before its end a certificate is warned of.
const endsSoon = 30 * 24 * time.Hour

func newDoctorCmd(a *app) *cobra.Command {
	c := &cobra.Command{
		Use: "doctor [--from-fabric DIR]", Short: "Coded checks: cause and the command that fixes each", GroupID: groupOperate,
		Long: `Checks a node and says of each thing that isn't as it should be why, and what to
do. With --from-fabric it checks a Fabric peer's configuration instead, as a
Grapevine node would read it: the core.yaml in DIR, or the file DIR: what each
setting would do, what is switched off, which certificates end soon. Nothing is
changed and nobody is connected to. It exits with 6 if a check fails.

` + whichNode,
		Example: "  grapevine doctor\n  grapevine doctor --from-fabric /etc/hyperledger/fabric\n  grapevine doctor --from-fabric core.yaml -o json",
		Args:    exactly(), Annotations: next("grapevine config convert FILE --enable-dissemination", "grapevine status"),
	}
	from := c.Flags().String("from-fabric", "", "a Fabric peer's configuration folder, or its core.yaml")
	c.RunE = func(c *cobra.Command, _ []string) error {
		d := &doctor{now: a.now}
		if *from != "" {
			d.fabric(a, a.path(*from))
		} else {
			t, err := a.node()
			if err != nil {
				return err
			}
			defer t.Close()
			ctx, cancel := a.within(c.Context(), askTime)
			defer cancel()
			d.node(ctx, t)
		}
		out := d.result()
		err := a.emit(out, func(t *table) { showDoctor(t, out) }, func() []string { return []string{out.Target} })
		if err == nil && !out.OK {
			err = exitCode(fault.ExitCheck)
		}
		return err
	}
	return c
}

// A doctor gathers checks.
type doctor struct {
	now    func() time.Time
	target string
	checks []admin.DoctorCheck
}

// The outcomes of a check.
const (
	checkPass = "pass"
	checkWarn = "warn"
	checkFail = "fail"
	checkSkip = "skip"
)

// check makes one and times it. A nil error passes; a coded error fails.
func (d *doctor) check(code, title string, run func() (message string, err error)) bool {
	start := d.now()
	message, err := run()
	c := admin.DoctorCheck{Code: code, Title: title, Status: checkPass, Message: message, ElapsedMs: d.now().Sub(start).Milliseconds()}
	if err != nil {
		e := fault.Of(err)
		c.Code, c.Status, c.Message, c.Why, c.Fix = e.Code, checkFail, e.Message, strings.Join(e.Why, "; "), strings.Join(e.Fix, "; ")
	}
	d.checks = append(d.checks, c)
	return err == nil
}

// problem adds a check that found something.
func (d *doctor) problem(p admin.Problem, why string) {
	status := checkFail
	if p.Severity != conf.SeverityError {
		status = checkWarn
	}
	title := p.Code
	if e, ok := fault.Lookup(p.Code); ok {
		title = e.Title
	}
	d.checks = append(d.checks, admin.DoctorCheck{Code: p.Code, Title: title, Status: status, Message: p.Message, Why: why, Fix: p.Fix})
}

func (d *doctor) skip(code, title, why string) {
	d.checks = append(d.checks, admin.DoctorCheck{Code: code, Title: title, Status: checkSkip, Why: why})
}

func (d *doctor) result() *admin.Doctor {
	out := &admin.Doctor{Target: d.target, Checks: d.checks}
	for _, c := range d.checks {
		switch c.Status {
		case checkPass:
			out.Pass++
		case checkWarn:
			out.Warn++
		case checkFail:
			out.Fail++
		default:
			out.Skip++
		}
	}
	out.OK = out.Fail == 0
	return out
}

// node checks a running node by what it says of itself.
func (d *doctor) node(ctx context.Context, t *target) {
	var s *admin.Status
	if !d.check(fault.Unreachable, "the node answers", func() (message string, err error) {
		if s, err = t.Status(ctx); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s of %s, %s, up %s", s.Name, s.MSPID, s.Role, span(s.UptimeSec)), nil
	}) {
		return
	}
	d.target = s.Name
	for _, p := range s.Problems {
		d.problem(p, "")
	}
	for _, c := range s.Channels {
		d.check("STA010", "channel "+c.Name+" goes on", func() (string, error) {
			i, err := admin.Remote{Client: t.Client, Name: c.Name}.Info(ctx)
			if err != nil {
				return "", err
			}
			if i.Halted {
				return "", fault.Newf("STA010", "channel %s has stopped at height %d", c.Name, i.Height).Because(i.HaltCode).
					Do("grapevine channel info " + c.Name)
			}
			return fmt.Sprintf("height %d, %d behind, %d members alive", i.Height, i.Lag, c.Alive), nil
		})
	}
	if len(s.Channels) == 0 {
		d.skip("STA010", "channels go on", "no channel is joined")
	}
	for _, c := range s.Certificates {
		if left := c.NotAfter.Sub(d.now()); left > 0 {
			d.ends(c.Use+" certificate", c.NotAfter.Time, left)
		}
	}
}

// ends notes how long a certificate lasts.
func (d *doctor) ends(what string, end time.Time, left time.Duration) {
	if left < endsSoon {
		d.problem(admin.Problem{
			Code: "CERT007", Severity: conf.SeverityWarning,
			Message: fmt.Sprintf("the %s ends in %d days, %s", what, int(left.Hours()/24), end.UTC().Format(time.DateOnly)),
			Fix:     "have it renewed by its certificate authority",
		}, "")
		return
	}
	d.check("CERT007", "the "+what+" lasts", func() (string, error) { return "until " + end.UTC().Format(time.DateOnly), nil })
}

// fabric checks a Fabric peer's configuration as a node of ours would read it.
func (d *doctor) fabric(a *app, path string) {
	file := path
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		file = filepath.Join(path, "core.yaml")
	}
	d.target = file
	s := conf.Load(conf.Input{Role: conf.RolePeer, Files: []string{file}, Dir: filepath.Dir(file)})
	for _, f := range configCheck(s, false).Findings {
		p := f.Problem
		if slices.Contains([]string{fault.SpreadOff, fault.CannotFollow, fault.NoRepair}, p.Code) {
			p.Fix = "grapevine config convert " + file + " --enable-dissemination"
		}
		d.problem(p, f.Why)
	}
	if len(s.Files) == 0 {
		return
	}
	var p *conf.Peer
	if !d.check("CFG006", "the configuration can be used", func() (_ string, err error) {
		if p, err = s.Peer(); err != nil {
			return "", err
		}
		return fmt.Sprintf("peer %s of %s, network %s, leader mode %s", orDash(p.ID), p.MSPID, p.NetworkID, p.Mode), nil
	}) {
		d.skip("MSP001", "the MSP folder can be used", "the configuration can't")
		return
	}
	d.identity(a, p)
	d.tls(p.TLS)
	for _, o := range p.Deliver.Overrides {
		if o.CACertsFile != "" {
			d.check("CFG001", "the roots of "+o.To+" can be read", func() (string, error) {
				_, err := readPool(o.CACertsFile)
				return o.CACertsFile, err
			})
		}
	}
}

// identity checks the MSP folder: Fabric's peer and ours read the same one.
func (d *doctor) identity(a *app, p *conf.Peer) {
	var m *msp.MSP
	if !d.check("MSP001", "the MSP folder can be used", func() (_ string, err error) {
		var problems []admin.Problem
		if m, _, problems, err = a.definition(p.MSPID, p.MSPDir); err != nil {
			return "", err
		}
		for _, w := range problems {
			d.problem(w, "")
		}
		return p.MSPDir, nil
	}) {
		return
	}
	var id *msp.Identity
	if !d.check("CERT002", "a key fits the signing certificate", func() (string, error) {
		s, err := msp.Load(p.MSPID, p.MSPDir)
		if err != nil {
			return "", err
		}
		id = s.Identity()
		return id.Name(), nil
	}) {
		return
	}
	d.check("MSP002", "the organisation accepts the certificate now", func() (string, error) {
		chain, err := msp.LoadChain(p.MSPDir)
		if err != nil {
			return "", err
		}
		return id.Certificate().Subject.String(), m.ValidateLive(id, chain, d.now())
	})
	d.ends("signing certificate", id.Certificate().NotAfter, id.Certificate().NotAfter.Sub(d.now()))
}

// tls checks the files of the gRPC services.
func (d *doctor) tls(t conf.TLS) {
	if !t.Enabled {
		d.skip("CERT006", "the TLS certificate can be used", "peer.tls.enabled is false")
		return
	}
	var first *x509.Certificate
	if d.check("CERT006", "the TLS certificate can be read", func() (string, error) {
		ders, err := readCertificates(t.Cert)
		if err != nil {
			return "", err
		}
		first, err = x509.ParseCertificate(ders[0])
		return t.Cert, err
	}) {
		d.ends("TLS certificate", first.NotAfter, first.NotAfter.Sub(d.now()))
	}
}

// showDoctor writes the checks for people, what is wrong first.
func showDoctor(t *table, d *admin.Doctor) {
	marks := map[string]string{checkFail: "✗", checkWarn: "!", checkPass: "✓", checkSkip: "-"}
	for _, status := range []string{checkFail, checkWarn, checkPass, checkSkip} {
		for _, c := range d.Checks {
			if c.Status != status {
				continue
			}
			t.row(marks[status]+" "+c.Code, c.Title, c.Message)
			if c.Why != "" && status != checkPass {
				t.row("", "why: "+c.Why)
			}
			if c.Fix != "" {
				t.row("", "fix: "+c.Fix)
			}
		}
	}
	t.flush()
	t.row(fmt.Sprintf("%s: %d pass, %d warn, %d fail, %d skip", d.Target, d.Pass, d.Warn, d.Fail, d.Skip))
}
