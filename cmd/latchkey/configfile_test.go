package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// A file in the form of the sample that etcd ships, and one as JSON.
func TestConfigFile(t *testing.T) {
	yaml := `# all members of the host
name: 'a'
data-dir: /d
wal-dir:
snapshot-count: 10000
heartbeat-interval: 100
election-timeout: 1000
quota-backend-bytes: 0
listen-peer-urls: http://localhost:2380
listen-client-urls: "http://127.0.0.1:2379, http://127.0.0.1:2479"
cors:
discovery:
discovery-fallback: 'exit'
initial-cluster: a=http://localhost:2380
initial-cluster-token: 'etcd-cluster'
strict-reconfig-check: false
enable-pprof: true
proxy: 'off'
auth-token-ttl: 300
watch-progress-notify-interval: 600000000000
corrupt-check-time: 2m
auto-compaction-mode: periodic
auto-compaction-retention: "1"
log-outputs: [stderr, stdout]
cipher-suites: [
  TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
  TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
]
client-transport-security:
  cert-file: /c
  key-file: /k
  client-cert-auth: true
  auto-tls: false
peer-transport-security:
  allowed-cn: [x, y]
  crl-file: /crl
socket-options: {reuse-address: true}
`
	want := server.Config{
		Name: "a", DataDir: "/d", HeartbeatInterval: 100 * time.Millisecond, ElectionTimeout: time.Second,
		ListenPeerURLs: []string{"http://localhost:2380"}, ListenClientURLs: []string{"http://127.0.0.1:2379", "http://127.0.0.1:2479"},
		InitialCluster: "a=http://localhost:2380", InitialClusterToken: "etcd-cluster",
		AutoCompactionMode: "periodic", AutoCompactionRetention: "1", WatchProgressInterval: 10 * time.Minute,
		ClientTLS:  server.TLS{CertFile: "/c", KeyFile: "/k", ClientCertAuth: true, CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}},
		PeerTLS:    server.TLS{AllowedCN: []string{"x", "y"}, CRLFile: "/crl", CipherSuites: []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}},
		Web:        server.Web{Pprof: true},
		Membership: server.Membership{LooseReconfigCheck: true},
		Auth:       server.Auth{TokenTTL: 300 * time.Second},
		Checks:     server.Checks{CorruptInterval: 2 * time.Minute},
	}
	path := writeFile(t, yaml)
	o, err := parseServer([]string{"--name=b", "--config-file", path}, []string{"ETCD_DATA_DIR=/e", "HOME=/"})
	require.NoError(t, err)
	require.Equal(t, want, o.config)
	require.Equal(t, []string{"stderr", "stdout"}, o.logOutput)
	require.Equal(t, []string{
		path + " is all that counts, without effect: --name, ETCD_DATA_DIR",
		path + ": proxy has no effect: etcd has dropped its v2 API, and so its proxy",
		path + ": snapshot-count has no effect: a checkpoint is written every second, whatever the number of entries",
		"cert-file or auto-tls is set, but no address for clients begins with https: they are served without TLS",
	}, o.warnings)

	path = writeFile(t, "{\n\t\"name\": \"a\", \"heartbeat-interval\": 100,\n\t\"election-timeout\": 1000, \"peer-transport-security\": {\"cert-file\": \"/c\", \"key-file\": \"/k\", \"auto-tls\": true}\n}")
	o, err = parseServer(nil, []string{"ETCD_CONFIG_FILE=/nothing", "LATCHKEY_CONFIG_FILE=" + path})
	require.NoError(t, err)
	require.Equal(t, server.Config{
		Name: "a", HeartbeatInterval: 100 * time.Millisecond, ElectionTimeout: time.Second,
		PeerTLS: server.TLS{CertFile: "/c", KeyFile: "/k", Auto: true},
	}, o.config)

	o, err = parseServer([]string{"--config-file=" + writeFile(t, "# nothing\n")}, nil)
	require.NoError(t, err)
	require.Equal(t, server.Config{}, o.config)
}

// The section for discovery has the form of etcd's.
func TestConfigFileDiscovery(t *testing.T) {
	o, err := parseServer([]string{"--config-file=" + writeFile(t, `
discovery-config:
  token: t
  client:
    endpoints: ["http://10.0.0.1:2379", "http://10.0.0.2:2379"]
    dial-timeout: 1000000000
    request-timeout: 3s
    secure:
      cacert: /ca
      insecure-transport: false
    auth: {username: u, password: p}
`)}, nil)
	require.NoError(t, err)
	require.Equal(t, server.Discovery{
		Token: "t", Endpoints: []string{"http://10.0.0.1:2379", "http://10.0.0.2:2379"}, DialTimeout: time.Second, RequestTimeout: 3 * time.Second,
		UseTLS: true, TLS: client.TLSFiles{CA: "/ca"}, Username: "u", Password: "p",
	}, o.config.Membership.Discovery)
}

func TestConfigFileErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"nmae: a", `line 1: unknown key "nmae", did you mean "name"?`},
		{"name: a\ndata_dir: d", `line 2: unknown key "data_dir", did you mean "data-dir"?`},
		{"colour: red", `line 1: unknown key "colour": the keys are the names of the flags`},
		{"experimental-corrupt-check-time: 1", `line 1: unknown key "experimental-corrupt-check-time", did you mean "corrupt-check-time"?`},
		{"config-file: x", `line 1: unknown key "config-file"`},
		{"client_transport-security: {}", `line 1: unknown key "client_transport-security", did you mean "client-transport-security"?`},
		{"client-transport-security:\n  cert: x", `line 2: unknown key "cert" in client-transport-security: the keys are the names of the flags`},
		{"client-transport-security:\n  cert-fil: x", `line 2: unknown key "cert-fil" in client-transport-security, did you mean "cert-file"?`},
		{"peer-transport-security: yes", `line 1: keys and values are expected here, as in: name: a`},
		{"discovery-config: {tokn: x}", `line 1: unknown key "tokn" in discovery-config, did you mean "token"?`},
		{"discovery-config:\n  client:\n    secure: {cacrt: x}", `line 3: unknown key "cacrt" in discovery-config.client.secure, did you mean "cacert"?`},
		{"name: [[a]]", `line 1: name is not a list of texts`},
		{"name: {a: b}", `line 1: name has no keys below it`},
		{"name: a\nname: b", `line 2: key "name" is there twice`},
		{"- a", `line 1: keys and values are expected here, as in: name: a`},
		{"name: 'a", `yaml: found unexpected end of stream`},
		{strings.Repeat("#", configFileMax+1), "is larger than 1048576 bytes"},
	}
	for _, tt := range tests {
		path := writeFile(t, tt.text)
		_, err := parseServer([]string{"--config-file=" + path}, nil)
		require.ErrorContains(t, err, "--config-file "+path+": "+tt.want)
		require.Equal(t, exitUsage, codeOf(err))
	}
	_, err := parseServer(nil, []string{"ETCD_CONFIG_FILE=/no/such"})
	require.EqualError(t, err, "ETCD_CONFIG_FILE /no/such: open /no/such: no such file or directory")
	path := writeFile(t, "max-txn-ops: many")
	_, err = parseServer([]string{"--config-file=" + path}, nil)
	require.EqualError(t, err, path+`: max-txn-ops "many": is not a whole number above 0`)
}

// FuzzConfigFile: whatever stands in the file gives settings that exist, or
// an error.
func FuzzConfigFile(f *testing.F) {
	f.Add("name: a\nclient-transport-security: {cert-file: x}\n")
	f.Add("a: &x [1]\nname: *x\n<<: *x")
	f.Add("{\"name\": null}")
	f.Fuzz(func(t *testing.T, text string) {
		given, _, err := parseConfigFile("f", []byte(text))
		if err != nil {
			return
		}
		for name := range given {
			_, ok := findFlag(name)
			require.True(t, ok, name)
		}
	})
}

// The file in docs/operations.md is one that a member takes; only its TLS is
// not tried here.
func TestConfigFileOfTheDocumentation(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(doc), "```yaml\n")
	text, _, ok := strings.Cut(rest, "```")
	require.True(t, ok)
	o, err := parseServer([]string{"--config-file=" + writeFile(t, strings.ReplaceAll(text, "https://", "http://"))}, nil)
	require.NoError(t, err)
	require.Equal(t, "etcd-0-8", o.config.Name)
	require.True(t, o.config.PeerTLS.ClientCertAuth)
	require.Equal(t, "/etc/latchkey/ca.crt", o.config.PeerTLS.TrustedCAFile)
}
