package lock

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// limitMax bounds a semaphore's limit.
const limitMax = 1 << 40

// Semaphore gives out permits of a name, up to a limit that is kept in the store.
// It is first come, first served: who wants many is not overtaken by those who
// want few, unless they are barging.
//
// Like Lock, it holds no state of its own, and is safe for concurrent use. Each
// acquisition is a contender of its own, also of goroutines that share a session.
type Semaphore struct {
	bid   *bid
	limit int64
}

// WithBarging makes Acquire of a semaphore not wait in line: it takes permits
// whenever there are enough, also before others who came earlier and want more than
// there are, and who may thereby wait for ever. Others that use the semaphore
// without the option are not overtaken. Default: first come, first served.
func WithBarging() Option { return func(o *options) { o.barging = true } }

// NewSemaphore returns the semaphore with the name. It does nothing yet; a name
// that can not be used makes every call return [ErrName]. WithReentrant and
// WithDelay have no effect.
//
// limit, from 1 to 2^40, is what the semaphore is created with by whoever acquires
// first. From then on, until the last one has left, the limit in the store is what
// counts, and who comes with another one gets [ErrLimitConflict]: two programs that
// disagree about a limit must hear of it. After somebody has set it with
// [Semaphore.SetLimit], it is that for good, whatever programs come with. A limit
// of zero takes the one in the store.
func NewSemaphore(c *client.Client, name string, limit int64, opts ...Option) *Semaphore {
	s := &Semaphore{bid: newBid(c, []string{name}, opts), limit: limit}
	s.bid.opts.reentrant, s.bid.opts.delay, s.bid.shared = false, 0, true
	if s.bid.err == nil && (limit < 0 || limit > limitMax) {
		s.bid.err = fmt.Errorf("%w: a limit of %d", ErrPermits, limit)
	}
	return s
}

// Name returns the semaphore's name.
func (s *Semaphore) Name() string { return s.bid.names[0] }

func (s *Semaphore) prefix() string { return s.bid.names[0] + "/" }

// Acquire waits until n permits are ours, all at once; nothing is taken before.
//
// ctx bounds the waiting only, as with [Lock.Acquire]; so does what is said there
// about giving up.
//
// Errors: [ErrPermits] when n is less than one, or more than the limit, unless that
// is zero; [ErrLimitConflict]; and those of [Lock.Acquire].
func (s *Semaphore) Acquire(ctx context.Context, n int64) (*Permit, error) {
	return s.enter(ctx, n, true)
}

// TryAcquire takes n permits if there are as many that nobody has or waits for,
// and returns [ErrHeld] if there are not. It never joins the queue.
func (s *Semaphore) TryAcquire(ctx context.Context, n int64) (*Permit, error) {
	return s.enter(ctx, n, false)
}

// Do acquires n permits, calls fn and releases them when fn has returned. The
// context of fn is ctx, and ends when the permits are lost, with a [*LostError]
// as its cause.
//
// Do returns the error of fn, joined with that of a loss or a failed release. It
// waits at most five seconds for the release to be confirmed.
func (s *Semaphore) Do(ctx context.Context, n int64, fn func(ctx context.Context, p *Permit) error) error {
	p, err := s.Acquire(ctx, n)
	if err != nil {
		return err
	}
	return p.do(ctx, func(ctx context.Context) error { return fn(ctx, p) })
}

func (s *Semaphore) enter(ctx context.Context, n int64, wait bool) (*Permit, error) {
	p, err := s.claim(ctx, n, wait)
	if err != nil {
		return nil, fmt.Errorf("acquire %d of semaphore %q: %w", n, s.Name(), err)
	}
	return p, nil
}

func (s *Semaphore) claim(ctx context.Context, n int64, wait bool) (*Permit, error) {
	session, err := s.bid.open(ctx)
	if err != nil {
		return nil, err
	}
	if n < 1 || n > limitMax {
		return nil, ErrPermits
	}
	h := newHold(s.bid)
	key := contender.Key{Name: s.prefix() + ownKey(session), Value: s.record(n, false).encode()}
	spec := h.spec(session, key)
	spec.Farewell = s.farewell
	c, err := contender.Take(ctx, spec)
	if err != nil {
		return nil, err
	}
	h.claim = c
	q := &semQueue{sem: s, claim: c, want: n}
	enter := func(ctx context.Context) error { return c.Queue(ctx, q) }
	switch {
	case !wait:
		enter = q.seize
	case s.bid.opts.barging:
		enter = q.barge
	}
	if err := c.Run(ctx, enter); err != nil {
		return nil, err
	}
	return &Permit{handle: h.handle(), sem: s, permits: n}, nil
}

// SetLimit changes the limit, to a number from 0 to 2^40. It takes no permits away
// from those who have them: if they have more than that, nobody else gets any
// until enough were released. With zero, nobody gets any until it is changed again.
//
// Errors: [ErrPermits], [ErrName], [client.ErrUncertain] when ctx ended before the
// answer was known, and those of a write.
func (s *Semaphore) SetLimit(ctx context.Context, n int64) error {
	err := s.bid.err
	if err == nil && (n < 0 || n > limitMax) {
		err = ErrPermits
	}
	if err == nil {
		err = s.bid.client.Update(ctx, func(tx *client.Tx) error {
			tx.Put(s.limitKey(), limitRecord{Limit: n, Set: true}.encode())
			return nil
		}, client.ExactlyOnce())
	}
	if err != nil {
		return fmt.Errorf("set the limit of semaphore %q to %d: %w", s.Name(), n, err)
	}
	return nil
}

// SemaphoreInfo is what Inspect finds.
type SemaphoreInfo struct {
	Name     string
	Revision client.Revision // at which it was so
	Limit    int64           // zero also when there is none yet
	Used     int64           // the permits of the holders
	Holders  []Contender     // in the order in which they came
	Waiters  []Contender     // in the order in which they will be served; not those who are barging
	More     bool            // there are more keys than were read: the rest is incomplete
}

// Inspect tells who has permits and who waits for some, at one revision. For the
// moment that a contender takes to say that it has to wait, it counts as a holder.
//
// Errors: [ErrName], [ErrConflict], and those of a read.
func (s *Semaphore) Inspect(ctx context.Context) (SemaphoreInfo, error) {
	info, err := s.inspect(ctx)
	if err != nil {
		return SemaphoreInfo{}, fmt.Errorf("inspect semaphore %q: %w", s.Name(), err)
	}
	return info, nil
}

func (s *Semaphore) inspect(ctx context.Context) (SemaphoreInfo, error) {
	if s.bid.err != nil {
		return SemaphoreInfo{}, s.bid.err
	}
	res, err := s.bid.client.Txn().Then(
		client.OpGet(s.prefix(), client.Prefix(), client.Ascending(client.ByCreateRevision), client.Limit(inspectMax)),
		client.OpGet(s.limitKey()),
	).Commit(ctx)
	if err != nil {
		return SemaphoreInfo{}, err
	}
	info := SemaphoreInfo{Name: s.Name(), Revision: res.Revision, More: res.Results[0].Get.More}
	for _, kv := range res.Results[1].Get.KVs {
		info.Limit = limitOf(kv).Limit
	}
	for _, kv := range res.Results[0].Get.KVs {
		t, ok, err := s.ticketOf(kv)
		switch {
		case err != nil:
			return SemaphoreInfo{}, err
		case !ok:
			continue
		}
		c := contenderOf(kv)
		c.Permits = t.weight
		if t.waits {
			info.Waiters = append(info.Waiters, c)
			continue
		}
		info.Holders = append(info.Holders, c)
		info.Used += t.weight
	}
	return info, nil
}

// limitKey is outside of "<name>/", where it would be a contender.
func (s *Semaphore) limitKey() string { return s.Name() + ".limit" }

// farewell deletes the limit when the last one leaves, unless somebody has set it,
// so that a semaphore that nobody uses leaves nothing behind.
func (s *Semaphore) farewell(c *contender.Claim) []client.Op {
	if s.limit == 0 {
		return nil
	}
	key := c.Key(0)
	last := []client.Compare{
		client.Missing(s.prefix(), client.Range(key)), client.Missing(key+"\x00", client.Range(s.Name()+"0")),
		client.Value(s.limitKey()).Equal(limitRecord{Limit: s.limit}.encode()),
	}
	return []client.Op{client.OpTxn(last, []client.Op{client.OpDelete(s.limitKey())}, nil)}
}

// record is the value of a contender's key.
func (s *Semaphore) record(permits int64, waits bool) record {
	r := s.bid.record
	r.Permits, r.Waits = permits, waits
	return r
}

// limitRecord is the value of the limit's key.
type limitRecord struct {
	Limit int64 `json:"limit"`
	Set   bool  `json:"set,omitempty"` // by SetLimit
}

func (r limitRecord) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // a struct of numbers and booleans
	}
	return b
}

// limitOf reads a limit. What is no record is a limit of zero, which says so as
// soon as somebody wants a permit, and can be set anew.
func limitOf(kv client.KV) (r limitRecord) {
	_ = json.Unmarshal(kv.Value, &r)
	return r
}
