package main

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/server"
)

// warnUnreachable tells when others would be told an address that means
// "every address of this machine" to the listener and nothing to them.
func warnUnreachable(c server.Config) []string {
	var warnings []string
	check := func(flag, listen string, advertised, listened []string) {
		if len(advertised) > 0 {
			return
		}
		for _, u := range listened {
			if strings.Contains(u, "//0.0.0.0:") || strings.Contains(u, "//[::]:") {
				warnings = append(warnings, fmt.Sprintf("%s %s is not an address that others can connect to: set --%s", listen, u, flag))
			}
		}
	}
	check("advertise-client-urls", "listen-client-urls", c.AdvertiseClientURLs, c.ListenClientURLs)
	check("initial-advertise-peer-urls", "listen-peer-urls", c.AdvertisePeerURLs, c.ListenPeerURLs)
	return warnings
}

// warnOpen tells when the network can listen in, or act as a member.
func warnOpen(c server.Config) []string {
	var warnings []string
	warn := func(words ...string) { warnings = append(warnings, strings.Join(words, " ")) }
	unused := func(urls []string, t server.TLS) bool {
		return (t.CertFile != "" || t.Auto) && !slices.ContainsFunc(urls, isSecure)
	}
	if unused(slices.Concat(c.ListenClientURLs, c.Web.ListenClientHTTPURLs, c.Web.ListenMetricsURLs), c.ClientTLS) {
		warn("cert-file or auto-tls", "is set,", "but no address for clients begins with https: they are served without TLS")
	}
	if unused(c.ListenPeerURLs, c.PeerTLS) {
		warn("peer-cert-file or peer-auto-tls", "is set,", "but no listen-peer-urls begin with https: members talk without TLS")
	}
	for _, u := range c.ListenClientURLs {
		if isExposed(u) && !isSecure(u) {
			warn("listen-client-urls", u, "has no TLS: whoever is on that network can read, and without users also change, all data")
		}
	}
	for _, u := range c.ListenPeerURLs {
		switch {
		case !isExposed(u):
		case !isSecure(u):
			warn("listen-peer-urls", u, "has no TLS: whoever reaches it can act as a member")
		case !asksForCertificates(c.PeerTLS):
			warn("listen-peer-urls", u, "asks for no certificate, so whoever reaches it can act as a member: set --peer-trusted-ca-file")
		}
	}
	return warnings
}

// asksForCertificates says whether those who connect have to prove who they are.
func asksForCertificates(t server.TLS) bool {
	return t.ClientCertAuth || t.TrustedCAFile != "" || t.CRLFile != "" || len(t.AllowedCN)+len(t.AllowedHostnames)+len(t.AllowedURIs) > 0
}

func isSecure(raw string) bool {
	return strings.HasPrefix(raw, "https:") || strings.HasPrefix(raw, "unixs:")
}

// isExposed says whether other machines can reach the address.
func isExposed(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil || strings.HasPrefix(u.Scheme, "unix") || u.Hostname() == "localhost" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return ip == nil || !ip.IsLoopback()
}
