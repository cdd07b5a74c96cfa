package web

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCertificateIsNoUser asks over TLS, with and without a certificate that names somebody.
func TestCertificateIsNoUser(t *testing.T) {
	for _, c := range []struct {
		path  string
		name  string
		users bool
		want  int
	}{
		{"/v3/kv/put", "alice", true, 400},
		{"/v3beta/kv/put", "alice", true, 400},
		{"/v3/kv/put", "alice", false, 204},
		{"/v3/kv/put", "", true, 204},
		{"/health", "alice", true, 204},
	} {
		served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		// Over TLS every host name will do.
		a, err := newAccess(Config{Hosts: []string{"other.example"}}, func() bool { return c.users }, served)
		require.NoError(t, err)
		r := httptest.NewRequest(http.MethodPost, c.path, nil)
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: c.name}}}}}
		w := httptest.NewRecorder()
		a.ServeHTTP(w, r)
		require.Equal(t, c.want, w.Code, c)
		if c.want == 400 {
			require.Equal(t, certificateText+"\n", w.Body.String())
		}
	}
	_, err := newAccess(Config{Origins: []string{"page.example"}}, nil, nil)
	require.ErrorContains(t, err, "is no origin")
}
