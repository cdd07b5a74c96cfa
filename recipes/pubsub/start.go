package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// Start says where a subscription begins: [Latest], [Earliest], [After], [Since] or
// [Durable].
type Start struct {
	kind   startKind
	offset Offset
	time   time.Time
	name   string
	first  *Start
}

type startKind uint8

const (
	startLatest startKind = iota
	startEarliest
	startAfter
	startSince
	startDurable
)

// Latest begins with what is published after the subscription has begun.
func Latest() Start { return Start{kind: startLatest} }

// Earliest begins with the oldest message that is kept.
func Earliest() Start { return Start{kind: startEarliest} }

// After begins behind an offset, or with the oldest message that is kept if that is
// younger.
func After(o Offset) Start { return Start{kind: startAfter, offset: o} }

// Since begins with the first message that was published at a time or later, by the
// clocks of the publishers.
func Since(t time.Time) Start { return Start{kind: startSince, time: t} }

// Durable begins where the latest subscription with this name has ended, in
// whatever process: behind the messages whose loop bodies were finished. A name that
// is used for the first time begins at first, or Latest without.
//
// The name belongs to one process at a time, the one that has begun last; the one
// before gets [ErrTaken].
func Durable(name string, first ...Start) Start {
	s := Start{kind: startDurable, name: name}
	if len(first) > 0 {
		s.first = &first[0]
	}
	return s
}

// String tells the start, for people.
func (s Start) String() string {
	switch s.kind {
	case startEarliest:
		return "earliest"
	case startAfter:
		return "after " + s.offset.String()
	case startSince:
		return "since " + s.time.Format(time.RFC3339)
	case startDurable:
		return "durable " + s.name
	}
	return "latest"
}

// place is where to read on: behind a position, those messages left out that are
// not after an offset or older than a time.
type place struct {
	at    sequence.Position
	after Offset
	since int64 // milliseconds; until the first message that is as young
	live  bool  // nothing was committed between the position and now
}

// resolve finds the place that a start means.
func (t *topic) resolve(ctx context.Context, s Start) (place, error) {
	res, err := t.client.Txn().Then(client.OpGet(t.keys.floor()), client.OpGet(t.keys.segments())).Commit(ctx)
	if err != nil {
		return place{}, err
	}
	floor, segments := res.Results[0].Get.KVs, res.Results[1].Get.KVs
	if len(floor) == 0 {
		return place{}, ErrNoTopic
	}
	var h history
	if len(segments) > 0 {
		if err := json.Unmarshal(segments[0].Value, &h); err != nil {
			return place{}, fmt.Errorf("segments: %w", err)
		}
	}
	now := place{at: sequence.Position{Revision: res.Revision, From: string(floor[0].Value)}, live: true}
	now.after = Offset{Revision: res.Revision, Index: math.MaxUint64}
	switch s.kind {
	case startLatest:
		return now, nil
	case startEarliest:
		return place{at: sequence.Position{From: h.Trimmed.Floor}}, nil
	case startAfter:
		if s.offset.Compare(now.after) >= 0 {
			return now, nil
		}
		// The offset's own commit may go on behind it.
		rev := max(s.offset.Revision-1, 0)
		seg := h.before(func(seg segment) bool { return seg.Until <= rev })
		return place{at: sequence.Position{Revision: rev, From: seg.Floor}, after: s.offset}, nil
	case startSince:
		ms := s.time.UnixMilli()
		// By up to a segment's length, as clocks differ.
		seg := h.before(func(seg segment) bool { return seg.At <= ms-segmentAge.Milliseconds() })
		return place{at: sequence.Position{Revision: seg.Until, From: seg.Floor}, since: ms}, nil
	}
	return place{}, errors.New("this is no place to start")
}
