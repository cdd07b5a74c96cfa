// Package secure turns the settings of TLS into what both ends of a handshake need.
//
// A [Policy] is for connections of one kind, of clients or of members. Its files are looked at whenever a handshake
// begins and read again when they have changed; what can not be used is said once, and what was read before stays in
// force. All checks of the other side are made in VerifyConnection, and sessions are never resumed, so no connection
// begins on the word of an earlier one.
package secure

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Settings are those of connections of one kind. They are server.TLS, in the words of this package.
type Settings struct {
	// Flag is the beginning of the names of the settings, for errors: "" for clients, "peer-" for members.
	Flag                          string
	CertFile, KeyFile             string
	ClientCertFile, ClientKeyFile string
	TrustedCAFile, CRLFile        string
	ClientCertAuth                bool
	AllowedCN, AllowedHostnames   []string
	// AllowedURIs are identities such as spiffe://trust.domain/latchkey/a. One that
	// ends in "/" allows all below it.
	AllowedURIs            []string
	MinVersion, MaxVersion string
	CipherSuites           []string
	// Auto, if its Dir is not empty, makes a certificate where CertFile is empty.
	Auto Auto
	// Protocols are offered to clients, the best first; nil for none.
	Protocols []string
	Logger    *slog.Logger // nil: discarded
}

// Configured tells whether there is, or will be, a certificate to show.
func (s Settings) Configured() bool { return s.CertFile != "" || s.KeyFile != "" || s.Auto.Dir != "" }

// Policy is ready to be used in handshakes. All methods are safe for concurrent use.
type Policy struct {
	files    *files
	settings Settings
	base     tls.Config // what no file has a say in; never used itself
	demands  bool       // a certificate of who connects
}

// New checks the settings and reads their files. Its errors are one line each and name the setting to change.
func New(s Settings) (*Policy, error) {
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Policy{settings: s}
	p.demands = s.ClientCertAuth || s.TrustedCAFile != "" || s.CRLFile != "" || len(s.AllowedCN)+len(s.AllowedHostnames)+len(s.AllowedURIs) > 0
	err := s.apply(&p.base)
	if err != nil {
		return nil, err
	}
	p.base.SessionTicketsDisabled = true
	p.base.DynamicRecordSizingDisabled = true // small records cost more calls than they save time, on a network of servers
	if p.files, err = newFiles(s); err != nil {
		return nil, err
	}
	return p, nil
}

// Check reports what contradicts itself, without a look at the files.
func (s Settings) Check() error { return s.apply(&tls.Config{}) }

// apply checks the settings and puts into c what is not in files.
func (s Settings) apply(c *tls.Config) (err error) {
	if err := s.check(); err != nil {
		return err
	}
	if c.MinVersion, c.MaxVersion, err = versions(s.MinVersion, s.MaxVersion); err != nil {
		return err
	}
	if c.CipherSuites, err = suites(s.CipherSuites); err != nil {
		return err
	}
	if c.MinVersion == tls.VersionTLS13 && len(s.CipherSuites) > 0 {
		return errors.New("cipher-suites has no effect with tls-min-version TLS1.3, whose suites are not for choice: leave one out")
	}
	return nil
}

func (s Settings) check() error {
	flag := func(name string) string { return s.Flag + name }
	switch {
	case s.CertFile == "" && s.KeyFile != "":
		return fmt.Errorf("%s is set without %s", flag("key-file"), flag("cert-file"))
	case s.CertFile != "" && s.KeyFile == "":
		return fmt.Errorf("%s is set without %s", flag("cert-file"), flag("key-file"))
	case (s.ClientCertFile == "") != (s.ClientKeyFile == ""):
		return fmt.Errorf("%s and %s must be set together", flag("client-cert-file"), flag("client-key-file"))
	case len(s.AllowedCN) > 0 && len(s.AllowedHostnames) > 0:
		return fmt.Errorf("%s and %s exclude each other", flag("cert-allowed-cn"), flag("cert-allowed-hostname"))
	case slices.ContainsFunc(s.AllowedURIs, func(u string) bool { return !strings.Contains(u, "://") }):
		return fmt.Errorf("%s lists URIs, such as spiffe://trust.domain/member", flag("cert-allowed-uri"))
	case !s.Configured():
		return fmt.Errorf("%s and %s are not set", flag("cert-file"), flag("key-file"))
	case s.auto() && s.Flag != "" && (s.TrustedCAFile != "" || s.ClientCertAuth):
		return fmt.Errorf("%s makes certificates that no %s can check: leave one of them out", flag("auto-tls"), flag("trusted-ca-file"))
	}
	return nil
}

// auto tells whether the certificate is one that we make.
func (s Settings) auto() bool { return s.CertFile == "" && s.Auto.Dir != "" }

// Demands tells whether who connects must show a certificate.
func (p *Policy) Demands() bool { return p.demands }

// Ends tells until when the certificate holds.
func (p *Policy) Ends() time.Time { return p.files.current().certificate.Leaf.NotAfter }

// Server returns the configuration for the side that accepts. It stays right when files change.
func (p *Policy) Server() *tls.Config {
	c := p.base.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return p.server(), nil }
	return c
}

// server is the configuration of one handshake.
func (p *Policy) server() *tls.Config {
	now := p.files.current()
	c := p.base.Clone()
	c.NextProtos = p.settings.Protocols
	c.Certificates = []tls.Certificate{now.certificate}
	if p.demands {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, now.authorities
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return p.verify(s, now) }
	return c
}

// Client returns the configuration of one connection to the server of that name, which is not to be kept for another.
func (p *Policy) Client(name string) *tls.Config {
	now := p.files.current()
	c := p.base.Clone()
	c.ServerName, c.RootCAs = name, now.authorities
	// A made certificate is its member's own secret: nobody can check it.
	c.InsecureSkipVerify = p.settings.auto()
	mine := now.certificate
	if now.client != nil {
		mine = *now.client
	}
	// Whatever authorities the server names: if it does not like this one, its error says so.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil }
	c.VerifyConnection = func(s tls.ConnectionState) error { return p.verify(s, now) }
	return c
}

// errNobody: a certificate is demanded and there is none. Go's own check comes first; this is the second lock.
var errNobody = errors.New("the other side shows no certificate")

// verify is what is asked of the other side beyond a chain to an authority.
func (p *Policy) verify(s tls.ConnectionState, now *material) error {
	if len(s.PeerCertificates) == 0 {
		if p.demands {
			return errNobody
		}
		return nil
	}
	if err := now.revoked.check(s.PeerCertificates, s.VerifiedChains); err != nil {
		return err
	}
	leaf := s.PeerCertificates[0]
	if cns := p.settings.AllowedCN; len(cns) > 0 && !slices.Contains(cns, leaf.Subject.CommonName) {
		return fmt.Errorf("client certificate authentication failed: the common name %q is not allowed", leaf.Subject.CommonName)
	}
	if names := p.settings.AllowedHostnames; len(names) > 0 {
		if !slices.ContainsFunc(names, func(n string) bool { return leaf.VerifyHostname(n) == nil }) {
			return fmt.Errorf("client certificate authentication failed: the certificate is for none of %s", strings.Join(names, ", "))
		}
	}
	if allowed := p.settings.AllowedURIs; len(allowed) > 0 && !slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return allows(allowed, u.String()) }) {
		return fmt.Errorf("client certificate authentication failed: the certificate has no identity of %s", strings.Join(allowed, ", "))
	}
	return nil
}

// allows tells whether a URI is one of those that are allowed, or below one of them.
// Nothing in it is decoded or resolved: "/../" would lead out of what is meant.
func allows(allowed []string, uri string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		below, ok := strings.CutPrefix(uri, a)
		return ok && (below == "" || strings.HasSuffix(a, "/") && !strings.ContainsAny(below, "/?#%") && below != "." && below != "..")
	})
}
