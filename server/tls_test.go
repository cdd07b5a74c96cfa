package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/latchkey-go/latchkey/client"
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
	_, err = c.Client().Get(ctx, "k") // may be repeated; a put whose member dies may not
	require.NoError(t, err)
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

// A user is who the certificate says, once users are required.
func TestTheCertificateNamesTheUser(t *testing.T) {
	a := certtest.New(t)
	alice, nobody := a.Issue("alice"), a.Issue("nobody")
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.ClientTLS = mutual(a, a.Issue("server")) }))
	ctx := testContext(t)
	connect := func(p certtest.Pair) *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///"+hostOf(c.Endpoints()[0]), grpc.WithTransportCredentials(credentials.NewTLS(knows(a, p))))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	users := pb.NewAuthClient(connect(nobody))
	for _, name := range []string{"root", "alice"} {
		_, err := users.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name, Options: &authpb.UserAddOptions{NoPassword: true}})
		require.NoError(t, err)
		_, err = users.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: name})
		require.NoError(t, err)
		_, err = users.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: name, Role: name})
		require.NoError(t, err)
	}
	_, err := users.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{
		Name: "alice", Perm: &authpb.Permission{PermType: authpb.READWRITE, Key: []byte("hers")},
	})
	require.NoError(t, err)
	_, err = users.AuthEnable(ctx, &pb.AuthEnableRequest{})
	require.NoError(t, err)
	_, err = pb.NewKVClient(connect(alice)).Put(ctx, put("hers", "v"))
	require.NoError(t, err)
	_, err = pb.NewKVClient(connect(alice)).Put(ctx, put("another's", "v"))
	require.ErrorContains(t, err, "permission denied")
	_, err = pb.NewKVClient(connect(nobody)).Put(ctx, put("hers", "v"))
	require.Error(t, err)
}

// free returns an address that nobody listens on.
func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// Every listener asks for the same: gRPC and the gateway on one, HTTP alone, metrics alone, a socket in the file system.
func TestEveryListenerChecks(t *testing.T) {
	a, stranger := certtest.New(t), certtest.New(t)
	own, alice, revoked, mallory := a.Issue("server"), a.Issue("alice"), a.Issue("revoked"), stranger.Issue("alice")
	conf := mutual(a, own)
	conf.CRLFile = a.Revoke("crl", true, revoked)
	clients, httpOnly, metrics, file := free(t), free(t), free(t), filepath.Join(t.TempDir(), "s")
	for _, apart := range []bool{false, true} {
		cfg := server.Config{
			DataDir: t.TempDir(), ListenClientURLs: []string{"https://" + clients, "unixs://" + file}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
			ClientTLS: conf, Web: server.Web{ListenMetricsURLs: []string{"https://" + metrics}},
		}
		addresses := map[string]string{clients: "tcp", file: "unix", metrics: "tcp"}
		if apart {
			cfg.Web.ListenClientHTTPURLs = []string{"https://" + httpOnly}
			addresses = map[string]string{httpOnly: "tcp", metrics: "tcp"}
		}
		s, err := server.Start(t.Context(), cfg)
		require.NoError(t, err)
		<-s.Ready()
		for address, network := range addresses {
			ask := func(conf *tls.Config) (string, error) {
				c := &http.Client{Transport: &http.Transport{
					TLSClientConfig: conf, DisableKeepAlives: true,
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						return (&net.Dialer{}).DialContext(ctx, network, address)
					},
				}}
				r, err := c.Get("https://localhost/metrics")
				if err != nil {
					return "", err
				}
				defer r.Body.Close()
				body, err := io.ReadAll(r.Body)
				return string(body), err
			}
			text, err := ask(knows(a, alice))
			require.NoError(t, err)
			require.Contains(t, text, `latchkey_certificate_end_seconds{for="clients"} `, "%s %s", network, address)
			_, err = ask(&tls.Config{RootCAs: a.Pool()})
			require.Error(t, err)
			for _, who := range []certtest.Pair{revoked, mallory} {
				_, err = ask(&tls.Config{RootCAs: a.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					return &who.Certificate, nil
				}})
				require.Error(t, err)
			}
		}
		c, err := client.New(client.Config{Endpoints: []string{"unixs://" + file}, TLS: knows(a, alice)})
		require.NoError(t, err)
		_, err = c.Put(testContext(t), "k", []byte("v"))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		s.Kill()
	}
}

// One address may be listed with both schemes, as etcd's own tests do: the client's first byte decides.
func TestBothOnOneAddress(t *testing.T) {
	a := certtest.New(t)
	p := a.Issue("server")
	host := free(t)
	s, err := server.Start(t.Context(), server.Config{
		DataDir: t.TempDir(), ListenClientURLs: []string{"http://" + host, "https://" + host}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
		ClientTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key},
	})
	require.NoError(t, err)
	t.Cleanup(s.Kill)
	<-s.Ready()
	ctx := testContext(t)
	_, err = dial(t, host).KVClient.Put(ctx, put("k", "v"))
	require.NoError(t, err)
	require.NoError(t, putOver(ctx, t, host, &tls.Config{RootCAs: a.Pool()}))
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
		"cert-file is set without key-file":                  {ListenClientURLs: []string{"https://127.0.0.1:1"}, ClientTLS: server.TLS{CertFile: p.Cert}},
		"peer-key-file: none.pem: no such file or directory": {ListenPeerURLs: []string{"https://127.0.0.1:1"}, PeerTLS: server.TLS{CertFile: p.Cert, KeyFile: "none.pem"}},
		"cipher-suites: unexpected TLS cipher suite \"X\"":   {ListenClientURLs: []string{"https://127.0.0.1:1"}, ClientTLS: server.TLS{CertFile: p.Cert, KeyFile: p.Key, CipherSuites: []string{"X"}}},
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
