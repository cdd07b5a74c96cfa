package lock

import (
	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// Held is a lock that was acquired, once: a second acquisition gives another
// Held. It is safe for concurrent use.
type Held struct{ *handle }

// Name returns the lock's name.
func (h *Held) Name() string { return h.hold.bid.names[0] }

// Key returns the key that stands for this acquisition, without the client's
// namespace.
func (h *Held) Key() string { return h.hold.claim.Key(0) }

// Token returns the fencing token: the revision at which the key was created,
// larger than that of every earlier holder.
func (h *Held) Token() fence.Token { return h.hold.token() }

// Guard returns the condition that holds exactly as long as the lock is held, for
// transactions on the cluster that the lock is on. Keys are in the namespace of
// the client that the lock was made with.
func (h *Held) Guard() client.Compare { return h.hold.claim.Guard()[0] }
