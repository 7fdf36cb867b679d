package admin

// ConfigCheck is `config check`.
type ConfigCheck struct {
	Meta
	OK       bool      `json:"ok"`
	Strict   bool      `json:"strict"`
	Files    []string  `json:"files"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	Findings []Finding `json:"findings"`
}

// Finding is what the judge says about one value of a configuration.
type Finding struct {
	Problem
	Key        string `json:"key"`
	Value      string `json:"value"`
	Why        string `json:"why"`
	Suggestion string `json:"suggestion"`
	Source     Source `json:"source"`
}

// Source is where a value comes from: "flag", "env", "file" or "default".
type Source struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Line int    `json:"line"`
}

// ConfigValueList is `config show`.
type ConfigValueList struct {
	Meta
	Items []ConfigValue `json:"items"`
}

// ConfigValue is the effective value of a key, and what a mapped one becomes.
type ConfigValue struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Mapped string `json:"mapped"`
	Source Source `json:"source"`
}

// ConfigKey is `config explain`.
type ConfigKey struct {
	Meta
	Key           string   `json:"key"`
	Env           string   `json:"env"`
	Type          string   `json:"type"`
	Treatment     string   `json:"treatment"`
	Default       string   `json:"default"`
	FabricDefault string   `json:"fabricDefault"`
	Values        []string `json:"values"`
	Meaning       string   `json:"meaning"`
}

// Version is `version`.
type Version struct {
	Meta
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
	LibP2P  string `json:"libp2p"`
}

// LedgerImport is `ledger import`.
type LedgerImport struct {
	Meta
	Channel   string `json:"channel"`
	Dir       string `json:"dir"`
	Imported  uint64 `json:"imported"`
	Height    uint64 `json:"height"`
	TipHash   string `json:"tipHash"`
	StateHash string `json:"stateHash"`
	ElapsedMs int64  `json:"elapsedMs"`
}

// CertificateList is `ca inspect` and part of `msp inspect`.
type CertificateList struct {
	Meta
	Items []CertificateInfo `json:"items"`
}

// CertificateInfo says who a certificate names, by whom, until when, for what.
type CertificateInfo struct {
	File         string   `json:"file"`
	Subject      string   `json:"subject"`
	Issuer       string   `json:"issuer"`
	Serial       string   `json:"serial"` // hexadecimal
	NotBefore    Time     `json:"notBefore"`
	NotAfter     Time     `json:"notAfter"`
	ExpiresInSec int64    `json:"expiresInSec"`
	CA           bool     `json:"ca"`
	Role         string   `json:"role"` // "client", "peer", "admin", "orderer" or ""
	Key          string   `json:"key"`  // "ECDSA P-256", "Ed25519", ...
	Use          string   `json:"use"`  // "sign", "tls" or "ca"
	Names        []string `json:"names"`
	PKIID        string   `json:"pkiId"` // only where an MSP ID is known
}

// MSPInfo is `msp inspect`.
type MSPInfo struct {
	Meta
	Dir      string            `json:"dir"`
	MSPID    string            `json:"mspId"`
	OK       bool              `json:"ok"`
	NodeOUs  bool              `json:"nodeOus"`
	Signer   string            `json:"signer"` // subject of the signing identity, "" if none
	Revoked  int               `json:"revoked"`
	Certs    []CertificateInfo `json:"certificates"`
	Problems []Problem         `json:"problems"`
}

// MSPVerification is `msp verify`.
type MSPVerification struct {
	Meta
	Dir      string    `json:"dir"`
	MSPID    string    `json:"mspId"`
	Subject  string    `json:"subject"`
	OK       bool      `json:"ok"` // both judges
	Live     Judgement `json:"live"`
	Ledger   Judgement `json:"ledger"`
	Problems []Problem `json:"problems"`
}

// Judgement is one judge's: Code is a reason code, "" when OK.
type Judgement struct {
	OK      bool   `json:"ok"`
	Code    string `json:"code"`
	Message string `json:"message"`
}
