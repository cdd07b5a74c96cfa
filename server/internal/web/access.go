package web

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// gatewayPrefix is where the gateway's paths begin, and oldPrefixes are where they began in older versions of etcd.
const gatewayPrefix = "/v3/"

var oldPrefixes = []string{"/v3beta/", "/v3alpha/"}

// access decides who may ask, before anything is served.
type access struct {
	hosts   []string
	origins []string
	foreign *http.CrossOriginProtection // nil if all origins are allowed
	users   func() bool                 // whether requests need a user; nil: no
	next    http.Handler
}

func newAccess(cfg Config, users func() bool, next http.Handler) (*access, error) {
	a := &access{hosts: cfg.Hosts, origins: cfg.Origins, users: users, next: next}
	if slices.Contains(a.origins, "*") {
		return a, nil
	}
	a.foreign = http.NewCrossOriginProtection()
	for _, o := range a.origins {
		if err := a.foreign.AddTrustedOrigin(o); err != nil {
			return nil, fmt.Errorf("cors: %q is no origin such as https://example.com: %w", o, err)
		}
	}
	return a, nil
}

// certificateText is compared by clients.
const certificateText = "CommonName of client sending a request against gateway will be ignored and not used as expected"

func (a *access) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, old := range oldPrefixes {
		if rest, ok := strings.CutPrefix(r.URL.Path, old); ok {
			r.URL.Path, r.URL.RawPath = gatewayPrefix+rest, ""
		}
	}
	if r.TLS == nil {
		if host := hostname(r.Host); !a.knows(host) {
			http.Error(w, fmt.Sprintf("This member is not to be asked as %q without TLS. Use TLS, or list the name with --host-whitelist.", host),
				http.StatusMisdirectedRequest)
			return
		}
	} else if strings.HasPrefix(r.URL.Path, gatewayPrefix) && a.users != nil && named(r) && a.users() {
		http.Error(w, certificateText, http.StatusBadRequest)
		return
	}
	a.allowOrigin(w, r)
	if r.Method == http.MethodOptions {
		return
	}
	if a.foreign != nil {
		if err := a.foreign.Check(r); err != nil {
			http.Error(w, "A page of another origin may not ask this member. List the origin with --cors.", http.StatusForbidden)
			return
		}
	}
	a.next.ServeHTTP(w, r)
}

// allowOrigin tells a browser that a page of another origin may see the answer.
func (a *access) allowOrigin(w http.ResponseWriter, r *http.Request) {
	h, origin := w.Header(), r.Header.Get("Origin")
	switch {
	case a.foreign == nil:
		origin = "*"
	case origin != "" && slices.Contains(a.origins, origin):
		h.Add("Vary", "Origin")
	default:
		return
	}
	h.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Headers", "accept, content-type, authorization")
}

func (a *access) knows(host string) bool {
	return len(a.hosts) == 0 || slices.Contains(a.hosts, "*") || slices.Contains(a.hosts, host)
}

func hostname(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport
	}
	return host
}

// named reports whether the client has shown a verified certificate with a common name.
func named(r *http.Request) bool {
	for _, chain := range r.TLS.VerifiedChains {
		if len(chain) > 0 && chain[0].Subject.CommonName != "" {
			return true
		}
	}
	return false
}
