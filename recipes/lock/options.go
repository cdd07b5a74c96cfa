package lock

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// ownerBytesMax bounds what WithOwner puts into each key, and who and why a
	// Request says; the rest is cut off.
	ownerBytesMax = 256
	// infoBytesMax bounds what WithInfo puts into each key; the rest is cut off.
	infoBytesMax = 4096
)

// Option is an option of New, NewRW, NewSemaphore, AcquireAll and TryAcquireAll.
type Option func(*options)

type options struct {
	session   *client.Session // nil for the client's own
	owner     string
	named     bool // owner was given
	info      string
	reentrant bool
	delay     time.Duration
	barging   bool
}

// WithSession binds the lock to a session instead of the client's own one. The
// session must belong to the same cluster.
func WithSession(s *client.Session) Option { return func(o *options) { o.session = s } }

// WithOwner sets what others see as the owner of the lock, up to 256 bytes.
// Default: the host's name and the process id. An owner that is set is an
// identity for [WithDelay] as well: no two processes that run at once may have
// the same.
func WithOwner(owner string) Option {
	return func(o *options) { o.owner, o.named = owner, owner != "" }
}

// WithInfo adds a text for others to see, such as what the lock is taken for, up
// to 4 KiB. See [Contender.Info].
func WithInfo(info string) Option { return func(o *options) { o.info = info } }

// WithReentrant makes Acquire, TryAcquire and Do look into their context: if it
// carries a live handle of this very lock, because it is [Held.Context] or the
// context of Do or stems from one of them, they return another handle of the
// same acquisition at once. The lock is released when all its handles are.
//
// Who passes such a context on to other goroutines shares the lock with them.
func WithReentrant() Option { return func(o *options) { o.reentrant = true } }

// WithDelay keeps the lock from everybody for a time after a holder ended without
// having released it: its process died, its session was lost, or its key was
// deleted. It is for what can not check a token, and gives a holder that was cut
// off time to notice and stop. Nobody gets the lock for d after the holder's key
// has ended, at most for d and two TTLs of the session; rounded up to seconds.
// After a release there is no delay.
//
// All that use the name must use this option: others, and clients of etcd, do not
// wait. A holder with an owner of its own, see [WithOwner], does not have to wait
// for itself, once the lease of its earlier life is gone. The option costs
// three more requests for each acquisition, and one in each third of a TTL.
func WithDelay(d time.Duration) Option { return func(o *options) { o.delay = d } }

func newOptions(opts []Option) options {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if !o.named {
		o.owner = defaultOwner()
	}
	o.owner, o.info = cut(o.owner, ownerBytesMax), cut(o.info, infoBytesMax)
	return o
}

func defaultOwner() string {
	host, _ := os.Hostname() // only for people to read
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// cut shortens a text to at most n bytes of whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}
