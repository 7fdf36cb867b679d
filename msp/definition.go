package msp

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	mspproto "github.com/hyperledger/fabric-protos-go-apiv2/msp"
	"go.yaml.in/yaml/v3"
)

// maxRoles is the largest config.yaml that is read; cryptogen's has 700 bytes.
const maxRoles = 64 << 10

// LoadConfig reads an MSP folder into a definition, as Fabric's tools do
// (msp/configbuilder.go): folders written by cryptogen, by fabric-ca clients
// (which have no config.yaml: their certificates name the role, so the usual
// NodeOUs are assumed) and mounted Kubernetes secrets. Errors are [FolderError]s.
func LoadConfig(mspID, dir string) (*mspproto.FabricMSPConfig, []Warning, error) {
	if err := isFolder(dir); err != nil {
		return nil, nil, err
	}
	conf := &mspproto.FabricMSPConfig{
		Name:         mspID,
		CryptoConfig: &mspproto.FabricCryptoConfig{SignatureHashFamily: sha2, IdentityIdentifierHashFunction: "SHA256"},
	}
	var warnings []Warning
	for _, part := range []struct {
		folder, kind string
		into         *[][]byte
	}{
		{caFolder, certificateType, &conf.RootCerts},
		{intermediateFolder, certificateType, &conf.IntermediateCerts},
		{adminFolder, certificateType, &conf.Admins},
		{tlsFolder, certificateType, &conf.TlsRootCerts},
		{tlsInterFolder, certificateType, &conf.TlsIntermediateCerts},
		{crlFolder, "X509 CRL", &conf.RevocationList},
	} {
		list, w, err := material(filepath.Join(dir, part.folder), part.kind)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		warnings = append(warnings, w...)
		*part.into = list
	}
	if len(conf.RootCerts) == 0 {
		return nil, nil, folderError(dir, "put the organisation's CA certificate there", "no CA certificate in %s", caFolder)
	}
	if len(conf.TlsRootCerts) == 0 {
		conf.TlsIntermediateCerts = nil
	}
	w, err := loadRoles(dir, conf)
	if err != nil {
		return nil, nil, err
	}
	warnings = append(warnings, w...)
	keys, err := files(filepath.Join(dir, keyFolder))
	if err == nil { // an organisation's folder has no keys, and that is fine
		for _, f := range keys {
			if exposed(f) {
				warnings = append(warnings, warn(KeyReadable.Code(), "%s can be read by others (mode %#o)", f.path, f.mode.Perm()))
			}
		}
	}
	return conf, warnings, nil
}

func isFolder(dir string) error {
	const fix = "name a folder with " + caFolder + ", and " + signFolder + " and " + keyFolder + " if it signs"
	switch info, err := os.Stat(dir); {
	case err != nil:
		return folderError(dir, fix, "%v", err)
	case !info.IsDir():
		return folderError(dir, fix, "is no folder")
	}
	return nil
}

// rolesYAML is config.yaml.
type rolesYAML struct {
	OrganizationalUnitIdentifiers []*unitYAML `yaml:"OrganizationalUnitIdentifiers"`
	NodeOUs                       *struct {
		Enable              bool      `yaml:"Enable"`
		ClientOUIdentifier  *unitYAML `yaml:"ClientOUIdentifier"`
		PeerOUIdentifier    *unitYAML `yaml:"PeerOUIdentifier"`
		AdminOUIdentifier   *unitYAML `yaml:"AdminOUIdentifier"`
		OrdererOUIdentifier *unitYAML `yaml:"OrdererOUIdentifier"`
	} `yaml:"NodeOUs"`
}

type unitYAML struct {
	Certificate                  string `yaml:"Certificate"` // path within the MSP folder
	OrganizationalUnitIdentifier string `yaml:"OrganizationalUnitIdentifier"`
}

// loadRoles reads config.yaml into conf.
func loadRoles(dir string, conf *mspproto.FabricMSPConfig) ([]Warning, error) {
	raw, err := bounded(filepath.Join(dir, rolesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return assumeRoles(dir, conf)
	}
	if err != nil {
		return nil, folderError(dir, "let this user read it", "%s can't be read: %v", rolesFile, err)
	}
	y, warnings, err := parseRoles(raw)
	if err != nil {
		return nil, folderError(dir, "correct the file", "%s: %v", rolesFile, err)
	}
	err = y.apply(conf, func(name string) ([]byte, error) { return bounded(filepath.Join(dir, name)) })
	if err != nil {
		return nil, folderError(dir, "put the CA certificate there, or correct "+rolesFile, "%v", err)
	}
	return warnings, nil
}

// apply puts the units into conf; get reads a file of the MSP folder.
func (y *rolesYAML) apply(conf *mspproto.FabricMSPConfig, get func(name string) ([]byte, error)) error {
	for _, u := range y.OrganizationalUnitIdentifiers {
		id, err := u.identifier(get)
		if err != nil {
			return err
		}
		if id != nil {
			conf.OrganizationalUnitIdentifiers = append(conf.OrganizationalUnitIdentifiers, id)
		}
	}
	if y.NodeOUs == nil || !y.NodeOUs.Enable {
		return nil
	}
	conf.FabricNodeOus = &mspproto.FabricNodeOUs{Enable: true}
	for _, r := range []struct {
		from *unitYAML
		into **mspproto.FabricOUIdentifier
	}{
		{y.NodeOUs.ClientOUIdentifier, &conf.FabricNodeOus.ClientOuIdentifier},
		{y.NodeOUs.PeerOUIdentifier, &conf.FabricNodeOus.PeerOuIdentifier},
		{y.NodeOUs.AdminOUIdentifier, &conf.FabricNodeOus.AdminOuIdentifier},
		{y.NodeOUs.OrdererOUIdentifier, &conf.FabricNodeOus.OrdererOuIdentifier},
	} {
		var err error
		if *r.into, err = r.from.identifier(get); err != nil {
			return err
		}
	}
	return nil
}

// identifier returns nil for a unit without a name. Fabric logs a CA certificate
// that can't be read and goes on without: the role would then count under any CA,
// which nobody who names one wants, so here it is an error.
func (u *unitYAML) identifier(get func(name string) ([]byte, error)) (*mspproto.FabricOUIdentifier, error) {
	if u == nil || u.OrganizationalUnitIdentifier == "" {
		return nil, nil
	}
	id := &mspproto.FabricOUIdentifier{OrganizationalUnitIdentifier: u.OrganizationalUnitIdentifier}
	if u.Certificate == "" {
		return id, nil
	}
	if !filepath.IsLocal(u.Certificate) {
		return nil, fmt.Errorf("%s names %q, a file outside the folder", rolesFile, u.Certificate)
	}
	var err error
	if id.Certificate, err = get(u.Certificate); err != nil {
		return nil, fmt.Errorf("the certificate of OU %q can't be read: %s", u.OrganizationalUnitIdentifier, err.Error())
	}
	return id, nil
}

// parseRoles reads config.yaml; keys without meaning are warned of.
func parseRoles(raw []byte) (*rolesYAML, []Warning, error) {
	if len(raw) > maxRoles {
		return nil, nil, fmt.Errorf("%d bytes, at most %d", len(raw), maxRoles)
	}
	y := new(rolesYAML)
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	strict := d.Decode(y)
	if strict == nil || errors.Is(strict, io.EOF) {
		return y, nil, nil
	}
	y = new(rolesYAML)
	if err := yaml.Unmarshal(raw, y); err != nil {
		return nil, nil, err
	}
	return y, []Warning{warn("config.unknown_key", "%s: %v", rolesFile, strict)}, nil
}

// assumeRoles gives a folder without config.yaml and administrators the NodeOUs
// that fabric-ca writes into certificates, if its own certificate has one.
func assumeRoles(dir string, conf *mspproto.FabricMSPConfig) ([]Warning, error) {
	if len(conf.Admins) > 0 {
		return nil, nil
	}
	all, err := files(filepath.Join(dir, signFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	usual := []string{"client", "peer", "admin", "orderer"}
	for _, f := range all {
		for _, b := range blocks(f.data, certificateType) {
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil || c.IsCA || !slices.ContainsFunc(c.Subject.OrganizationalUnit, func(ou string) bool { return slices.Contains(usual, ou) }) {
				continue
			}
			ids := make([]*mspproto.FabricOUIdentifier, len(usual))
			for i, ou := range usual {
				ids[i] = &mspproto.FabricOUIdentifier{OrganizationalUnitIdentifier: ou}
			}
			conf.FabricNodeOus = &mspproto.FabricNodeOUs{
				Enable: true, ClientOuIdentifier: ids[0], PeerOuIdentifier: ids[1], AdminOuIdentifier: ids[2], OrdererOuIdentifier: ids[3],
			}
			return []Warning{warn(BadFolder.Code(), "%s has no %s: the OUs client, peer, admin and orderer are taken for roles, as fabric-ca issues them", dir, rolesFile)}, nil
		}
	}
	return nil, nil
}
