package discovery

import (
	"bytes"
	"context"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/view"
)

// lostMax bounds the lost instances that KeepLost remembers; the oldest go first.
const lostMax = 1024

// WatchOption is an option of Watch.
type WatchOption interface{ applyWatch(*watchOptions) }

type watchOptions struct {
	keepLost time.Duration
	trouble  func(error)
}

type watchOption func(*watchOptions)

func (f watchOption) applyWatch(o *watchOptions)       { f(o) }
func (f watchOption) applyProvider(o *providerOptions) { f(&o.watch) }

// KeepLost is for a service that is left without any instance because all were
// lost: since none of them said goodbye, it is as likely that they only could not
// renew their leases. A snapshot that would be empty then has those that were lost
// no longer than d ago, with the state Lost, and is Stale. Zero means not to do so:
// the default of Watch. A Provider's is 5 min.
func KeepLost(d time.Duration) interface {
	WatchOption
	ProviderOption
} {
	return watchOption(func(o *watchOptions) { o.keepLost = d })
}

// OnTrouble calls f each time that the service could not be read, before it is
// tried again, so that somebody learns why nothing is heard. f must not wait.
func OnTrouble(f func(err error)) interface {
	WatchOption
	ProviderOption
} {
	return watchOption(func(o *watchOptions) { o.trouble = f })
}

// Snapshot is a service at one revision, and what has changed since the snapshot
// before. The instances' Meta may be shared with other snapshots.
type Snapshot[M any] struct {
	Service  string
	Revision client.Revision
	// Instances are those of the service, in the order of their ids, draining ones
	// as well.
	Instances []Instance[M]

	Joined  []Instance[M] // new; in the first snapshot, all
	Changed []Instance[M] // as they are now
	Left    []Instance[M] // gone, after they had said so by draining
	Lost    []Instance[M] // gone without a word: their session was lost, or their health
	Invalid []string      // keys whose values can not be read

	// Stale says that the service has no instance, and what it had last is in
	// Instances: see [KeepLost].
	Stale bool
	// Resynced says that history was compacted away before it was seen: what came
	// and went in between is missing.
	Resynced bool
}

// Watch yields the service as it is, and then a snapshot after each change, never
// of an older revision than the one before. It goes on over lost connections,
// members and history; while the cluster can not be reached, what was yielded last
// stays the best that is known. A slow loop lags behind, and misses nothing.
//
// The loop ends with an error, when ctx is done or when trying again does not help,
// or by a break.
func Watch[M any](ctx context.Context, c *client.Client, service string, opts ...WatchOption) iter.Seq2[Snapshot[M], error] {
	var o watchOptions
	for _, opt := range opts {
		opt.applyWatch(&o)
	}
	return watch[M](ctx, c, service, o)
}

func watch[M any](ctx context.Context, src view.Source, service string, o watchOptions) iter.Seq2[Snapshot[M], error] {
	return func(yield func(Snapshot[M], error) bool) {
		if err := checkService(service); err != nil {
			yield(Snapshot[M]{}, err)
			return
		}
		t := newTracker[M](service, o.keepLost)
		for v, err := range view.Follow(ctx, src, prefix(service), o.trouble) {
			if err != nil {
				yield(Snapshot[M]{}, err)
				return
			}
			if s, changed := t.next(v); changed && !yield(s, nil) {
				return
			}
		}
	}
}

// Losses yields each instance that is lost while the loop runs, as soon as the
// cluster knows: at most its TTL after its last renewal. It is for those who do
// something about it. It ends as Watch does.
func Losses[M any](ctx context.Context, c *client.Client, service string) iter.Seq2[Instance[M], error] {
	return func(yield func(Instance[M], error) bool) {
		for s, err := range Watch[M](ctx, c, service) {
			if err != nil {
				yield(Instance[M]{}, err)
				return
			}
			for _, in := range s.Lost {
				if !yield(in, nil) {
					return
				}
			}
		}
	}
}

// tracker makes snapshots of views. It belongs to one goroutine.
type tracker[M any] struct {
	service string
	keep    time.Duration
	first   bool
	known   map[string]tracked[M]
	invalid []string
	lost    map[string]lostInstance[M]
}

type tracked[M any] struct {
	value []byte
	in    Instance[M]
}

type lostInstance[M any] struct {
	in Instance[M]
	at time.Time
}

func newTracker[M any](service string, keep time.Duration) *tracker[M] {
	return &tracker[M]{
		service: service, keep: keep, first: true,
		known: make(map[string]tracked[M]), lost: make(map[string]lostInstance[M]),
	}
}

func viewOf(res *client.GetResult) view.View { return view.View{Revision: res.Revision, KVs: res.KVs} }

// next makes the snapshot of a view. changed says that it differs from the one
// before, or is the first.
func (t *tracker[M]) next(v view.View) (s Snapshot[M], changed bool) {
	s = Snapshot[M]{Service: t.service, Revision: v.Revision, Resynced: v.Resynced}
	was := t.known
	t.known = make(map[string]tracked[M], len(v.KVs))
	for _, kv := range v.KVs {
		if !isInstance(kv.Key) {
			continue
		}
		old, existed := was[kv.Key]
		now := old
		if !existed || !bytes.Equal(old.value, kv.Value) {
			in, err := decode[M](t.service, kv)
			if err != nil {
				s.Invalid = append(s.Invalid, prefix(t.service)+kv.Key)
				continue
			}
			now = tracked[M]{kv.Value, in}
			if existed {
				s.Changed = append(s.Changed, in)
			} else {
				s.Joined = append(s.Joined, in)
			}
		}
		t.known[kv.Key] = now
		s.Instances = append(s.Instances, now.in)
	}
	for _, kv := range v.Gone {
		old, known := was[kv.Key]
		if !known {
			continue // never to be read
		}
		if r, err := decodeRecord(kv.Value); err == nil && r.state() == Draining {
			old.in.State = Draining
			s.Left = append(s.Left, old.in)
		} else {
			s.Lost = append(s.Lost, old.in)
		}
	}
	changed = t.first || v.Resynced || len(s.Joined)+len(s.Changed)+len(s.Left)+len(s.Lost) > 0 ||
		!slices.Equal(s.Invalid, t.invalid)
	t.first, t.invalid = false, s.Invalid
	t.fallBack(&s, time.Now())
	return s, changed
}

// fallBack remembers what was lost, and puts it into a snapshot that would be
// empty.
func (t *tracker[M]) fallBack(s *Snapshot[M], now time.Time) {
	if t.keep <= 0 {
		return
	}
	for id, l := range t.lost {
		if _, back := t.known[id]; back || now.Sub(l.at) > t.keep {
			delete(t.lost, id)
		}
	}
	for _, in := range s.Lost {
		in.State = Lost
		t.lost[in.ID] = lostInstance[M]{in, now}
	}
	if over := len(t.lost) - lostMax; over > 0 {
		oldest := slices.SortedFunc(maps.Values(t.lost), func(a, b lostInstance[M]) int { return a.at.Compare(b.at) })
		for _, l := range oldest[:over] {
			delete(t.lost, l.in.ID)
		}
	}
	if len(s.Instances) > 0 || len(t.lost) == 0 {
		return
	}
	s.Stale = true
	for _, l := range t.lost {
		s.Instances = append(s.Instances, l.in)
	}
	slices.SortFunc(s.Instances, func(a, b Instance[M]) int { return strings.Compare(a.ID, b.ID) })
}
