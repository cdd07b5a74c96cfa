package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/server/internal/gate"
	"github.com/latchkey-go/latchkey/server/internal/peer"
	"github.com/latchkey-go/latchkey/server/internal/secure"
)

// safety is how the member's connections are secured and bounded.
type safety struct {
	clients, members *secure.Policy // nil: there is no certificate
	gate             *gate.Gate     // of clients
	monitors         *gate.Gate     // of those who only measure: a crowd of clients does not keep them out
}

// Beginnings of the names of settings, for errors.
const (
	flagsOfClients = ""
	flagsOfMembers = "peer-"
)

// settings translates t. dir is where certificates are made, for the URLs.
func (t TLS) settings(flag, dir string, urls []string) secure.Settings {
	s := secure.Settings{
		Flag: flag, CertFile: t.CertFile, KeyFile: t.KeyFile, ClientCertFile: t.ClientCertFile, ClientKeyFile: t.ClientKeyFile,
		TrustedCAFile: t.TrustedCAFile, CRLFile: t.CRLFile, ClientCertAuth: t.ClientCertAuth,
		AllowedCN: t.AllowedCN, AllowedHostnames: t.AllowedHostnames, AllowedURIs: t.AllowedURIs,
		MinVersion: t.MinVersion, MaxVersion: t.MaxVersion, CipherSuites: t.CipherSuites,
	}
	if t.Auto {
		s.Auto = secure.Auto{Dir: dir, Hosts: hostsOf(urls), Years: t.SelfSignedYears}
	}
	return s
}

func hostsOf(urls []string) []string {
	var hosts []string
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Hostname() != "" && !slices.Contains(hosts, u.Hostname()) {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

func (c Config) clientSecurity() secure.Settings {
	s := c.ClientTLS.settings(flagsOfClients, filepath.Join(c.DataDir, "fixtures", "client"), slices.Concat(c.ListenClientURLs, c.AdvertiseClientURLs))
	s.Protocols = []string{"h2", "http/1.1"}
	return s
}

func (c Config) peerSecurity() secure.Settings {
	return c.PeerTLS.settings(flagsOfMembers, filepath.Join(c.DataDir, "fixtures", "peer"), slices.Concat(c.ListenPeerURLs, c.AdvertisePeerURLs))
}

// clientURLs and peerURLs are all that the settings of TLS are for.
func (c Config) clientURLs() []string {
	return slices.Concat(c.ListenClientURLs, c.Web.ListenClientHTTPURLs, c.Web.ListenMetricsURLs)
}

func (c Config) peerURLs() []string { return slices.Concat(c.ListenPeerURLs, c.AdvertisePeerURLs) }

// isSecure reports whether TLS is spoken at a URL.
func isSecure(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "https" || u.Scheme == "unixs")
}

// asSecure gives a URL the scheme of TLS if that is spoken at another.
func asSecure(raw, as string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok || !isSecure(as) || isSecure(raw) {
		return raw
	}
	return scheme + "s://" + rest
}

// checkSafety reports what contradicts itself in the settings of TLS. It reads
// no file.
func (c Config) checkSafety() error {
	for _, each := range []struct {
		list     string
		urls     []string
		settings secure.Settings
		auto     string
	}{
		{"listen-client-urls", c.ListenClientURLs, c.clientSecurity(), "auto-tls"},
		{"listen-client-http-urls", c.Web.ListenClientHTTPURLs, c.clientSecurity(), "auto-tls"},
		{"listen-metrics-urls", c.Web.ListenMetricsURLs, c.clientSecurity(), "auto-tls"},
		{"listen-peer-urls", c.ListenPeerURLs, c.peerSecurity(), "peer-auto-tls"},
	} {
		s := each.settings
		if i := slices.IndexFunc(each.urls, isSecure); i >= 0 && !s.Configured() {
			return fmt.Errorf("%s: %s needs a certificate: set %scert-file and %skey-file, or %s", each.list, each.urls[i], s.Flag, s.Flag, each.auto)
		}
	}
	if secured := slices.ContainsFunc(c.ListenPeerURLs, isSecure); secured && slices.ContainsFunc(c.ListenPeerURLs, func(u string) bool { return !isSecure(u) }) {
		return errors.New("listen-peer-urls has both http and https: members that are to be trusted must all come by https")
	}
	for _, each := range []struct {
		urls     []string
		settings secure.Settings
	}{{c.clientURLs(), c.clientSecurity()}, {c.peerURLs(), c.peerSecurity()}} {
		if slices.ContainsFunc(each.urls, isSecure) && each.settings.Configured() {
			if err := each.settings.Check(); err != nil {
				return err
			}
		}
	}
	if c.ClientTLS.SelfSignedYears < 0 || c.PeerTLS.SelfSignedYears < 0 {
		return errors.New("self-signed-cert-validity must not be negative")
	}
	return c.Limits.check()
}

// secureIt reads certificates, or makes them, where there are URLs for them.
func (s *Server) secureIt() error {
	s.safety.gate, s.safety.monitors = s.newGate(), s.newMonitorsGate()
	for _, each := range []struct {
		urls     []string
		settings secure.Settings
		policy   **secure.Policy
	}{
		{s.cfg.clientURLs(), s.cfg.clientSecurity(), &s.safety.clients},
		{s.cfg.peerURLs(), s.cfg.peerSecurity(), &s.safety.members},
	} {
		settings := each.settings
		if !settings.Configured() {
			continue
		}
		if settings.CertFile != "" && settings.Auto.Dir != "" {
			s.log.Warn("a certificate is given: no other one is made", "ignored", settings.Flag+"auto-tls")
		}
		if !slices.ContainsFunc(each.urls, isSecure) {
			continue
		}
		for _, u := range each.urls {
			if !isSecure(u) {
				s.log.Warn("the URL is not for TLS: its connections do not use the certificate, and are not asked for one", "url", u)
			}
		}
		settings.Logger = s.log
		p, err := secure.New(settings)
		if err != nil {
			return err
		}
		*each.policy = p
	}
	return nil
}

// distinct returns the URLs without those of an address that is listed before,
// with and without TLS: both share its listener.
func distinct(urls []string) []string {
	var all []string
	for i, u := range urls {
		if !slices.ContainsFunc(urls[:i], func(v string) bool { return shared(u, v) }) {
			all = append(all, u)
		}
	}
	return all
}

// shared reports whether two URLs are the same address, once with TLS and once
// without.
func shared(a, b string) bool {
	u, err := url.Parse(a)
	v, verr := url.Parse(b)
	return err == nil && verr == nil && u.Host == v.Host && u.Path == v.Path && u.Port() != "0" && isSecure(a) != isSecure(b)
}

// guard puts TLS and the bounds of connections over listeners for clients that
// were opened for the distinct ones of urls. It takes them over.
func (s *Server) guard(g *gate.Gate, open []net.Listener, urls []string) {
	each := distinct(urls)
	for i, l := range open {
		u := each[min(i, len(each)-1)]
		switch {
		case s.safety.clients == nil:
			open[i] = g.Listen(l, gate.Plain, nil)
		case slices.ContainsFunc(urls, func(v string) bool { return shared(u, v) }):
			open[i] = g.Listen(l, gate.Both, s.safety.clients.Server())
		case isSecure(u):
			open[i] = g.Listen(l, gate.Secure, s.safety.clients.Server())
		default:
			open[i] = g.Listen(l, gate.Plain, nil)
		}
	}
}

// peerSecure puts TLS over the connections of members.
func (s *Server) peerSecure() peer.Secure {
	p := s.safety.members
	if p == nil {
		return peer.Secure{}
	}
	hooks := peer.Secure{Client: func(ctx context.Context, c net.Conn, name string) (net.Conn, error) {
		t := tls.Client(c, p.Client(name))
		return t, t.HandshakeContext(ctx)
	}}
	if !slices.ContainsFunc(s.cfg.ListenPeerURLs, isSecure) {
		return hooks
	}
	conf := p.Server()
	hooks.Server = func(ctx context.Context, c net.Conn) (net.Conn, error) {
		t := tls.Server(c, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		shown := t.ConnectionState().PeerCertificates
		if len(shown) == 0 || s.cfg.PeerTLS.SkipClientSANVerification {
			return t, nil
		}
		return t, secure.CheckAddress(ctx, net.DefaultResolver, shown[0], c.RemoteAddr().String())
	}
	return hooks
}
