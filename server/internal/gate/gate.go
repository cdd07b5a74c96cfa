// Package gate lets clients' connections in: it bounds how many there are, in all, from one host, and in the middle of
// a handshake, and has TLS done before a connection reaches who serves it.
//
// A [Gate] has the bounds of a member, which all its listeners share. The listeners that it makes are net.Listeners: what
// their Accept returns has been counted until it is closed, and is a *tls.Conn whose handshake is over where TLS is
// wanted. Below that is a [Socket], whose reads and writes can be tried without waiting.
package gate

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds of a Gate. Zero fields have the defaults.
type Bounds struct {
	Connections      int           // in all; DefaultConnections
	PerHost          int           // from one address that is not loopback; DefaultPerHost
	HandshakeTimeout time.Duration // for a TLS handshake; DefaultHandshakeTimeout
}

// Defaults of Bounds.
const (
	DefaultConnections      = 20_000
	DefaultPerHost          = 2_000
	DefaultHandshakeTimeout = 10 * time.Second
)

const (
	// handshakesMax bounds the handshakes that are under way. One more ends the oldest: an honest client is through
	// in milliseconds, so those that wait for long are not, and can not keep it out.
	handshakesMax = 1024
	// reportInterval is the least time between two lines of the log about connections that were turned away.
	reportInterval = 10 * time.Second
	// failureInterval is the same for handshakes that failed.
	failureInterval = time.Second
)

// Stats counts since New.
type Stats struct {
	Connections int    // now
	Handshakes  int    // now
	Accepted    uint64 // connections that came in
	Refused     uint64 // for Bounds.Connections
	RefusedHost uint64 // for Bounds.PerHost
	Failed      uint64 // handshakes that failed, were too slow, or had to make room
}

// Gate bounds the connections of a member. All methods are safe for concurrent use.
type Gate struct {
	bounds Bounds
	log    *slog.Logger

	mu         sync.Mutex // protects the rest
	stats      Stats
	hosts      map[netip.Addr]int
	handshakes map[*handshake]struct{}
	order      uint64 // of the next handshake
	reported   time.Time
	unreported uint64
	failed     time.Time // when a failed handshake was logged
}

// New makes a gate; a nil log discards.
func New(b Bounds, log *slog.Logger) *Gate {
	if b.Connections == 0 {
		b.Connections = DefaultConnections
	}
	if b.PerHost == 0 {
		b.PerHost = DefaultPerHost
	}
	if b.HandshakeTimeout == 0 {
		b.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Gate{bounds: b, log: log, hosts: make(map[netip.Addr]int), handshakes: make(map[*handshake]struct{})}
}

// Stats returns the counters.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.Handshakes = len(g.handshakes)
	return s
}

// admit counts a connection, or closes it.
func (g *Gate) admit(c net.Conn) *Socket {
	host := hostOf(c)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.stats.Connections >= g.bounds.Connections:
		g.stats.Refused++
		g.report("turned a client's connection away: too many are open", host, g.bounds.Connections)
	case host.IsValid() && g.hosts[host] >= g.bounds.PerHost:
		g.stats.RefusedHost++
		g.report("turned a client's connection away: too many are open from its host", host, g.bounds.PerHost)
	default:
		g.stats.Accepted++
		g.stats.Connections++
		if host.IsValid() {
			g.hosts[host]++
		}
		return newSocket(c, func() { g.release(host) })
	}
	_ = c.Close()
	return nil
}

func (g *Gate) release(host netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Connections--
	if !host.IsValid() {
		return
	}
	if g.hosts[host]--; g.hosts[host] == 0 {
		delete(g.hosts, host)
	}
}

// report logs, but not for every connection of a flood. mu is held.
func (g *Gate) report(message string, host netip.Addr, bound int) {
	now := time.Now()
	if now.Sub(g.reported) < reportInterval {
		g.unreported++
		return
	}
	g.log.Warn(message, "host", host, "bound", bound, "others since the last report", g.unreported)
	g.reported, g.unreported = now, 0
}

// hostOf is the address that connections are counted for; the zero one if they are not.
func hostOf(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	if a.IsLoopback() {
		return netip.Addr{}
	}
	return a
}
