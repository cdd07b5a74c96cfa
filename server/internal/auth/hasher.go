package auth

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"
)

// Bounds of what hashing a password may cost, and the default; each step doubles it.
const (
	CostMin     = bcrypt.MinCost
	CostMax     = bcrypt.MaxCost
	CostDefault = bcrypt.DefaultCost
)

// hashQueueMax bounds those who wait for their password to be hashed. Anybody can ask for it, and it takes long.
const hashQueueMax = 64

// ErrBusy: too many passwords wait to be hashed.
var ErrBusy = errors.New("too many passwords wait to be hashed")

// Hasher hashes passwords, on at most half of the processors at once, so that who floods a member with passwords does
// not keep it from its work. It is safe for concurrent use.
type Hasher struct {
	cost    int
	slots   chan struct{} // one element for each hash under way
	waiting atomic.Int64  // and those under way
	nobody  []byte        // a hash that no password has
}

// NewHasher returns a hasher of new passwords with the given cost.
func NewHasher(cost int) *Hasher {
	h := &Hasher{cost: cost, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
	// Salt and sum of no password that anybody knows.
	h.nobody = fmt.Appendf(nil, "$2a$%02d$%s", cost, "abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234")
	return h
}

// Hash hashes a new password. The error is ErrBusy, that of ctx, or says what is wrong with the password: bcrypt takes
// 72 bytes at most.
func (h *Hasher) Hash(ctx context.Context, password string) (hash []byte, err error) {
	if err := h.enter(ctx); err != nil {
		return nil, err
	}
	defer h.leave()
	return bcrypt.GenerateFromPassword([]byte(password), h.cost)
}

// Matches tells whether the password is the one of the hash. A hash that is nil takes the time of one that is not, so
// that nobody learns by it which users exist. The error is ErrBusy or that of ctx.
func (h *Hasher) Matches(ctx context.Context, hash []byte, password string) (bool, error) {
	if err := h.enter(ctx); err != nil {
		return false, err
	}
	defer h.leave()
	if hash == nil {
		_ = bcrypt.CompareHashAndPassword(h.nobody, []byte(password))
		return false, nil
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil, nil
}

func (h *Hasher) enter(ctx context.Context) error {
	if h.waiting.Add(1) > int64(hashQueueMax+cap(h.slots)) {
		h.waiting.Add(-1)
		return ErrBusy
	}
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		h.waiting.Add(-1)
		return context.Cause(ctx)
	}
}

func (h *Hasher) leave() {
	<-h.slots
	h.waiting.Add(-1)
}
