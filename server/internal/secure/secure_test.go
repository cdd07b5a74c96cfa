package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/internal/certtest"
)

// meet has two configurations do a handshake and say a byte each, and returns both errors.
func meet(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	a, err := l.Accept()
	require.NoError(t, err)
	talk := func(c *tls.Conn) error {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if err := c.Handshake(); err != nil {
			return err
		}
		said := make(chan error, 1)
		go func() { _, err := c.Write([]byte{1}); said <- err }()
		_, err := io.ReadFull(c, make([]byte, 1))
		return errors.Join(err, <-said)
	}
	done := make(chan error, 1)
	go func() { done <- talk(tls.Server(a, server)) }()
	clientErr = talk(tls.Client(b, client))
	return <-done, clientErr
}

func policy(t *testing.T, s Settings) *Policy {
	t.Helper()
	p, err := New(s)
	require.NoError(t, err)
	return p
}

// Errors of settings are one line and name what to change.
func TestErrors(t *testing.T) {
	a := certtest.New(t)
	one, two := a.Issue("one"), a.Issue("two")
	junk := filepath.Join(a.Dir, "junk")
	require.NoError(t, os.WriteFile(junk, []byte("junk"), 0o600))
	good := Settings{CertFile: one.Cert, KeyFile: one.Key}
	for want, change := range map[string]func(*Settings){
		"cert-file and key-file are not set":                                              func(s *Settings) { *s = Settings{} },
		"cert-file is set without key-file":                                               func(s *Settings) { s.KeyFile = "" },
		"key-file is set without cert-file":                                               func(s *Settings) { s.CertFile = "" },
		"key-file: " + a.Dir + "/none: no such file or directory":                         func(s *Settings) { s.KeyFile = a.Dir + "/none" },
		"peer-cert-file: " + junk + ": it holds no certificate in PEM":                    func(s *Settings) { s.CertFile, s.Flag = junk, "peer-" },
		"key-file: " + junk + ": it holds no private key in PEM":                          func(s *Settings) { s.KeyFile = junk },
		"key-file: " + two.Key + ": it does not go with the certificate " + one.Cert:      func(s *Settings) { s.KeyFile = two.Key },
		"trusted-ca-file: " + junk + ": it holds no certificate in PEM":                   func(s *Settings) { s.TrustedCAFile = junk },
		"client-crl-file: " + junk + ": no revocation list, as PEM or DER":                func(s *Settings) { s.CRLFile = junk },
		"peer-crl-file: " + one.Cert + ": no revocation list, as PEM or DER: it holds no": func(s *Settings) { s.CRLFile, s.Flag = one.Cert, "peer-" },
		"client-cert-file and client-key-file must be set together":                       func(s *Settings) { s.ClientCertFile = one.Cert },
		"cert-allowed-uri lists URIs, such as spiffe://trust.domain/member":               func(s *Settings) { s.AllowedURIs = []string{"m0"} },
		"cert-allowed-cn and cert-allowed-hostname exclude each other": func(s *Settings) {
			s.AllowedCN, s.AllowedHostnames = []string{"a"}, []string{"b"}
		},
		"tls-min-version: unexpected TLS version \"1.2\" (must be one of: TLS1.2, TLS1.3)": func(s *Settings) { s.MinVersion = "1.2" },
		"tls-min-version TLS 1.3 is above tls-max-version TLS 1.2":                         func(s *Settings) { s.MinVersion, s.MaxVersion = "TLS1.3", "TLS1.2" },
		"cipher-suites: unexpected TLS cipher suite \"TLS_ECDHE_RSA_AES_128_GCM_SHA256\", did you mean TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256?": func(s *Settings) {
			s.CipherSuites = []string{"TLS_ECDHE_RSA_AES_128_GCM_SHA256"}
		},
		"cipher-suites has no effect with tls-min-version TLS1.3": func(s *Settings) {
			s.MinVersion, s.CipherSuites = "TLS1.3", []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}
		},
		"peer-auto-tls makes certificates that no peer-trusted-ca-file can check": func(s *Settings) {
			*s = Settings{Flag: "peer-", Auto: Auto{Dir: a.Dir}, TrustedCAFile: a.File()}
		},
	} {
		s := good
		change(&s)
		_, err := New(s)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	policy(t, good)
}

// Who is let in, and who is not.
func TestWhoMayConnect(t *testing.T) {
	a, stranger := certtest.New(t), certtest.New(t)
	server, alice, bob := a.Issue("server"), a.Issue("alice", "alice.test"), a.Issue("bob", "bob.test")
	mallory := stranger.Issue("alice", "alice.test")
	member := a.Issue("member", "localhost", "spiffe://test/latchkey/m0")
	base := Settings{CertFile: server.Cert, KeyFile: server.Key}
	none := certtest.Pair{}
	for _, c := range []struct {
		name   string
		change func(*Settings)
		who    certtest.Pair
		want   string // of the server's error; "" for none
	}{
		{"no demand", func(*Settings) {}, none, ""},
		{"a CA demands one", func(s *Settings) { s.TrustedCAFile = a.File() }, none, "didn't provide a certificate"},
		{"and has it", func(s *Settings) { s.TrustedCAFile = a.File() }, alice, ""},
		{"of its own", func(s *Settings) { s.TrustedCAFile = a.File() }, mallory, "unknown authority"},
		{"demand without a CA", func(s *Settings) { s.ClientCertAuth = true }, alice, "unknown authority"},
		{"common name", func(s *Settings) { s.TrustedCAFile, s.AllowedCN = a.File(), []string{"carol", "alice"} }, alice, ""},
		{"another's", func(s *Settings) { s.TrustedCAFile, s.AllowedCN = a.File(), []string{"carol", "alice"} }, bob, `the common name "bob" is not allowed`},
		{"a name demands a certificate", func(s *Settings) { s.AllowedCN = []string{"alice"} }, none, "didn't provide a certificate"},
		{"hostname", func(s *Settings) { s.TrustedCAFile, s.AllowedHostnames = a.File(), []string{"alice.test"} }, alice, ""},
		{"another hostname", func(s *Settings) { s.TrustedCAFile, s.AllowedHostnames = a.File(), []string{"alice.test"} }, bob, "is for none of alice.test"},
		{"identity", func(s *Settings) { s.TrustedCAFile, s.AllowedURIs = a.File(), []string{"spiffe://test/latchkey/m0"} }, member, ""},
		{"below an identity", func(s *Settings) { s.TrustedCAFile, s.AllowedURIs = a.File(), []string{"spiffe://test/latchkey/"} }, member, ""},
		{"above it", func(s *Settings) { s.TrustedCAFile, s.AllowedURIs = a.File(), []string{"spiffe://test/"} }, member, "has no identity of spiffe://test/"},
		{"its beginning", func(s *Settings) { s.TrustedCAFile, s.AllowedURIs = a.File(), []string{"spiffe://test/latchkey/m"} }, member, "has no identity"},
		{"no identity", func(s *Settings) { s.TrustedCAFile, s.AllowedURIs = a.File(), []string{"spiffe://test/latchkey/"} }, alice, "has no identity"},
		{"an identity demands a certificate", func(s *Settings) { s.AllowedURIs = []string{"spiffe://test/"} }, none, "didn't provide a certificate"},
		{"revoked", func(s *Settings) { s.TrustedCAFile, s.CRLFile = a.File(), a.Revoke("a.crl", false, bob) }, bob, "is revoked"},
		{"not revoked", func(s *Settings) { s.TrustedCAFile, s.CRLFile = a.File(), a.Revoke("b.crl", true, bob) }, alice, ""},
		{"revoked in DER", func(s *Settings) { s.TrustedCAFile, s.CRLFile = a.File(), a.Revoke("c.crl", true, bob) }, bob, "is revoked"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			s := base
			c.change(&s)
			conf := &tls.Config{RootCAs: a.Pool(), ServerName: "localhost", MaxVersion: version}
			if c.who.Cert != "" {
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.who.Certificate, nil }
			}
			serverErr, clientErr := meet(t, policy(t, s).Server(), conf)
			if c.want == "" {
				require.NoError(t, errors.Join(serverErr, clientErr), "%s %x", c.name, version)
				continue
			}
			require.ErrorContains(t, serverErr, c.want, c.name)
			require.Error(t, clientErr, c.name)
		}
	}
}

// Nothing leads out of what is meant.
func TestAllowedURIs(t *testing.T) {
	for uri, want := range map[string]bool{
		"spiffe://t/a": true, "spiffe://t/b/c": true, "spiffe://t/b/": true, "spiffe://t/b": false, "spiffe://t/ab": false,
		"spiffe://t/b/c/d": false, "spiffe://t/b/..": false, "spiffe://t/b/.": false, "spiffe://t/b/%2e%2e": false,
		"spiffe://t/b/c?x": false, "spiffe://t/b/c#x": false, "spiffe://t.evil/a": false, "": false,
	} {
		require.Equal(t, want, allows([]string{"spiffe://t/a", "spiffe://t/b/"}, uri), uri)
	}
}

// The side that connects checks as much.
func TestWhomToTrust(t *testing.T) {
	a := certtest.New(t)
	one, two := a.Issue("one"), a.Issue("two", "elsewhere")
	s := Settings{CertFile: one.Cert, KeyFile: one.Key, TrustedCAFile: a.File()}
	q := Settings{CertFile: two.Cert, KeyFile: two.Key, TrustedCAFile: a.File()}
	serverErr, clientErr := meet(t, policy(t, s).Server(), policy(t, q).Client("localhost"))
	require.NoError(t, errors.Join(serverErr, clientErr))
	_, clientErr = meet(t, policy(t, q).Server(), policy(t, s).Client("localhost"))
	require.ErrorContains(t, clientErr, "not localhost")
	s.AllowedCN = []string{"one"}
	_, clientErr = meet(t, policy(t, q).Server(), policy(t, s).Client("elsewhere"))
	require.ErrorContains(t, clientErr, `"two" is not allowed`)
	s.AllowedCN, s.AllowedURIs = nil, []string{"spiffe://test/latchkey/"}
	_, clientErr = meet(t, policy(t, q).Server(), policy(t, s).Client("elsewhere"))
	require.ErrorContains(t, clientErr, "has no identity")
	s.AllowedURIs, s.CRLFile = nil, a.Revoke("crl", false, two)
	_, clientErr = meet(t, policy(t, q).Server(), policy(t, s).Client("elsewhere"))
	require.ErrorContains(t, clientErr, "revoked")
}

// Files that change count from the next handshake on; broken ones do not, and are logged once.
func TestReload(t *testing.T) {
	a := certtest.New(t)
	server, alice := a.Issue("server"), a.Issue("alice")
	var log bytes.Buffer
	s := Settings{
		CertFile: server.Cert, KeyFile: server.Key, TrustedCAFile: a.File(), CRLFile: a.Revoke("crl", false),
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	p := policy(t, s)
	conf := p.Server() // one for all connections, as a listener has it
	serial := func() string {
		var shown string
		serverErr, clientErr := meet(t, conf, &tls.Config{
			RootCAs: a.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{alice.Certificate},
			VerifyConnection: func(s tls.ConnectionState) error {
				shown = s.PeerCertificates[0].SerialNumber.String()
				return nil
			},
		})
		require.NoError(t, errors.Join(serverErr, clientErr))
		return shown
	}
	require.Equal(t, server.Certificate.Leaf.SerialNumber.String(), serial())
	renewed := a.Issue("server")
	require.Equal(t, renewed.Certificate.Leaf.SerialNumber.String(), serial())

	require.NoError(t, os.WriteFile(server.Key, []byte("half a key"), 0o600))
	for range 3 {
		require.Equal(t, renewed.Certificate.Leaf.SerialNumber.String(), serial())
	}
	require.Equal(t, 1, bytes.Count(log.Bytes(), []byte("the old one stays in force")))
	require.NoError(t, os.Remove(server.Key))
	require.Equal(t, renewed.Certificate.Leaf.SerialNumber.String(), serial())
	again := a.Issue("server")
	require.Equal(t, again.Certificate.Leaf.SerialNumber.String(), serial())

	a.Revoke("crl", false, alice)
	serverErr, _ := meet(t, conf, &tls.Config{RootCAs: a.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{alice.Certificate}})
	require.ErrorContains(t, serverErr, "revoked")
}

// A made certificate is used again, and replaced when it ends, also by a policy that runs.
func TestAuto(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fixtures", "client")
	s := Settings{Auto: Auto{Dir: dir, Hosts: []string{"127.0.0.1", "localhost"}}}
	p := policy(t, s)
	first := p.files.current().certificate.Leaf
	require.Equal(t, first.SerialNumber, policy(t, s).files.current().certificate.Leaf.SerialNumber)
	require.WithinDuration(t, time.Now().AddDate(1, 0, 0), first.NotAfter, time.Hour)
	for _, name := range []string{"cert.pem", "key.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode())
	}
	roots := x509.NewCertPool()
	roots.AddCert(first)
	serverErr, clientErr := meet(t, p.Server(), &tls.Config{RootCAs: roots, ServerName: "localhost"})
	require.NoError(t, errors.Join(serverErr, clientErr))
	// Members do not know each other's.
	q := policy(t, Settings{Auto: Auto{Dir: filepath.Join(t.TempDir(), "peer")}})
	serverErr, clientErr = meet(t, p.Server(), q.Client("localhost"))
	require.NoError(t, errors.Join(serverErr, clientErr))

	p.files.now.certificate.Leaf.NotAfter = time.Now().Add(renewBefore / 2)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cert.pem"), nil, 0o600)) // as good as one that has ended
	require.NotEqual(t, first.SerialNumber, p.files.current().certificate.Leaf.SerialNumber)
}

// names is a Resolver.
type names struct {
	hosts map[string][]string
	addrs map[string][]string
}

func (n names) LookupHost(_ context.Context, host string) ([]string, error) {
	return n.hosts[host], nil
}
func (n names) LookupAddr(_ context.Context, addr string) ([]string, error) {
	return n.addrs[addr], nil
}

func TestCheckAddress(t *testing.T) {
	dns := names{
		hosts: map[string][]string{"a.test": {"10.0.0.1", "fe80::1%eth0"}, "x.wild.test": {"10.0.0.3"}},
		addrs: map[string][]string{"10.0.0.3": {"x.wild.test."}, "10.0.0.4": {"a.test.", "x.wild.test."}},
	}
	for _, c := range []struct {
		ips, names []string
		remote     string
		ok         bool
	}{
		{nil, nil, "10.9.9.9:1", true},
		{[]string{"10.0.0.1"}, nil, "10.0.0.1:1", true},
		{[]string{"10.0.0.1"}, nil, "[::ffff:10.0.0.1]:1", true},
		{[]string{"10.0.0.1"}, nil, "10.0.0.2:1", false},
		{nil, []string{"a.test"}, "10.0.0.1:1", true},
		{nil, []string{"a.test"}, "[fe80::1%eth1]:1", true},
		{[]string{"10.0.0.9"}, []string{"b.test", "a.test"}, "10.0.0.1:1", true},
		{nil, []string{"a.test"}, "10.0.0.4:1", false}, // whose owner says so
		{nil, []string{"*.wild.test"}, "10.0.0.3:1", true},
		{nil, []string{"*.wild.test"}, "10.0.0.4:1", false},
		{nil, []string{"*.wild.test"}, "nonsense", false},
	} {
		cert := &x509.Certificate{DNSNames: c.names}
		for _, ip := range c.ips {
			cert.IPAddresses = append(cert.IPAddresses, net.ParseIP(ip))
		}
		err := CheckAddress(t.Context(), dns, cert, c.remote)
		require.Equal(t, c.ok, err == nil, "%v %v %s: %v", c.ips, c.names, c.remote, err)
	}
}
