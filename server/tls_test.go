package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/latchkey-go/latchkey/internal/certtest"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// mutual are the settings of TLS with a check of both sides.
func mutual(a *certtest.Authority, p certtest.Pair) server.TLS {
	return server.TLS{CertFile: p.Cert, KeyFile: p.Key, TrustedCAFile: a.File(), ClientCertAuth: true}
}

// knows is what a client with a certificate connects with.
func knows(a *certtest.Authority, p certtest.Pair) *tls.Config {
	return &tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{p.Certificate}, MinVersion: tls.VersionTLS12}
}

// hostOf takes the scheme off an endpoint.
func hostOf(endpoint string) string {
	_, host, _ := strings.Cut(endpoint, "://")
	return host
}

// putOver puts over a connection of its own.
func putOver(ctx context.Context, t *testing.T, host string, conf *tls.Config) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+host, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	require.NoError(t, err)
	defer conn.Close()
	_, err = pb.NewKVClient(conn).Put(ctx, put("over", "tls"))
	return err
}

// logBuffer is a log that many goroutines may write to.
type logBuffer struct {
	mu   sync.Mutex
	b    bytes.Buffer
	more chan struct{} // closed with the next line; nil if nobody waits
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.b.Write(p)
}

// await waits until the log has a text.
func (l *logBuffer) await(t *testing.T, text string) {
	t.Helper()
	ctx := testContext(t)
	for {
		l.mu.Lock()
		found := strings.Contains(l.b.String(), text)
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("%q is not in the log: %s", text, l)
		}
	}
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) option() servertest.Option {
	return servertest.WithConfig(func(c *server.Config) { c.Logger = slog.New(slog.NewTextHandler(l, nil)) })
}

// Clients without a certificate, with one of somebody else, or with a revoked one are refused, by gRPC and by HTTP/1.
func TestClientsMustShowACertificate(t *testing.T) {
	a, stranger := certtest.New(t), certtest.New(t)
	alice, bob, mallory := a.Issue("alice"), a.Issue("bob"), stranger.Issue("alice")
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) {
		c.ClientTLS = mutual(a, a.Issue("server"))
		c.ClientTLS.CRLFile = a.Revoke("crl.pem", false, bob)
	}))
	ctx := testContext(t)
	host := hostOf(c.Endpoints()[0])
	require.NoError(t, putOver(ctx, t, host, knows(a, alice)))
	require.Error(t, putOver(ctx, t, host, &tls.Config{RootCAs: a.Pool()}))
	for _, who := range []certtest.Pair{bob, mallory} {
		conf := knows(a, who)
		conf.Certificates, conf.GetClientCertificate = nil, func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &who.Certificate, nil }
		require.Error(t, putOver(ctx, t, host, conf))
	}
	c.UseTLS(knows(a, alice))
	_, err := c.Client().Put(ctx, "from", []byte("our client"))
	require.NoError(t, err)
	require.NotEmpty(t, c.Client().Endpoints()[0])
	// The member's own client needs no certificate.
	_, err = c.Member(0).Client().Get(ctx, "from")
	require.NoError(t, err)
	// A plain client gets nothing, a list that grows counts from then on.
	plain, err := net.Dial("tcp", host)
	require.NoError(t, err)
	defer plain.Close()
	_, err = io.WriteString(plain, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	require.NoError(t, err)
	got, _ := io.ReadAll(plain)
	require.NotContains(t, string(got), "HTTP/2")
	a.Revoke("crl.pem", false, alice)
	require.Error(t, putOver(ctx, t, host, knows(a, alice)))
}

// A cluster over TLS of both kinds works, restarts, and takes new certificates while it runs.
func TestThreeMembersOverTLS(t *testing.T) {
	a := certtest.New(t)
	own, mine := a.Issue("member"), a.Issue("client")
	c := servertest.Three(t, servertest.WithConfig(func(c *server.Config) {
		c.ClientTLS, c.PeerTLS = mutual(a, own), mutual(a, own)
		c.PeerTLS.AllowedCN = []string{"member"}
	}))
	c.UseTLS(knows(a, mine))
	ctx := testContext(t)
	_, err := c.Client().Put(ctx, "k", []byte("1"))
	require.NoError(t, err)
	for _, m := range c.Endpoints() {
		require.True(t, strings.HasPrefix(m, "https://"))
	}
	a.Issue("member") // in the same files
	for i := range 3 {
		c.Stop(i)
		_, err := c.Client().Put(ctx, "k", []byte("2"))
		require.NoError(t, err)
		c.Restart(i)
		conn, err := tls.Dial("tcp", hostOf(c.Endpoints()[i]), knows(a, mine))
		require.NoError(t, err)
		require.NotEqual(t, own.Certificate.Leaf.SerialNumber, conn.ConnectionState().PeerCertificates[0].SerialNumber)
		require.NoError(t, conn.Close())
	}
	c.Kill(c.Leader())
	_, err = c.Client().Put(ctx, "k", []byte("3"))
	require.NoError(t, err)
	members, err := c.Client().Members(ctx)
	require.NoError(t, err)
	for _, m := range members {
		u, err := url.Parse(m.ClientURLs[0])
		require.NoError(t, err)
		require.Equal(t, "https", u.Scheme)
	}
}

// Certificates that nobody gave: members and clients are encrypted.
func TestAutoTLS(t *testing.T) {
	c := servertest.Three(t, servertest.WithConfig(func(c *server.Config) {
		c.ClientTLS.Auto, c.PeerTLS.Auto = true, true
	}))
	c.UseTLS(&tls.Config{InsecureSkipVerify: true})
	_, err := c.Client().Put(testContext(t), "k", []byte("v"))
	require.NoError(t, err)
}

// Without the right certificate nobody is a member.
func TestStrangersAreNoMembers(t *testing.T) {
	a := certtest.New(t)
	var log logBuffer
	own, other, elsewhere := a.Issue("member"), a.Issue("client"), a.Issue("member2", "10.1.2.3")
	stranger := certtest.New(t).Issue("member")
	c := servertest.One(t, log.option(), servertest.WithConfig(func(c *server.Config) {
		c.PeerTLS = mutual(a, own)
		c.PeerTLS.AllowedCN = []string{"member", "member2"}
	}))
	members, err := c.Client().Members(testContext(t))
	require.NoError(t, err)
	host := hostOf(members[0].PeerURLs[0])
	for _, who := range []struct {
		pair certtest.Pair
		log  string
	}{
		{certtest.Pair{}, "didn't provide a certificate"},
		{other, `the common name \"client\" is not allowed`},
		{stranger, "unknown authority"},
		{elsewhere, "the certificate is for 10.1.2.3, and the other side is at 127.0.0.1"},
	} {
		conf := &tls.Config{RootCAs: a.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &who.pair.Certificate, nil
		}}
		conn, err := tls.Dial("tcp", host, conf)
		if err == nil { // with TLS 1.3 the other side's verdict comes later
			_, _ = io.WriteString(conn, "latchkey-peer/2\n")
			_, err = io.ReadAll(conn)
			_ = conn.Close()
		}
		if who.log != "the certificate is for 10.1.2.3, and the other side is at 127.0.0.1" {
			require.Error(t, err)
		}
		log.await(t, who.log)
	}
}

// A certificate of the data directory is the same after a restart, and good for who is given it.
func TestAutoTLSIsKept(t *testing.T) {
	var dir string
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.ClientTLS.Auto, dir = true, c.DataDir }))
	roots := x509.NewCertPool()
	look := func() []byte {
		conn, err := tls.Dial("tcp", hostOf(c.Endpoints()[0]), &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, err)
		defer conn.Close()
		cert := conn.ConnectionState().PeerCertificates[0]
		roots.AddCert(cert)
		return cert.Raw
	}
	first := look()
	require.NoError(t, putOver(testContext(t), t, hostOf(c.Endpoints()[0]), &tls.Config{RootCAs: roots}))
	require.FileExists(t, filepath.Join(dir, "fixtures", "client", "cert.pem"))
	c.Stop(0)
	c.Restart(0)
	require.Equal(t, first, look())
}

// What can not work is said before anything is written, in one line.
func TestSecuritySettingsThatContradict(t *testing.T) {
	a := certtest.New(t)
	p := a.Issue("server")
	for want, c := range map[string]server.Config{
		"listen-client-urls: https://127.0.0.1:1 needs a certificate: set cert-file and key-file, or auto-tls":              {ListenClientURLs: []string{"https://127.0.0.1:1"}},
		"listen-peer-urls: https://127.0.0.1:1 needs a certificate: set peer-cert-file and peer-key-file, or peer-auto-tls": {ListenPeerURLs: []string{"https://127.0.0.1:1"}},
		"listen-peer-urls has both http and https": {
			ListenPeerURLs: []string{"https://127.0.0.1:1", "http://127.0.0.1:2"}, PeerTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key},
		},
		"cert-file is set without key-file":                  {ClientTLS: server.TLS{CertFile: p.Cert}},
		"peer-key-file: none.pem: no such file or directory": {ListenPeerURLs: []string{"https://127.0.0.1:1"}, PeerTLS: server.TLS{CertFile: p.Cert, KeyFile: "none.pem"}},
		"cipher-suites: unexpected TLS cipher suite \"X\"":   {ClientTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key, CipherSuites: []string{"X"}}},
		"self-signed-cert-validity must not be negative":     {ClientTLS: server.TLS{Auto: true, SelfSignedYears: -1}},
		"max-concurrent-streams must not be negative":        {Limits: server.Limits{StreamsPerConnection: -1}},
		"only http:// and https:// URLs are supported":       {ListenPeerURLs: []string{"ftp://127.0.0.1:1"}},
	} {
		c.DataDir = filepath.Join(t.TempDir(), "data")
		_, err := server.Start(t.Context(), c)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
		require.NoDirExists(t, c.DataDir)
	}
}

// Addresses that others reach without TLS are worth a line, once.
func TestOpenListenersAreWarnedOf(t *testing.T) {
	a := certtest.New(t)
	p := a.Issue("server")
	start := func(c server.Config) string {
		var log logBuffer
		c.DataDir, c.Logger = t.TempDir(), slog.New(slog.NewTextHandler(&log, nil))
		s, err := server.Start(t.Context(), c)
		require.NoError(t, err)
		s.Kill()
		return log.String()
	}
	loopback, open := []string{"http://127.0.0.1:0"}, []string{"http://0.0.0.0:0"}
	const clients, members = "clients are not encrypted", "members are not encrypted"
	text := start(server.Config{ListenClientURLs: loopback, ListenPeerURLs: loopback})
	require.NotContains(t, text, "encrypted")
	text = start(server.Config{ListenClientURLs: open, ListenPeerURLs: open})
	require.Equal(t, 1, strings.Count(text, clients))
	require.Equal(t, 1, strings.Count(text, members))
	text = start(server.Config{
		ListenClientURLs: []string{"https://0.0.0.0:0"}, ListenPeerURLs: []string{"https://0.0.0.0:0"},
		ClientTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key}, PeerTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key},
	})
	require.NotContains(t, text, "not encrypted")
	require.Contains(t, text, "set peer-trusted-ca-file")
	text = start(server.Config{ListenClientURLs: loopback, ListenPeerURLs: loopback, ClientTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key}})
	require.Contains(t, text, "the URL is not for TLS")
}
