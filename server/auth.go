package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// authority is users and roles as they are applied here, for those who only
// read them.
type authority struct {
	current atomic.Pointer[state.Auth]

	mu      sync.Mutex // protects what follows
	told    *state.Auth
	changed chan struct{} // closed when current is not what told was
}

// set is called before anything is told of the batch that changed them.
func (y *authority) set(a *state.Auth) { y.current.Store(a) }

// tell wakes those who wait for a change.
func (y *authority) tell() {
	a := y.current.Load()
	y.mu.Lock()
	defer y.mu.Unlock()
	if a == y.told {
		return
	}
	if y.told != nil && y.changed != nil {
		close(y.changed)
		y.changed = nil
	}
	y.told = a
}

// watch returns a channel that is closed at the next change.
func (y *authority) watch() <-chan struct{} {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.changed == nil {
		y.changed = make(chan struct{})
	}
	return y.changed
}

var _ rpc.AuthBackend = backend{}

// Auth implements rpc.AuthBackend.
func (b backend) Auth() *state.Auth { return b.store.auth.current.Load() }

// AuthChanged implements rpc.AuthBackend.
func (b backend) AuthChanged() <-chan struct{} { return b.store.auth.watch() }

// Confirm implements rpc.AuthBackend.
func (b backend) Confirm(ctx context.Context) error { return b.confirm(ctx) }

// ScanLease implements state.Leases.
func (b backend) ScanLease(id int64, fn func(key string) bool) {
	b.store.with(func(m *state.Machine) { m.ScanLease(id, fn) })
}

// ScanLeases implements state.Leases.
func (b backend) ScanLeases(fn func(key string) bool) {
	b.store.with(func(m *state.Machine) { m.ScanLeases(fn) })
}

// assembleAuth makes what tells users apart.
func (s *Server) assembleAuth() error {
	var err error
	s.front.tokens, err = auth.NewTokens(auth.Config{Spec: s.cfg.Auth.Token, TTL: s.cfg.Auth.TokenTTL, Logger: s.log})
	if err != nil {
		return err
	}
	var name func(context.Context) string
	if s.cfg.ClientTLS.ClientCertAuth {
		name = commonName
	}
	limits := rpc.Limits{RequestBytes: s.cfg.MaxRequestBytes, TxnOps: s.cfg.MaxTxnOps}
	s.front.guard = rpc.NewGuard(backend{s}, s.front.tokens, limits, name)
	return nil
}

// commonName returns the name in the certificate that a connection's client
// has proved to have. A call that the gateway makes for somebody else shows the
// gateway's, which nobody can be.
func commonName(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(metadata.ValueFromIncomingContext(ctx, "grpcgateway-accept")) > 0 {
		return ""
	}
	for _, chain := range info.State.VerifiedChains {
		if len(chain) > 0 {
			return chain[0].Subject.CommonName
		}
	}
	return ""
}

// withDefaults returns the configuration with every zero field filled in.
func (a Auth) withDefaults() Auth {
	if a.Token == "" {
		a.Token = "simple"
	}
	if a.TokenTTL == 0 {
		a.TokenTTL = auth.TokenTTLDefault
	}
	if a.BcryptCost == 0 {
		a.BcryptCost = auth.CostDefault
	}
	return a
}

func (a Auth) validate() error {
	switch {
	case a.TokenTTL < 0:
		return fmt.Errorf("auth-token-ttl %s is negative", a.TokenTTL)
	case a.BcryptCost < auth.CostMin || a.BcryptCost > auth.CostMax:
		return fmt.Errorf("bcrypt-cost %d is not between %d and %d", a.BcryptCost, auth.CostMin, auth.CostMax)
	}
	return nil
}
