package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"grapevine/channel/genesis"
	"grapevine/msp"
	"grapevine/msp/ca"
	"grapevine/node"
)

// The answers to each request, case by case, as Fabric's orderers give them.
func TestParticipation(t *testing.T) {
	org, err := ca.NewOrg("OrdererMSP", "orderer", time.Now())
	require.NoError(t, err)
	def, err := msp.New(org.MSPConfig(), msp.Features{NodeOUs: true})
	require.NoError(t, err)
	signer, err := org.Identity("orderer0", "orderer")
	require.NoError(t, err)
	cert, err := org.TLS("orderer0", "127.0.0.1")
	require.NoError(t, err)
	o, err := node.OpenOrderer(node.OrdererConfig{
		Dir: t.TempDir(), NetworkID: "test", Signer: signer, MSP: def, Certificate: cert,
		Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Address: "127.0.0.1:0",
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, o.Close())
	}()
	block := func(name string, number uint64) []byte {
		b, err := genesis.Block(genesis.Profile{
			Channel: name, Orderers: []genesis.Org{{MSP: org.MSPConfig(), Endpoints: []string{o.Address()}}}, Time: time.Now(),
			Consenters: []genesis.Consenter{{Host: "127.0.0.1", Port: 7051, ServerTLS: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})}},
		})
		require.NoError(t, err)
		b.Header.Number = number
		raw, err := proto.Marshal(b)
		require.NoError(t, err)
		return raw
	}
	api := &Participation{Node: o, MaxBody: 1 << 20, Log: slog.New(slog.DiscardHandler)}
	s := httptest.NewServer(api.Handler())
	defer s.Close()
	client := s.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	form := func(parts map[string][]byte) (string, []byte) {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for name, content := range parts {
			p, err := w.CreateFormFile(name, "x.block")
			require.NoError(t, err)
			_, err = p.Write(content)
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		return w.FormDataContentType(), b.Bytes()
	}
	join := func(raw []byte) (string, []byte) { return form(map[string][]byte{"config-block": raw}) }
	const base = "/participation/v1/channels"
	for _, c := range []struct {
		what, method, path, accept string
		kind                       string
		body                       []byte
		status                     int
		want                       string // a part of the answer
		header, value              string
	}{
		{what: "none", method: "GET", path: base, status: 200, want: `{"systemChannel":null,"channels":null}`, header: "Cache-Control", value: "no-store"},
		{what: "base", method: "GET", path: "/participation/v1/", status: 302, header: "Location", value: base},
		{what: "unknown", method: "GET", path: base + "/ch1", status: 404, want: `{"error":"channel does not exist"}`},
		{what: "bad name", method: "GET", path: base + "/Ch1", status: 400, want: "invalid channel ID"},
		{what: "no JSON", method: "GET", path: base, accept: "text/html", status: 406, want: "application/json only"},
		{what: "bad verb", method: "PUT", path: base, status: 405, want: "invalid request method: PUT", header: "Allow", value: "GET, POST"},
		{what: "bad verb of one", method: "POST", path: base + "/ch1", status: 405, want: "invalid request method: POST", header: "Allow", value: "DELETE, GET"},
		{what: "no form", method: "POST", path: base, kind: "application/json", body: []byte("{}"), status: 400, want: "unsupported Content-Type"},
		{what: "empty form", method: "POST", path: base, status: 400, want: "does not contains part key: config-block"},
		{what: "two parts", method: "POST", path: base, status: 400, want: "too many parts"},
		{what: "no block", method: "POST", path: base, status: 400, want: "cannot unmarshal file part"},
		{what: "too large", method: "POST", path: base, status: 400, want: "cannot read form"},
		{what: "not a channel", method: "POST", path: base, status: 400, want: "invalid join block"},
		{what: "join", method: "POST", path: base, status: 201, want: `{"name":"ch1","url":"/participation/v1/channels/ch1","consensusRelation":"consenter","status":"active","height":1}`, header: "Location", value: base + "/ch1"},
		{what: "join again", method: "POST", path: base, status: 405, want: `{"error":"cannot join: channel already exists"}`, header: "Allow", value: "GET, DELETE"},
		{what: "later", method: "POST", path: base, status: 201, want: `{"name":"ch2","url":"/participation/v1/channels/ch2","consensusRelation":"consenter","status":"onboarding","height":0}`},
		{what: "both", method: "GET", path: base, accept: "application/json", status: 200, want: `[{"name":"ch1","url":"/participation/v1/channels/ch1"},{"name":"ch2","url":"/participation/v1/channels/ch2"}]`},
		{what: "one", method: "GET", path: base + "/ch1", accept: "*/*", status: 200, want: `"name":"ch1"`, header: "Content-Type", value: "application/json"},
		{what: "remove", method: "DELETE", path: base + "/ch1", status: 204},
		{what: "remove again", method: "DELETE", path: base + "/ch1", status: 404, want: `{"error":"cannot remove: channel does not exist"}`},
		{what: "remove what begins", method: "DELETE", path: base + "/ch2", status: 204},
		{what: "none left", method: "GET", path: base, status: 200, want: `"channels":null`},
	} {
		t.Run(c.what, func(t *testing.T) {
			switch c.what {
			case "empty form":
				c.kind, c.body = form(map[string][]byte{"other": {}})
			case "two parts":
				c.kind, c.body = form(map[string][]byte{"config-block": {}, "other": {}})
			case "no block":
				c.kind, c.body = join([]byte("no block"))
			case "too large":
				c.kind, c.body = join(make([]byte, 2<<20))
			case "not a channel":
				c.kind, c.body = join(nil)
			case "join", "join again":
				c.kind, c.body = join(block("ch1", 0))
			case "later":
				c.kind, c.body = join(block("ch2", 7))
			}
			req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, bytes.NewReader(c.body))
			require.NoError(t, err)
			for k, v := range map[string]string{"Content-Type": c.kind, "Accept": c.accept} {
				if v != "" {
					req.Header.Set(k, v)
				}
			}
			resp, err := client.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			raw, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, c.status, resp.StatusCode, "%s", raw)
			require.Contains(t, string(raw), c.want)
			if c.header != "" {
				require.Equal(t, c.value, resp.Header.Get(c.header))
			}
			if c.status != 302 && c.status != 204 {
				require.True(t, json.Valid(raw), "%s", raw)
				require.True(t, strings.HasSuffix(string(raw), "\n"))
			}
		})
	}
}
