package lock

import (
	"context"

	"github.com/latchkey-go/latchkey/client"
)

// carrier is the key under which a context carries the hold of a reentrant lock.
type carrier struct {
	session *client.Session
	name    string // with the client's namespace
}

func (b *bid) carrier(s *client.Session) carrier {
	return carrier{session: s, name: b.client.Prefix() + b.title()}
}

// carried returns the hold of this lock that ctx carries, with one more handle
// counted, or nil.
func (b *bid) carried(ctx context.Context, s *client.Session) *hold {
	if !b.opts.reentrant {
		return nil
	}
	h, _ := ctx.Value(b.carrier(s)).(*hold)
	if h == nil || !h.join() {
		return nil
	}
	return h
}

// join counts one more handle in, unless the hold has ended.
func (h *hold) join() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.handles == 0 || h.claim.Context().Err() != nil {
		return false
	}
	h.handles++
	return true
}

// last counts the handle out, once, and says whether it was the last one.
func (h *handle) last() bool {
	h.once.Do(func() {
		h.hold.mu.Lock()
		defer h.hold.mu.Unlock()
		h.hold.handles--
		if h.hold.handles > 0 {
			h.end(ErrReleased)
		}
	})
	h.hold.mu.Lock()
	defer h.hold.mu.Unlock()
	return h.hold.handles == 0
}
