package pubsub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// Offset is the place of a message in its topic: offsets grow in the order of the
// messages, with gaps, and those of different topics of a cluster can be compared:
// the smaller Revision was committed first.
type Offset struct {
	// Revision is the store's revision at which the message was committed.
	Revision client.Revision
	// Index tells messages of one commit apart.
	Index uint64
}

// Compare is negative when o comes before p, zero when they are the same, and
// positive otherwise.
func (o Offset) Compare(p Offset) int {
	return cmp.Or(cmp.Compare(o.Revision, p.Revision), cmp.Compare(o.Index, p.Index))
}

// String returns "<revision>.<index>", which [ParseOffset] reads.
func (o Offset) String() string { return fmt.Sprintf("%d.%d", o.Revision, o.Index) }

// MarshalText makes offsets texts in JSON.
func (o Offset) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (o *Offset) UnmarshalText(text []byte) (err error) {
	*o, err = ParseOffset(string(text))
	return err
}

// key returns a text that sorts as the offset does.
func (o Offset) key() string { return fmt.Sprintf("%016x-%012x", int64(o.Revision), o.Index) }

var errOffset = errors.New("not an offset")

// ParseOffset reads "<revision>.<index>", or "<revision>" alone for the last offset
// that the revision can have.
func ParseOffset(text string) (Offset, error) {
	rev, index, found := strings.Cut(text, ".")
	o := Offset{Index: math.MaxUint64}
	n, err := strconv.ParseInt(rev, 10, 64)
	if err == nil && found {
		o.Index, err = strconv.ParseUint(index, 10, 64)
	}
	if err != nil || n < 0 {
		return Offset{}, fmt.Errorf("%q: %w", text, errOffset)
	}
	o.Revision = client.Revision(n)
	return o, nil
}

// Header is what a message carries beside its value.
type Header map[string]string

// Msg is a message as a subscriber gets it. It belongs to the loop or handler that
// got it.
type Msg[T any] struct {
	Topic     string
	Partition int
	Offset    Offset
	// Key orders messages in a group: those of one key are handled one at a time.
	Key    string
	Header Header
	// Time is when the message was published, by the publisher's clock.
	Time  time.Time
	Value T
	// Attempt counts how often a group's handler is given the message, from 1;
	// zero in other subscriptions.
	Attempt int
	// Missed counts the messages before this one that a subscription with the
	// policy DropOldest has left out.
	Missed uint64

	cursor committer
}

// committer is the cursor that a message belongs to.
type committer interface {
	// commit runs fn in a transaction that also makes the message handled.
	commit(ctx context.Context, o Offset, fn func(tx *client.Tx) error) error
	// done makes the message handled.
	done(o Offset)
}

// Tx runs fn in an optimistic transaction that also moves the cursor of the group,
// or of the durable name, past the message: what fn has staged and the fact that
// the message is handled are committed together, or neither is. So the effects of a
// message that is consumed and processed in the store, publishing included, happen
// exactly once, whatever crashes.
//
// fn is run again on a conflict, as with [client.Client.Update]. After Tx has
// returned nil the handler should return nil; what it returns is not looked at.
// Errors: those of fn; [ErrLost] and [ErrTaken] when the cursor has passed on to
// somebody else, [ErrNoCursor], and those of the client; nothing was executed then,
// except with [client.ErrUncertain].
func (m *Msg[T]) Tx(ctx context.Context, fn func(tx *client.Tx) error) error {
	if m.cursor == nil {
		return ErrNoCursor
	}
	return m.cursor.commit(ctx, m.Offset, fn)
}

// Done says that the message is handled, for a loop over a durable name that is
// about to break: it counts as handled anyway when the loop asks for the next one.
func (m *Msg[T]) Done() {
	if m.cursor != nil {
		m.cursor.done(m.Offset)
	}
}

// message is a message with its value as bytes. It is immutable.
type message struct {
	partition int
	offset    Offset
	key       string
	header    Header
	time      int64 // milliseconds since 1970
	payload   []byte
	damaged   error // the record can not be read
}

// messageOverheadBytes is what a message costs in memory besides its texts.
const messageOverheadBytes = 160

func (m *message) bytes() int {
	n := messageOverheadBytes + len(m.key) + len(m.payload)
	for k, v := range m.header {
		n += len(k) + len(v) + 32
	}
	return n
}

// msg makes a typed message.
func (t *Topic[T]) msg(m *message) (*Msg[T], error) {
	out := &Msg[T]{
		Topic: t.name, Partition: m.partition, Offset: m.offset, Key: m.key, Header: m.header,
		Time: time.UnixMilli(m.time),
	}
	err := m.damaged
	if err == nil {
		out.Value, err = t.codec.Decode(m.payload)
	}
	if err != nil {
		return out, &DecodeError{Topic: t.name, Offset: m.offset, Err: err}
	}
	return out, nil
}
