package server

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// SetQuotaHold sets how long a raised NOSPACE alarm is on at least.
func SetQuotaHold(c *Config, d time.Duration) { c.Checks.hold = d }

// CountLoopback has wrong passwords counted that come from loopback addresses.
func CountLoopback(c *Config) { c.Auth.loopback = true }

// DefaultKeepAliveMinTime is how often a client may ping unless configured.
const DefaultKeepAliveMinTime = defaultKeepAliveMinTime

// Resolver is what a member asks the DNS by.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, records []*net.SRV, err error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// SetResolver has a member ask another DNS.
func SetResolver(c *Config, r Resolver) { c.Membership.resolver = r }
