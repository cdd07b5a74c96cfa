package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// Slow says what becomes of a subscriber that is slower than its topic.
type Slow uint8

const (
	// CatchUp: it reads what the window no longer has from the store, and misses
	// nothing that the topic keeps.
	CatchUp Slow = iota
	// DropOldest: it goes on with the oldest message that is within its bounds. The
	// message says how many were left out.
	DropOldest
	// SlowError: it ends with [ErrSlow].
	SlowError
)

// SubOption is an option of Subscribe, Merge and Match.
type SubOption func(*subConfig)

type subConfig struct {
	slow   Slow
	lag    int
	filter func(key string, h Header) bool
}

// WithSlow sets what happens when the loop is slower than the topic. Default
// CatchUp.
func WithSlow(s Slow) SubOption { return func(c *subConfig) { c.slow = s } }

// WithLag bounds by how many messages a subscriber with the policies DropOldest and
// SlowError may be behind. Default: what the topic's window has.
func WithLag(messages int) SubOption { return func(c *subConfig) { c.lag = max(messages, 1) } }

// WithFilter leaves out messages by their key and headers, before they are decoded.
// A durable name counts them as handled.
func WithFilter(keep func(key string, h Header) bool) SubOption {
	return func(c *subConfig) { c.filter = keep }
}

// Subscribe yields the messages of the topic from a start on, in the order of their
// offsets, which is the order of their commits: first what the topic has, then what
// comes, without gap or repetition, over lost connections and members. A loop that
// is slow lags, and costs bounded memory; see [WithSlow].
//
// A message that is no T is yielded with a [*DecodeError], and the loop goes on.
// Any other error is the last thing that is yielded: that of ctx; [ErrNoTopic];
// [ErrSlow]; [ErrTaken]; and those of the client.
func (t *Topic[T]) Subscribe(ctx context.Context, from Start, opts ...SubOption) iter.Seq2[*Msg[T], error] {
	var conf subConfig
	for _, o := range opts {
		o(&conf)
	}
	return func(yield func(*Msg[T], error) bool) {
		s := &subscription{topic: t.topic, ctx: ctx, conf: conf}
		var cur *durable
		s.yield = func(m *message, missed uint64) bool {
			msg, err := t.msg(m)
			msg.Missed = missed
			if cur != nil {
				msg.cursor = cur
			}
			return yield(msg, err)
		}
		err := func() error {
			if from.kind != startDurable {
				p, err := t.resolve(ctx, from)
				if err != nil {
					return err
				}
				return s.run(p)
			}
			var err error
			if cur, err = t.topic.takeDurable(ctx, from); err != nil {
				return err
			}
			s.durable = cur
			return cur.end(s.run(cur.place()))
		}()
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, fmt.Errorf("subscribe to topic %q: %w", t.name, err))
		}
	}
}

// errStopped: the loop wants no more.
var errStopped = errors.New("stopped")

// errBehind: the feed no longer has what comes next.
var errBehind = errors.New("behind the window")

// subscription is one loop over a topic. It is owned by the loop's goroutine.
type subscription struct {
	topic   *topic
	ctx     context.Context
	conf    subConfig
	durable *durable // nil without a durable name
	yield   func(m *message, missed uint64) bool

	at     place
	missed uint64
}

// run yields from a place on until the loop or something else ends.
func (s *subscription) run(from place) error {
	s.at = from
	live := from.live
	for {
		if live {
			if spot, ok := s.topic.feed.join(s.at.at); ok {
				err := s.follow(spot)
				s.topic.feed.leave()
				if !errors.Is(err, errBehind) {
					return err
				}
			}
		}
		if err := s.catchUp(); err != nil {
			return err
		}
		live = true
	}
}

// catchUp reads from the store until the feed can go on.
func (s *subscription) catchUp() error {
	for b, err := range s.topic.feed.reader.Read(s.ctx, s.at.at) {
		if err != nil {
			return feedError(err)
		}
		if err := s.deliver(decodeBatch(b.Entries), b.Position); err != nil {
			return err
		}
		if b.Live && s.topic.feed.has(b.Position) {
			return nil
		}
	}
	return errStopped
}

// has says whether the feed has all that follows a position, or could begin there.
func (f *feed) has(at sequence.Position) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.run == nil || at.Revision >= f.base
}

// follow yields what the feed has and gets.
func (s *subscription) follow(at spot) error {
	for {
		v := s.topic.feed.look(at)
		if v.lost {
			if s.conf.slow == CatchUp {
				return errBehind
			}
			if s.conf.slow == SlowError {
				return ErrSlow
			}
			at.next = v.oldest
			continue
		}
		if v.slab == nil {
			select {
			case <-v.changed:
			case <-v.done:
				if v.run.err != nil {
					return v.run.err
				}
				return errBehind // it was started anew
			case <-s.ctx.Done():
				return retry.Why(s.ctx)
			}
			continue
		}
		skip, err := s.skip(v)
		if err != nil {
			return err
		}
		s.missed += v.slab.before - at.before + uint64(skip)
		if err := s.deliver(v.slab.messages[skip:], v.slab.at); err != nil {
			return err
		}
		at = spot{next: at.next + 1, before: v.slab.before + uint64(len(v.slab.messages))}
	}
}

// skip returns how many messages of a slab the policy leaves out.
func (s *subscription) skip(v view) (int, error) {
	if s.conf.lag == 0 || s.conf.slow == CatchUp || v.waiting <= uint64(s.conf.lag) {
		return 0, nil
	}
	if s.conf.slow == SlowError {
		return 0, ErrSlow
	}
	return int(min(v.waiting-uint64(s.conf.lag), uint64(len(v.slab.messages)))), nil
}

// deliver yields messages, and notes the position behind them.
func (s *subscription) deliver(messages []*message, at sequence.Position) error {
	for _, m := range messages {
		if m.offset.Compare(s.at.after) <= 0 {
			continue
		}
		if s.ctx.Err() != nil {
			return retry.Why(s.ctx)
		}
		s.at.after = m.offset
		if !s.wanted(m) {
			continue
		}
		missed := s.missed
		s.missed = 0
		if !s.yield(m, missed) {
			return errStopped
		}
		if s.durable != nil {
			if err := s.durable.handled(s.ctx, m.offset); err != nil {
				return err
			}
		}
	}
	if at.Revision >= s.at.at.Revision {
		s.at.at = at
		if s.durable != nil {
			s.durable.reached(at)
		}
	}
	return nil
}

// wanted says whether the loop gets a message.
func (s *subscription) wanted(m *message) bool {
	if m.time < s.at.since {
		return false
	}
	s.at.since = 0
	if _, redriven := m.header[headerGroup]; redriven {
		return false
	}
	return s.conf.filter == nil || s.conf.filter(m.key, m.header)
}
