package pubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// Merge yields the messages of several topics of one client in one total order,
// that of their commits: those of one transaction come topic by topic. from may not
// be Durable, and its policy is CatchUp.
//
// It reads what stands under the common part of the topics' names, so choose names
// that have one. Errors are as with Subscribe.
func Merge[T any](ctx context.Context, from Start, topics ...*Topic[T]) iter.Seq2[*Msg[T], error] {
	return func(yield func(*Msg[T], error) bool) {
		m := &merge[T]{ctx: ctx, yield: yield}
		err := errors.New("no topics to merge")
		if len(topics) > 0 {
			m.client, m.topics = topics[0].client, topics
			err = m.run(from)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, fmt.Errorf("merge topics: %w", err))
		}
	}
}

// Match is Merge of all topics whose names match a pattern, see [List], also of
// those that are made later.
func Match[T any](ctx context.Context, c *client.Client, pattern string, from Start, opts ...Option) iter.Seq2[*Msg[T], error] {
	return func(yield func(*Msg[T], error) bool) {
		m := &merge[T]{ctx: ctx, client: c, yield: yield, pattern: pattern, opts: opts}
		err := fmt.Errorf("pattern %q: %w", pattern, ErrName)
		if validPattern(pattern) {
			err = m.run(from)
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, fmt.Errorf("match topics %q: %w", pattern, err))
		}
	}
}

// merge is one loop over several topics. It is owned by the loop's goroutine.
type merge[T any] struct {
	ctx     context.Context
	client  *client.Client
	yield   func(*Msg[T], error) bool
	topics  []*Topic[T]
	pattern string // empty for a fixed set
	opts    []Option

	lanes []laneOf[T]
	at    place
}

// laneOf tells what stands in a lane of the merged log.
type laneOf[T any] struct {
	topic     *Topic[T]
	partition int
}

// run reads until the loop or something else ends.
func (m *merge[T]) run(from Start) error {
	if err := m.list(); err != nil {
		return err
	}
	if err := m.begin(from); err != nil {
		return err
	}
	for {
		err := m.pass()
		if !errors.Is(err, client.ErrCompacted) {
			return err
		}
		// Topics may have been made meanwhile, with keys anywhere.
		if err := m.list(); err != nil {
			return err
		}
	}
}

// list finds the topics that match.
func (m *merge[T]) list() error {
	if m.pattern == "" {
		return nil
	}
	m.topics = nil
	for info, err := range List(m.ctx, m.client, m.pattern) {
		if err != nil {
			return err
		}
		t, err := Open[T](m.ctx, m.client, info.Name, m.opts...)
		if errors.Is(err, ErrUnbounded) {
			continue // deleted since
		}
		if err != nil {
			return err
		}
		m.topics = append(m.topics, t)
	}
	return nil
}

// begin finds the earliest of the places that the start means in each topic.
func (m *merge[T]) begin(from Start) error {
	if from.kind == startDurable {
		return errors.New("a durable name belongs to one topic")
	}
	if len(m.topics) == 0 {
		res, err := m.client.Get(m.ctx, registry, client.CountOnly())
		if err != nil {
			return err
		}
		m.at.at.Revision = res.Revision
		return nil
	}
	for i, t := range m.topics {
		p, err := t.resolve(m.ctx, from)
		if err != nil {
			return err
		}
		if i == 0 {
			m.at = p
			continue
		}
		m.at.at.Revision = min(m.at.at.Revision, p.at.Revision)
		m.at.at.From = min(m.at.at.From, p.at.From)
		if p.after.Compare(m.at.after) < 0 {
			m.at.after = p.after
		}
	}
	return nil
}

// pass reads on from where the loop is.
func (m *merge[T]) pass() error {
	l := sequence.Log{Under: root + m.common()}
	m.lanes = nil
	for _, t := range m.topics {
		for p := range t.partitions {
			l.Lanes = append(l.Lanes, t.keys.lane(p))
			m.lanes = append(m.lanes, laneOf[T]{t, p})
		}
	}
	if m.pattern != "" {
		l.Found = m.found
	}
	for b, err := range sequence.NewReader(m.client, l).Pass(m.ctx, m.at.at) {
		if err != nil {
			return err
		}
		if err := m.deliver(b); err != nil {
			return err
		}
	}
	return errStopped
}

// common returns what all keys of the topics begin with, behind root.
func (m *merge[T]) common() string {
	if m.pattern != "" {
		if strings.Contains(m.pattern, "*") {
			return literal(m.pattern)
		}
		return m.pattern + ":"
	}
	out := m.topics[0].name + ":"
	for _, t := range m.topics[1:] {
		name := t.name + ":"
		n := 0
		for n < len(out) && n < len(name) && out[n] == name[n] {
			n++
		}
		out = out[:n]
	}
	return out
}

// found returns the lane of a key of a topic that is new.
func (m *merge[T]) found(key string) string {
	name, rest, ok := partsOf(key)
	if !ok || !matches(m.pattern, name) || !strings.HasPrefix(rest, "log/") || strings.HasSuffix(rest, "/floor") {
		return ""
	}
	i := strings.LastIndex(key, "/")
	var p int
	if _, err := fmt.Sscanf(rest, "log/%02d/", &p); err != nil {
		return ""
	}
	at := slices.IndexFunc(m.topics, func(t *Topic[T]) bool { return t.name == name })
	if at < 0 {
		t, err := Open[T](m.ctx, m.client, name, m.opts...)
		if err != nil {
			return "" // deleted since, or no longer allowed
		}
		m.topics = append(m.topics, t)
		at = len(m.topics) - 1
	}
	m.lanes = append(m.lanes, laneOf[T]{m.topics[at], p})
	return key[:i+1]
}

// deliver yields the messages of a batch in order.
func (m *merge[T]) deliver(b sequence.Batch) error {
	type from struct {
		*message
		topic *Topic[T]
	}
	var all []from
	for _, e := range b.Entries {
		lane := m.lanes[e.Lane]
		for _, msg := range decodeRecord(e) {
			msg.partition = lane.partition
			all = append(all, from{msg, lane.topic})
		}
	}
	slices.SortStableFunc(all, func(a, b from) int {
		if a.offset.Revision == b.offset.Revision && a.topic != b.topic {
			return strings.Compare(a.topic.name, b.topic.name)
		}
		return a.offset.Compare(b.offset)
	})
	for _, f := range all {
		if f.offset.Compare(m.at.after) <= 0 || f.time < m.at.since || f.header[headerGroup] != "" {
			continue
		}
		m.at.since = 0
		msg, err := f.topic.msg(f.message)
		if !m.yield(msg, err) {
			return errStopped
		}
		// The same revision may have other topics' messages with smaller indexes.
		m.at.after = Offset{}
	}
	m.at.at = b.Position
	return nil
}
