package secure

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Resolver looks names up; net.DefaultResolver is one.
type Resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
	LookupAddr(ctx context.Context, addr string) ([]string, error)
}

// CheckAddress tells whether a certificate may be shown from the address ("ip:port"): it must name it, or a host that
// has it. One that names neither addresses nor hosts is for all, as in etcd. Unlike etcd's, a name that a reverse lookup
// gives counts only if that name has the address too: whoever owns the address may call it what he likes.
func CheckAddress(ctx context.Context, names Resolver, c *x509.Certificate, remote string) error {
	if len(c.IPAddresses) == 0 && len(c.DNSNames) == 0 {
		return nil
	}
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return fmt.Errorf("the other side's address: %w", err)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return fmt.Errorf("the other side's address: %w", err)
	}
	addr = addr.Unmap().WithZone("")
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok && a.Unmap() == addr {
			return nil
		}
	}
	has := func(name string) bool {
		addrs, err := names.LookupHost(ctx, name)
		if err != nil {
			return false
		}
		for _, a := range addrs {
			if parsed, err := netip.ParseAddr(a); err == nil && parsed.Unmap().WithZone("") == addr {
				return true
			}
		}
		return false
	}
	wild := false
	for _, name := range c.DNSNames {
		if strings.HasPrefix(name, "*.") {
			wild = true
		} else if has(name) {
			return nil
		}
	}
	if wild {
		called, _ := names.LookupAddr(ctx, addr.String()) // that nobody knows it is an answer
		for _, name := range called {
			name = strings.TrimSuffix(name, ".")
			if c.VerifyHostname(name) == nil && has(name) {
				return nil
			}
		}
	}
	return fmt.Errorf("the certificate is for %s, and the other side is at %s", strings.Join(Names(c), ", "), addr)
}

// Names are the addresses and hosts that a certificate is for.
func Names(c *x509.Certificate) []string {
	var all []string
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return append(all, c.DNSNames...)
}
