package pubsub

import (
	"strconv"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

const (
	// segmentsMax bounds what is remembered of a topic's history: a topic is cut
	// between segments, so to about a sixtieth of what it holds.
	segmentsMax = 128
	// segmentAge is how long a segment is open at most while messages come.
	segmentAge = 10 * time.Second
)

// Retention says what a topic keeps. Several bounds may be set; what exceeds any of
// them goes, the oldest first. Whoever publishes also trims, in passes some seconds
// apart, so that somewhat more is kept than the bounds say, never less.
type Retention struct {
	// Age is how long messages are kept, by the clocks of those who publish.
	Age time.Duration `json:"age,omitempty"`
	// Bytes bounds the records of the topic, without their keys.
	Bytes int64 `json:"bytes,omitempty"`
	// Messages bounds their number.
	Messages int64 `json:"messages,omitempty"`
	// Interest keeps what a group or a durable name has not handled yet, and
	// nothing else.
	Interest bool `json:"interest,omitempty"`
}

// String tells the bounds.
func (r Retention) String() string {
	var parts []string
	if r.Age > 0 {
		parts = append(parts, "age "+r.Age.String())
	}
	if r.Bytes > 0 {
		parts = append(parts, "bytes "+strconv.FormatInt(r.Bytes, 10))
	}
	if r.Messages > 0 {
		parts = append(parts, "messages "+strconv.FormatInt(r.Messages, 10))
	}
	if r.Interest {
		parts = append(parts, "interest")
	}
	if parts == nil {
		return "unlimited"
	}
	return strings.Join(parts, ", ")
}

func bound(set func(*Retention)) Option {
	return func(o *options) {
		set(&o.settings.Retention)
		o.bounded = true
	}
}

// MaxAge makes a topic keep its messages that long.
func MaxAge(d time.Duration) Option { return bound(func(r *Retention) { r.Age = d }) }

// MaxBytes makes a topic keep so many bytes of messages.
func MaxBytes(n int64) Option { return bound(func(r *Retention) { r.Bytes = n }) }

// MaxMessages makes a topic keep so many messages.
func MaxMessages(n int64) Option { return bound(func(r *Retention) { r.Messages = n }) }

// Interest makes a topic keep a message until all groups and durable names that
// there are have handled it. Without any, nothing is kept.
func Interest() Option { return bound(func(r *Retention) { r.Interest = true }) }

// Unlimited allows a topic that keeps everything, until the store is full.
func Unlimited() Option { return bound(func(*Retention) {}) }

// history is what is remembered of a topic's past: the value of the key
// "segments". Its rules are pure.
type history struct {
	// At and Revision are when the latest pass was, and the revision at its
	// beginning: all before is in a segment.
	At       int64           `json:"at"` // milliseconds since 1970
	Revision client.Revision `json:"revision"`
	// Trimmed is where the topic begins: the end of the last segment that was cut
	// off, whose entries stand below Floor.
	Trimmed segment `json:"trimmed"`
	// Deleted is the bound up to which the keys were deleted.
	Deleted  string    `json:"deleted"`
	Segments []segment `json:"segments"`
}

// segment is a part of a topic's past, up to a revision.
type segment struct {
	Until client.Revision `json:"until"`
	At    int64           `json:"at"`
	// Floor is the log's floor at that revision, or an earlier one: whatever was
	// committed later stands above.
	Floor    string `json:"floor"`
	Messages int64  `json:"messages"`
	Bytes    int64  `json:"bytes"`
}

// add closes a segment.
func (h *history) add(s segment) {
	h.Segments = append(h.Segments, s)
	if len(h.Segments) <= segmentsMax {
		return
	}
	// Two neighbours become one, over the whole length.
	half := h.Segments[:0]
	for i := 0; i+1 < len(h.Segments); i += 2 {
		a, b := h.Segments[i], h.Segments[i+1]
		b.Messages += a.Messages
		b.Bytes += a.Bytes
		half = append(half, b)
	}
	if len(h.Segments)%2 == 1 {
		half = append(half, h.Segments[len(h.Segments)-1])
	}
	h.Segments = half
}

// cut removes the segments that exceed a bound. handled is the revision up to which
// all groups and durable names have handled the topic.
func (h *history) cut(r Retention, nowMs int64, handled client.Revision) {
	var messages, bytes int64
	for _, s := range h.Segments {
		messages += s.Messages
		bytes += s.Bytes
	}
	n := 0
	for ; n < len(h.Segments); n++ {
		s := h.Segments[n]
		// What is left without this segment must still fill a bound.
		messages -= s.Messages
		bytes -= s.Bytes
		over := r.Messages > 0 && messages >= r.Messages || r.Bytes > 0 && bytes >= r.Bytes ||
			r.Age > 0 && s.At+r.Age.Milliseconds() <= nowMs || r.Interest && s.Until <= handled
		if !over {
			break
		}
		h.Trimmed = segment{Until: s.Until, At: s.At, Floor: s.Floor}
	}
	h.Segments = append([]segment(nil), h.Segments[n:]...)
}

// before returns the last segment that satisfies ok, or the beginning of the topic.
func (h *history) before(ok func(segment) bool) segment {
	out := h.Trimmed
	for _, s := range h.Segments {
		if ok(s) {
			out = s
		}
	}
	return out
}
