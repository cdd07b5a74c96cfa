package auth

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// wrongBurstMax is how many wrong passwords an address has at once. One is
	// forgiven each wrongForgiven.
	wrongBurstMax = 20
	wrongForgiven = 3 * time.Second
	// addressesMax bounds the addresses that are remembered. Those which gave a
	// wrong password last are.
	addressesMax = 20_000
)

// Attempts counts wrong passwords by the address that they came from, so that who
// guesses is slow, while who knows his password is not: right ones cost nothing. It
// is safe for concurrent use.
type Attempts struct {
	mu sync.Mutex
	// Until when the wrong passwords of an address are forgiven. What older has
	// is moved to recent when it is touched; recent takes the place of older
	// when it is half of what may be kept.
	recent, older map[netip.Addr]time.Time
}

// NewAttempts returns a count of nothing.
func NewAttempts() *Attempts { return &Attempts{recent: make(map[netip.Addr]time.Time)} }

// Allow reports whether a password of the address may be looked at, now.
func (a *Attempts) Allow(from netip.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.debt(site(from), now) <= (wrongBurstMax-1)*wrongForgiven
}

// Wrong notes a wrong password.
func (a *Attempts) Wrong(from netip.Addr, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from = site(from)
	until := now.Add(a.debt(from, now) + wrongForgiven)
	if len(a.recent) >= addressesMax/2 {
		a.recent, a.older = make(map[netip.Addr]time.Time), a.recent
	}
	a.recent[from] = until
}

// debt is how long it takes until all is forgiven.
func (a *Attempts) debt(from netip.Addr, now time.Time) time.Duration {
	until, ok := a.recent[from]
	if !ok {
		until = a.older[from]
	}
	return max(0, until.Sub(now))
}

// site is whom an address stands for: with IPv6, a network of 64 bits is one site.
func site(from netip.Addr) netip.Addr {
	from = from.Unmap()
	if from.Is4() {
		return from
	}
	network, err := from.WithZone("").Prefix(64)
	if err != nil {
		return from
	}
	return network.Addr()
}
