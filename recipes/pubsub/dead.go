package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// headerGroup is the header of a message that was a dead letter and is
	// published again, for one group only.
	headerGroup = "latchkey-group"
	// deadPage is how many dead letters are read at once.
	deadPage = 64
	// deadErrorBytesMax bounds what is kept of an error's text.
	deadErrorBytesMax = 4 << 10
)

// DeadLetter is a message that a group has given up.
type DeadLetter[T any] struct {
	// Msg is the message as it was. Its Attempt is the number of attempts.
	Msg *Msg[T]
	// Error is what the last attempt said, and At when that was.
	Error string
	At    time.Time
	// Err is set when the value is no T.
	Err error

	key     string
	created client.Revision
}

// letter is a dead letter in the store.
type letter struct {
	Offset   Offset `json:"offset"`
	Key      string `json:"key,omitempty"`
	Header   Header `json:"header,omitempty"`
	Payload  []byte `json:"payload"`
	Time     int64  `json:"time"`
	Attempts int    `json:"attempts"`
	Error    string `json:"error"`
	At       int64  `json:"at"`
}

// bury makes a dead letter of a message and moves the cursor past it, in one step.
func (w *worker) bury(d *delivery, cause error) {
	m := d.message
	text := cause.Error()
	value, err := json.Marshal(letter{
		Offset: m.offset, Key: m.key, Header: m.header, Payload: m.payload, Time: m.time,
		Attempts: d.failures + d.crashes, Error: text[:min(len(text), deadErrorBytesMax)], At: time.Now().UnixMilli(),
	})
	if err == nil {
		w.turn.Lock()
		next := w.snapshot(d)
		err = w.slot.put(w.member.session.Context(), next.encode(), client.OpPut(w.member.group.keys.dead(m.offset), value))
		w.turn.Unlock()
	}
	if err != nil {
		w.fail(err)
		return
	}
	d.done(m.offset)
}

// Dead yields the dead letters of the group, the oldest message first.
func (g *Group[T]) Dead(ctx context.Context) iter.Seq2[*DeadLetter[T], error] {
	return func(yield func(*DeadLetter[T], error) bool) {
		prefix := g.keys.deads()
		err := g.err
		for from := prefix; err == nil; {
			var res *client.GetResult
			res, err = g.topic.client.Get(ctx, from, client.Range(prefix+"~"), client.Limit(deadPage))
			if err != nil {
				break
			}
			for _, kv := range res.KVs {
				from = kv.Key + "\x00"
				if !yield(g.letter(kv), nil) {
					return
				}
			}
			if !res.More {
				return
			}
		}
		yield(nil, fmt.Errorf("dead letters of group %q of topic %q: %w", g.name, g.topic.name, err))
	}
}

func (g *Group[T]) letter(kv client.KV) *DeadLetter[T] {
	var l letter
	out := &DeadLetter[T]{key: kv.Key, created: kv.CreateRevision}
	m := &message{}
	if m.damaged = json.Unmarshal(kv.Value, &l); m.damaged == nil {
		m.offset, m.key, m.header, m.time, m.payload = l.Offset, l.Key, l.Header, l.Time, l.Payload
	}
	out.Msg, out.Err = g.topic.msg(m)
	out.Msg.Attempt, out.Error, out.At = l.Attempts, l.Error, time.UnixMilli(l.At)
	return out
}

// errGone: somebody else has redriven or purged the dead letter.
var errGone = errors.New("dead letter is gone")

// Redrive publishes a dead letter once more, for this group only, and deletes it, in
// one step. One that is gone already is no error.
func (g *Group[T]) Redrive(ctx context.Context, l *DeadLetter[T]) error {
	t := g.topic.topic
	err := t.client.Update(ctx, func(tx *client.Tx) error {
		kv, err := tx.In(t.client).Get(l.key)
		if errors.Is(err, client.ErrNotFound) || err == nil && kv.CreateRevision != l.created {
			return errGone
		}
		if err != nil {
			return err
		}
		var stored letter
		if err := json.Unmarshal(kv.Value, &stored); err != nil {
			return err
		}
		d := &draft{key: stored.Key, header: Header{headerGroup: g.name}, payload: stored.Payload, partition: -1}
		for name, value := range stored.Header {
			d.header[name] = value
		}
		d.header[headerGroup] = g.name
		if d.key != "" {
			d.partition = t.partitionOf(d.key)
		}
		tx.In(t.client).Delete(l.key)
		return t.publishTx(tx, d, "")
	}, client.ExactlyOnce())
	if err != nil && !errors.Is(err, errGone) {
		return fmt.Errorf("redrive message %s of group %q: %w", l.Msg.Offset, g.name, err)
	}
	return nil
}

// Purge deletes a dead letter. One that is gone already is no error.
func (g *Group[T]) Purge(ctx context.Context, l *DeadLetter[T]) error {
	if _, err := g.topic.client.Delete(ctx, l.key); err != nil {
		return fmt.Errorf("purge message %s of group %q: %w", l.Msg.Offset, g.name, err)
	}
	return nil
}
