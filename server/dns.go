package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lookupTimeout bounds one question to the DNS.
const lookupTimeout = 5 * time.Second

// DNS lets the members of a new cluster find each other, or one that joins find
// those that are there, by SRV records instead of by InitialCluster. Like this, it
// counts for a member without data only. Its zero value asks for nothing.
type DNS struct {
	// Domain is where the records are: those of the service "etcd-server-ssl" are
	// members that are reached by https, those of "etcd-server" the ones by http.
	// All count together, and all must be there before the first member starts.
	Domain string
	// Service, if not empty, makes the services "etcd-server-ssl-<Service>" and
	// "etcd-server-<Service>".
	Service string
}

func (d DNS) wanted() bool { return d.Domain != "" }

// validate has etcd's words.
func (m Membership) validate(initialCluster string) error {
	set := 0
	for _, is := range []bool{initialCluster != "", m.Discovery.wanted(), m.DNS.wanted()} {
		if is {
			set++
		}
	}
	switch {
	case set > 1:
		return errors.New(`multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`)
	case m.DNS.Service != "" && !m.DNS.wanted():
		return errors.New("discovery-srv-name is set without discovery-srv")
	}
	return m.Discovery.validate()
}

// resolver is what the member asks the DNS by: net.DefaultResolver but in tests.
type resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// resolver returns the one that is configured.
func (c Config) resolver() resolver {
	if c.Membership.resolver != nil {
		return c.Membership.resolver
	}
	return net.DefaultResolver
}

// findByDNS returns the configuration with what the records say, and the peer URL
// by which they name this member: it is known to the others by that, even if it
// advertises the address that the name stands for.
func (s *Server) findByDNS(ctx context.Context, advertised []string) (Config, string, error) {
	cfg := s.cfg
	d := cfg.Membership.DNS
	names := cfg.resolver()
	urls, err := d.records(ctx, names)
	if err == nil {
		var mine string
		if mine, err = pickMine(newPlaces(ctx, names), urls, advertised, cfg.Name); err == nil {
			parts := make([]string, len(urls))
			for i, u := range urls {
				parts[i] = u + "=" + u // nobody knows the others' names
				if u == mine {
					parts[i] = cfg.Name + "=" + u
				}
			}
			cfg.InitialCluster = strings.Join(parts, ",")
			s.log.Info("the DNS has the members", "domain", d.Domain, "initial-cluster", cfg.InitialCluster)
			return cfg, mine, nil
		}
	}
	return cfg, "", fmt.Errorf("discovery by SRV records of %s: %w", d.Domain, err)
}

// records returns the peer URLs that the records stand for, in order. That one of
// the services has no records is as good as any number; that one can not be asked
// for is an error, as its members would be left out.
func (d DNS) records(ctx context.Context, names resolver) ([]string, error) {
	var urls []string
	var missing []error
	for _, each := range []struct{ scheme, service string }{{"https", "etcd-server-ssl"}, {"http", "etcd-server"}} {
		if d.Service != "" {
			each.service += "-" + d.Service
		}
		asking, cancel := context.WithTimeout(ctx, lookupTimeout)
		_, found, err := names.LookupSRV(asking, each.service, "tcp", d.Domain)
		cancel()
		if no := (*net.DNSError)(nil); errors.As(err, &no) && no.IsNotFound {
			missing = append(missing, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("error querying DNS SRV records for _%s: %w", each.service, err)
		}
		for _, r := range found {
			urls = append(urls, each.scheme+"://"+net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port))))
		}
	}
	slices.Sort(urls)
	urls = slices.Compact(urls)
	switch {
	case len(urls) == 0:
		return nil, fmt.Errorf("%w: there are none: %w", ErrDiscovery, errors.Join(missing...))
	case len(urls) > discoveryMembersMax:
		return nil, fmt.Errorf("%w: there are %d, more than %d", ErrDiscovery, len(urls), discoveryMembersMax)
	}
	return urls, nil
}

// pickMine returns which of the URLs is this member's.
func pickMine(p *places, urls, advertised []string, name string) (string, error) {
	if len(advertised) != 1 {
		return "", fmt.Errorf("%w: each record is a member, and this one has several initial-advertise-peer-urls", ErrDiscovery)
	}
	var mine []string
	for _, u := range urls {
		switch same, scheme := p.same(u, advertised[0]); {
		case same && !scheme:
			return "", fmt.Errorf("%w: the record for %s has a scheme mismatch with %s", ErrDiscovery, u, advertised[0])
		case same:
			mine = append(mine, u)
		}
	}
	switch len(mine) {
	case 0:
		return "", errors.Join(fmt.Errorf("%w: cannot find local etcd member %q in SRV records: none of %s is %s",
			ErrDiscovery, name, strings.Join(urls, ", "), advertised[0]), p.failed)
	case 1:
		return mine[0], nil
	default:
		return "", fmt.Errorf("%w: more than one record is this member: %s", ErrDiscovery, strings.Join(mine, ", "))
	}
}

// places tells which URLs are the same place, by their hosts' names or addresses.
// Owned by one goroutine.
type places struct {
	lookup func(host string) ([]netip.Addr, error)
	known  map[string][]netip.Addr
	failed error // the last lookup that did, if any
}

// newPlaces returns places that ask until ctx is done.
func newPlaces(ctx context.Context, names resolver) *places {
	return &places{known: make(map[string][]netip.Addr), lookup: func(host string) ([]netip.Addr, error) {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		return names.LookupNetIP(ctx, "ip", host)
	}}
}

// same reports whether two URLs have the same host and port, and scheme whether
// they have the same scheme as well.
func (p *places) same(a, b string) (same, scheme bool) {
	u, errU := url.Parse(a)
	v, errV := url.Parse(b)
	if cmp.Or(errU, errV) != nil || u.Port() != v.Port() {
		return false, false
	}
	hosts := [2]string{strings.TrimSuffix(u.Hostname(), "."), strings.TrimSuffix(v.Hostname(), ".")}
	same = strings.EqualFold(hosts[0], hosts[1]) ||
		slices.ContainsFunc(p.addresses(hosts[0]), func(addr netip.Addr) bool { return slices.Contains(p.addresses(hosts[1]), addr) })
	return same, u.Scheme == v.Scheme
}

// addresses returns those of a host, none if nobody knows. Once nobody has answered
// in time, nobody is asked again.
func (p *places) addresses(host string) []netip.Addr {
	found, ok := p.known[host]
	if no := (*net.DNSError)(nil); ok || errors.As(p.failed, &no) && no.IsTimeout || errors.Is(p.failed, context.DeadlineExceeded) {
		return found
	}
	found, err := p.lookup(host)
	if err != nil {
		p.failed = err
	}
	for i, addr := range found {
		found[i] = addr.Unmap()
	}
	p.known[host] = found
	return found
}

// sameURLs reports whether two lists have the same URLs, or URLs of the same places.
func (p *places) sameURLs(a, b []string) bool {
	if sameURLs(a, b) {
		return true
	}
	if len(a) != len(b) {
		return false
	}
	left := slices.Clone(b)
	for _, u := range a {
		i := slices.IndexFunc(left, func(v string) bool {
			same, scheme := p.same(u, v)
			return same && scheme
		})
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return true
}
