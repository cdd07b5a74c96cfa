package main

import (
	"time"

	"github.com/latchkey-go/latchkey/server"
)

var securityFlags = []flagGroup{
	{"TLS for clients", []serverFlag{
		{"cert-file", "FILE", "", "certificate of this member, as PEM",
			into(parseText, func(c *server.Config) *string { return &c.ClientTLS.CertFile })},
		{"key-file", "FILE", "", "its key",
			into(parseText, func(c *server.Config) *string { return &c.ClientTLS.KeyFile })},
		{"trusted-ca-file", "FILE", "", "authorities of the clients' certificates",
			into(parseText, func(c *server.Config) *string { return &c.ClientTLS.TrustedCAFile })},
		{"client-cert-auth", "", "false", "demand a certificate of clients",
			into(parseSwitch, func(c *server.Config) *bool { return &c.ClientTLS.ClientCertAuth })},
		{"client-crl-file", "FILE", "", "revoked certificates",
			into(parseText, func(c *server.Config) *string { return &c.ClientTLS.CRLFile })},
		{"client-cert-allowed-hostname", "NAME,...", "", "names, of which a client's certificate must have one",
			into(parseList, func(c *server.Config) *[]string { return &c.ClientTLS.AllowedHostnames })},
		{"client-cert-allowed-cn", "NAME,...", "", "common names, of which a client's certificate must have one",
			into(parseList, func(c *server.Config) *[]string { return &c.ClientTLS.AllowedCN })},
		{"client-cert-file", "FILE", "cert-file", "certificate for the member's connections to itself",
			into(parseText, func(c *server.Config) *string { return &c.ClientTLS.ClientCertFile })},
		{"client-key-file", "FILE", "key-file", "its key",
			into(parseText, func(c *server.Config) *string { return &c.ClientTLS.ClientKeyFile })},
		{"auto-tls", "", "false", "make a certificate: it encrypts and proves nothing",
			into(parseSwitch, func(c *server.Config) *bool { return &c.ClientTLS.Auto })},
	}},
	{"TLS between members", []serverFlag{
		{"peer-cert-file", "FILE", "", "certificate of this member, as PEM",
			into(parseText, func(c *server.Config) *string { return &c.PeerTLS.CertFile })},
		{"peer-key-file", "FILE", "", "its key",
			into(parseText, func(c *server.Config) *string { return &c.PeerTLS.KeyFile })},
		{"peer-trusted-ca-file", "FILE", "", "authorities of the members' certificates",
			into(parseText, func(c *server.Config) *string { return &c.PeerTLS.TrustedCAFile })},
		{"peer-client-cert-auth", "", "false", "demand a certificate of members",
			into(parseSwitch, func(c *server.Config) *bool { return &c.PeerTLS.ClientCertAuth })},
		{"peer-crl-file", "FILE", "", "revoked certificates",
			into(parseText, func(c *server.Config) *string { return &c.PeerTLS.CRLFile })},
		{"peer-cert-allowed-cn", "NAME,...", "", "common names, of which a member's certificate must have one",
			into(parseList, func(c *server.Config) *[]string { return &c.PeerTLS.AllowedCN })},
		{"peer-cert-allowed-hostname", "NAME,...", "", "names, of which a member's certificate must have one",
			into(parseList, func(c *server.Config) *[]string { return &c.PeerTLS.AllowedHostnames })},
		{"peer-cert-allowed-uri", "URI,...", "", "identities (spiffe://...), of which a member's certificate must have one",
			into(parseList, func(c *server.Config) *[]string { return &c.PeerTLS.AllowedURIs })},
		{"peer-client-cert-file", "FILE", "peer-cert-file", "certificate to show when connecting to members",
			into(parseText, func(c *server.Config) *string { return &c.PeerTLS.ClientCertFile })},
		{"peer-client-key-file", "FILE", "peer-key-file", "its key",
			into(parseText, func(c *server.Config) *string { return &c.PeerTLS.ClientKeyFile })},
		{"peer-skip-client-san-verification", "", "false", "accept members whose certificate does not name their address",
			into(parseSwitch, func(c *server.Config) *bool { return &c.PeerTLS.SkipClientSANVerification })},
		{"peer-auto-tls", "", "false", "make a certificate: it encrypts and proves nothing",
			into(parseSwitch, func(c *server.Config) *bool { return &c.PeerTLS.Auto })},
	}},
	{"TLS of both kinds", []serverFlag{
		{"tls-min-version", "VERSION", "TLS1.2", "TLS1.2 or TLS1.3",
			both(parseTLSVersion, func(t *server.TLS) *string { return &t.MinVersion })},
		{"tls-max-version", "VERSION", "", "TLS1.2 or TLS1.3",
			both(parseTLSVersion, func(t *server.TLS) *string { return &t.MaxVersion })},
		{"cipher-suites", "NAME,...", "Go's choice", "what TLS 1.2 may use",
			both(parseList, func(t *server.TLS) *[]string { return &t.CipherSuites })},
		{"self-signed-cert-validity", "YEARS", "1", "how long certificates hold that the member makes",
			both(parsePositive, func(t *server.TLS) *int { return &t.SelfSignedYears })},
	}},
	{"Users", []serverFlag{
		{"auth-token", "TEXT", "simple", "tokens of users: simple, or jwt,sign-method=...,pub-key=...,priv-key=...,ttl=...",
			into(parseText, func(c *server.Config) *string { return &c.Auth.Token })},
		{"auth-token-ttl", "SECONDS", "300", "how long a simple token lives without being used",
			into(parseSeconds, func(c *server.Config) *time.Duration { return &c.Auth.TokenTTL })},
		{"bcrypt-cost", "N", "10", "what hashing a password costs, 4 to 31",
			into(parsePositive, func(c *server.Config) *int { return &c.Auth.BcryptCost })},
	}},
}

// both is like into, for a field of both kinds of connections.
func both[T any](parse func(string) (T, error), field func(*server.TLS) *T) func(*serverOptions, string) error {
	return func(o *serverOptions, value string) error {
		v, err := parse(value)
		if err != nil {
			return err
		}
		*field(&o.config.ClientTLS), *field(&o.config.PeerTLS) = v, v
		return nil
	}
}
