package interop_test

import (
	"context"
	"crypto/tls"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/latchkey-go/latchkey/internal/certtest"
	"github.com/latchkey-go/latchkey/interop/harness"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// etcdctl and etcd's client reach members over TLS in all the ways in which they reach etcd, and are refused as there.
func TestEtcdToolsOverTLS(t *testing.T) {
	ctl, err := harness.Build(testContext(t), harness.ToolEtcdctl)
	require.NoError(t, err)
	a, stranger := certtest.New(t), certtest.New(t)
	own, alice, revoked, mallory := a.Issue("server"), a.Issue("alice"), a.Issue("revoked"), stranger.Issue("alice")
	crl := a.Revoke("crl.der", true, revoked)
	var dir string
	show := func(p certtest.Pair) []string {
		return []string{"--cacert=" + a.File(), "--cert=" + p.Cert, "--key=" + p.Key}
	}
	for name, c := range map[string]struct {
		conf          server.TLS
		good, refused [][]string
	}{
		"server only": {
			conf:    server.TLS{CertFile: own.Cert, KeyFile: own.Key},
			good:    [][]string{{"--cacert=" + a.File()}, {"--insecure-transport=false", "--insecure-skip-tls-verify"}, show(alice)},
			refused: [][]string{{}, {"--cacert=" + stranger.File()}, {"--insecure-transport=false"}},
		},
		"both sides": {
			conf:    server.TLS{CertFile: own.Cert, KeyFile: own.Key, TrustedCAFile: a.File(), ClientCertAuth: true},
			good:    [][]string{show(alice), show(revoked)},
			refused: [][]string{{"--cacert=" + a.File()}, show(mallory)},
		},
		"revoked": {
			conf:    server.TLS{CertFile: own.Cert, KeyFile: own.Key, TrustedCAFile: a.File(), CRLFile: crl},
			good:    [][]string{show(alice)},
			refused: [][]string{show(revoked)},
		},
		"TLS 1.2 with one suite": {
			conf: server.TLS{
				CertFile: own.Cert, KeyFile: own.Key, MaxVersion: "TLS1.2", CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
			},
			good: [][]string{{"--cacert=" + a.File()}},
		},
		"made certificate": {
			conf:    server.TLS{Auto: true},
			good:    [][]string{{"--insecure-transport=false", "--insecure-skip-tls-verify"}, {"--cacert=made"}},
			refused: [][]string{{"--insecure-transport=false"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := servertest.One(t, servertest.WithConfig(func(s *server.Config) { s.ClientTLS, dir = c.conf, s.DataDir }))
			run := func(flags []string) (string, error) {
				ctx, cancel := context.WithTimeout(testContext(t), stepTimeout)
				defer cancel()
				endpoint := cluster.Endpoints()[0]
				if len(flags) == 0 { // in the clear
					endpoint = "http" + endpoint[len("https"):]
				}
				args := []string{"--endpoints=" + endpoint, "--dial-timeout=1s", "--command-timeout=1s"}
				for _, f := range flags {
					if f == "--cacert=made" {
						f = "--cacert=" + filepath.Join(dir, "fixtures", "client", "cert.pem")
					}
					args = append(args, f)
				}
				out, err := exec.CommandContext(ctx, ctl, append(args, "put", "k", "v")...).CombinedOutput()
				return string(out), err
			}
			for _, flags := range c.good {
				out, err := run(flags)
				require.NoError(t, err, out)
				require.Equal(t, "OK\n", out, flags)
			}
			for _, flags := range c.refused {
				_, err := run(flags)
				require.Error(t, err, flags)
			}
		})
	}
}

// etcd's Go client watches and writes over TLS, and goes on when its member gets a new certificate.
func TestEtcdClientOverTLS(t *testing.T) {
	a := certtest.New(t)
	own, alice := a.Issue("server"), a.Issue("alice")
	cluster := servertest.Three(t, servertest.WithConfig(func(s *server.Config) {
		s.ClientTLS = server.TLS{CertFile: own.Cert, KeyFile: own.Key, TrustedCAFile: a.File()}
		s.PeerTLS = s.ClientTLS
	}))
	ctx := testContext(t)
	c, err := clientv3.New(clientv3.Config{
		Endpoints: cluster.Endpoints(), DialTimeout: 5 * time.Second,
		TLS: &tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{alice.Certificate}},
	})
	require.NoError(t, err)
	defer c.Close()
	watched := c.Watch(ctx, "k")
	for i := range 3 {
		a.Issue("server")
		cluster.Stop(i)
		cluster.Restart(i)
		_, err = c.Put(ctx, "k", "v")
		require.NoError(t, err)
	}
	seen := 0
	for r := range watched {
		require.NoError(t, r.Err())
		if seen += len(r.Events); seen >= 3 {
			break
		}
	}
}
