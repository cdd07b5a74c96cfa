package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/internal/certtest"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// Command lines against a member that wants a certificate, by flags and by the environment.
func TestClientFlagsForTLS(t *testing.T) {
	a := certtest.New(t)
	own, mine := a.Issue("server"), a.Issue("client")
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) {
		c.ClientTLS = server.TLS{CertFile: own.Cert, KeyFile: own.Key, TrustedCAFile: a.File()}
	}))
	secure := c.Endpoints()[0]
	bare := strings.TrimPrefix(secure, "https://")
	pair := []string{"--cert=" + mine.Cert, "--key=" + mine.Key}
	for _, each := range []struct {
		name      string
		endpoint  string
		flags     []string
		environ   []string
		code      int
		complaint string
	}{
		{"all", secure, append(pair, "--cacert="+a.File()), nil, exitOK, ""},
		{"without a scheme", bare, append(pair, "--cacert="+a.File()), nil, exitOK, ""},
		{"any server", secure, append(pair, "--insecure-skip-tls-verify"), nil, exitOK, ""},
		{"any server, no scheme", bare, append(pair, "--insecure-skip-tls-verify", "--insecure-transport=false"), nil, exitOK, ""},
		{"environment", secure, nil, []string{"ETCDCTL_CACERT=" + a.File(), "ETCDCTL_CERT=" + mine.Cert, "LATCHKEY_KEY=" + mine.Key}, exitOK, ""},
		{"a flag wins", secure, []string{"--cacert=" + a.File()}, []string{"ETCDCTL_CACERT=none", "LATCHKEY_CERT=" + mine.Cert, "LATCHKEY_KEY=" + mine.Key}, exitOK, ""},
		{"switches", bare, pair, []string{"ETCDCTL_INSECURE_SKIP_TLS_VERIFY=true", "ETCDCTL_INSECURE_TRANSPORT=false"}, exitOK, ""},
		{"no certificate", secure, []string{"--cacert=" + a.File(), "--timeout=2s"}, nil, exitError, "certificate required"},
		{"unknown server", secure, append(pair, "--timeout=2s"), nil, exitError, "unknown authority"},
		{"in the clear", bare, []string{"--timeout=2s"}, nil, exitError, ""},
		{"half a pair", secure, pair[:1], nil, exitUsage, "must be given together"},
		{"no such file", secure, []string{"--cacert=none"}, nil, exitUsage, "no such file"},
		{"contradiction", "http://" + bare, []string{"--cacert=" + a.File()}, nil, exitUsage, "scheme is http"},
	} {
		t.Run(each.name, func(t *testing.T) {
			var out, complaint bytes.Buffer
			app := &app{out: &out, errOut: &complaint, environ: each.environ}
			code := app.run(t.Context(), append([]string{"put", "k", "v", "--endpoints=" + each.endpoint}, each.flags...))
			require.Equal(t, each.code, code, complaint.String())
			require.Contains(t, complaint.String(), each.complaint)
			require.LessOrEqual(t, strings.Count(complaint.String(), "\n"), 1)
		})
	}
}
