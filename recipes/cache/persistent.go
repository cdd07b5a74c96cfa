package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// healPause is the least time between two writes that put the key back, so
	// that somebody who deletes it all the time gets no answer as fast.
	healPause = 100 * time.Millisecond
	// lateTime is for how long after a write without an answer it may still be
	// executed: for that long after Close, such a key is watched for.
	lateTime = 30 * time.Second
	// leasesMax bounds the leases of former sessions whose key is known as ours.
	leasesMax = 8
)

// ErrTaken: somebody else's key is where a Persistent wants to have its own.
var ErrTaken = errors.New("key is somebody else's")

// Persistent is one key that is in the store for as long as this process lives and
// the Persistent is not closed: it is attached to a session, so it goes when the
// process does, and is put back when the session is replaced by another, or when
// somebody deletes it. It is safe for concurrent use.
//
// It never overwrites what others have written there. While a key of somebody else
// is in its place, it waits for the end of that one.
type Persistent[T any] struct {
	client  *client.Client
	key     string
	codec   client.Codec[T]
	session *client.Session // nil for the client's own

	mu        sync.Mutex // protects what follows
	want      wish
	interrupt context.CancelFunc // ends what run waits for; nil before it runs

	status atomic.Pointer[status] // written by run only; never nil
	done   chan struct{}          // closed when run has ended

	// Owned by run.
	current *client.Session  // the one of the last try
	leases  []client.LeaseID // of this and former sessions: keys with one of them are ours
	late    time.Time        // until when a write without an answer may be executed
	written time.Time        // when the key was made last
}

// wish is what shall be in the store.
type wish struct {
	value   []byte
	version int  // counts the wishes
	none    bool // there shall be no key
}

// status is what is known to be in the store. It is immutable, but for changed.
type status struct {
	rev     client.Revision // of the last change of our key; zero while there is none
	version int             // of the last wish that was carried out
	err     error           // why not the newest one
	ended   bool
	changed chan struct{} // closed when another status has taken this one's place
}

type persistentOption[T any] func(*Persistent[T])

func (o persistentOption[T]) applyPersistent(p *Persistent[T]) { o(p) }

// WithSession binds the key to a session instead of the client's own one, and the
// Persistent's life to it: it is not put into another.
func WithSession[T any](s *client.Session) PersistentOption[T] {
	return persistentOption[T](func(p *Persistent[T]) { p.session = s })
}

// NewPersistent puts a key into the store, in the background, and keeps it there.
// [Persistent.Wait] tells when it is. The caller must Close it.
//
// It returns an error when the value can not be encoded, or the key is empty.
func NewPersistent[T any](c *client.Client, key string, val T, opts ...PersistentOption[T]) (*Persistent[T], error) {
	p := &Persistent[T]{client: c, key: key, codec: client.JSON[T](), done: make(chan struct{})}
	for _, o := range opts {
		o.applyPersistent(p)
	}
	if key == "" {
		return nil, fmt.Errorf("persistent key: %w", client.ErrEmptyKey)
	}
	value, err := p.encode(val)
	if err != nil {
		return nil, err
	}
	p.want = wish{value: value, version: 1}
	p.status.Store(&status{changed: make(chan struct{})})
	go p.run()
	return p, nil
}

func (p *Persistent[T]) encode(val T) ([]byte, error) {
	b, err := p.codec.Encode(val)
	if err != nil {
		return nil, fmt.Errorf("persistent key %q: encode: %w", p.key, err)
	}
	return b, nil
}

// PersistentState is what is known of a Persistent's key.
type PersistentState struct {
	// Rev is the revision at which the key was written last; zero while it is not
	// known to be in the store.
	Rev client.Revision
	// Err is what keeps the key from being there, or from having the value that was
	// set last: [ErrTaken], the error of a request that is tried again, the end of a
	// session, [ErrClosed].
	Err error
}

// States yields what is known now and after each change, and ends after Close, with
// the session of WithSession, or when ctx is done. A slow loop sees the latest state
// only.
func (p *Persistent[T]) States(ctx context.Context) iter.Seq[PersistentState] {
	return func(yield func(PersistentState) bool) {
		for {
			s := p.status.Load()
			if !yield(PersistentState{Rev: s.rev, Err: s.err}) || s.ended {
				return
			}
			select {
			case <-s.changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// Rev returns the revision at which the key was written last, or zero while it is
// not known to be in the store. It is a local call, and no proof: use a lock for
// what must not be believed wrongly.
func (p *Persistent[T]) Rev() client.Revision { return p.status.Load().rev }

// Set changes what the key's value shall be, for this session and all that follow,
// and waits until it is. ctx bounds the waiting only: the background goes on.
//
// Errors: those of [Persistent.Wait], and of the codec.
func (p *Persistent[T]) Set(ctx context.Context, val T) error {
	value, err := p.encode(val)
	if err != nil {
		return err
	}
	return p.wait(ctx, p.wish(func(w *wish) { w.value = value }))
}

// Wait waits until the key is in the store, with the value that was set last. ctx
// bounds the waiting only.
//
// Errors: those of ctx, together with what is in the way, such as [ErrTaken];
// [ErrClosed], also when it is the client that was closed; and the end of the
// session that WithSession has given.
func (p *Persistent[T]) Wait(ctx context.Context) error {
	p.mu.Lock()
	version := p.want.version
	p.mu.Unlock()
	return p.wait(ctx, version)
}

// Close deletes the key, if it is ours, and ends the Persistent. When ctx is done
// first, its error is returned and the background goes on, for as long as the
// session lives. Further calls wait for the same.
//
// If a write was left without an answer shortly before, Close watches, in the
// background, for a key that comes late, for half a minute.
func (p *Persistent[T]) Close(ctx context.Context) error {
	version := p.wish(func(w *wish) { w.none = true })
	for {
		s := p.status.Load()
		if s.ended {
			<-p.done
			return nil // what is left of the key ends with its lease
		}
		if s.version >= version {
			return nil
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fmt.Errorf("close persistent key %q: %w", p.key, errors.Join(ctxError(ctx), s.err))
		}
	}
}

// wish changes what shall be, and returns the number of that. After Close nothing
// changes any more.
func (p *Persistent[T]) wish(change func(*wish)) (version int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.want.none {
		change(&p.want)
		p.want.version++
	}
	if p.interrupt != nil {
		p.interrupt()
	}
	return p.want.version
}

func (p *Persistent[T]) wait(ctx context.Context, version int) error {
	for {
		s := p.status.Load()
		switch {
		case s.version >= version && s.rev != 0:
			return nil
		case s.ended || errors.Is(s.err, ErrClosed):
			return fmt.Errorf("persistent key %q: %w", p.key, s.err)
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fmt.Errorf("persistent key %q: %w", p.key, errors.Join(ctxError(ctx), s.err))
		}
	}
}
