package barrier

import (
	"encoding/json"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
)

// LossPolicy says what becomes of a generation when one of its members is lost:
// its process died, its session ended, or it gave up before the generation was
// complete. All members of a barrier must have the same.
type LossPolicy uint8

// The policies.
const (
	// Break breaks the generation: everybody in it gets ErrBroken, and the next one
	// begins when all of them have left. It is the default.
	Break LossPolicy = iota
	// Wait gives the place to somebody else: the others wait until as many as before
	// have arrived.
	Wait
	// Shrink goes on with one member less.
	Shrink
)

// String returns "break", "wait" or "shrink".
func (p LossPolicy) String() string {
	switch p {
	case Wait:
		return "wait"
	case Shrink:
		return "shrink"
	}
	return "break"
}

// The recipes that share the machinery.
const (
	double = "double"
	cyclic = "cyclic"
	phaser = "phaser"
)

// terms are what all members of a barrier must agree on. They stand in the store
// as long as somebody is there.
type terms struct {
	Recipe  string     `json:"recipe"`
	Parties int64      `json:"parties,omitempty"` // 0 for a phaser
	OnLoss  LossPolicy `json:"on_loss"`
	Action  bool       `json:"action,omitempty"` // a trip has an action
}

// String tells the terms.
func (t terms) String() string {
	s := fmt.Sprintf("%s barrier, %s on loss", t.Recipe, t.OnLoss)
	if t.Parties > 0 {
		s += fmt.Sprintf(", %d parties", t.Parties)
	}
	if t.Action {
		s += ", with an action"
	}
	return s
}

// record is the state of a barrier: the value of "<name>.gen". Whatever changes
// it has its ModRevision as a condition, so that a decision is made once, by
// whoever is first, and one that comes late has no effect.
type record struct {
	terms
	// Phase counts the trips. It is the generation, but of a double barrier: there,
	// generation g gathers in phase 2g and is inside in phase 2g+1.
	Phase  uint64  `json:"phase"`
	Trip   *trip   `json:"trip,omitempty"`   // the end of the phase before; nil if it was broken or reset
	Acting *acting `json:"acting,omitempty"` // the phase is complete, and its action runs
	Broken *broken `json:"broken,omitempty"` // the phase will never be complete
}

// trip is a complete phase.
type trip struct {
	// At is the revision at which all members were seen to have arrived.
	At      client.Revision `json:"at"`
	Members []place         `json:"members,omitempty"` // in the order in which they arrived
}

// place is one member in a trip.
type place struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// acting is a trip whose action runs.
type acting struct {
	By string `json:"by"` // the member's id
	trip
}

// broken tells why.
type broken struct {
	Reason string `json:"reason"`
	Action bool   `json:"action,omitempty"`
}

// inside says that the members of a double barrier are inside.
func (r *record) inside() bool { return r.Recipe == double && r.Phase%2 == 1 }

// hasRoster says that the phase of a view ends with a list of who took part.
func (v *view) hasRoster() bool { return v.rec.Recipe != phaser && !v.rec.inside() }

// generation is the phase as the caller counts.
func (r *record) generation() uint64 { return generationOf(r.Recipe, r.Phase) }

func generationOf(recipe string, phase uint64) uint64 {
	if recipe == double {
		return phase / 2
	}
	return phase
}

func (r *record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("barrier: encode %+v: %v", r, err)) // it has numbers and strings only
	}
	return b
}

func decodeRecord(name string, b []byte) (*record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.Recipe == "" {
		return nil, &ConflictError{Name: name, Theirs: "something else", Ours: "a barrier"}
	}
	return &r, nil
}

// view is what one read, at one revision, says of a barrier.
type view struct {
	rec *record
	rev client.Revision // of the record's last change; 0 when there is none
	at  client.Revision // at which it was read

	came, left int64 // versions of the counters: how many members came, and how many left by themselves
	present    int64 // members that are there
	arrived    int64 // those of them that have arrived in this phase
	actor      bool  // the member that runs the action is there

	roster []client.KV // the first to arrive, in order; only where it was asked for
}

// gone counts the members that are not there any more, and lost those of them that
// did not say goodbye. A lost member's keys have vanished with its lease, but the
// counters remember it: no event has to be seen for that.
func (v *view) gone() int64 { return v.came - v.present }
func (v *view) lost() int64 { return v.gone() - v.left }

// need is how many must have arrived for the phase to be complete.
func (v *view) need() int64 {
	r := v.rec
	switch {
	case r.inside():
		return v.present // nobody can take the place of one who is inside
	case r.Recipe == phaser:
		return v.present
	case r.OnLoss == Shrink:
		return max(1, min(r.Parties, max(r.Parties-v.gone(), v.present)))
	}
	return r.Parties
}

// step is what a view asks for.
type step uint8

const (
	stay    step = iota // nothing: the phase goes on
	advance             // all have arrived
	claim               // all have arrived, and somebody has to run the action
	fall                // a member was lost: the phase is broken
	renew               // what is left is of people who are all gone
)

func (v *view) step() step {
	r := v.rec
	switch {
	case v.rev == 0:
		return stay
	case v.present == 0 && v.stale():
		return renew
	case r.Broken != nil:
		return stay
	case r.Acting != nil && !v.actor:
		return claim
	case r.Acting != nil:
		return stay
	case r.OnLoss == Break && v.lost() > 0:
		return fall
	case v.arrived < v.need():
		return stay
	case r.Recipe == phaser && v.came == 0:
		return stay // nobody has registered
	case r.Action:
		return claim
	}
	return advance
}

// stale says that the phase can not go on from here without its members.
func (v *view) stale() bool {
	r := v.rec
	return r.Broken != nil || r.Acting != nil || r.inside() || r.Recipe != phaser && v.gone() > 0
}

// places are the members in the roster.
func (v *view) places(prefix string) []place {
	out := make([]place, len(v.roster))
	for i, kv := range v.roster {
		out[i] = placeOf(kv, prefix)
	}
	return out
}

func placeOf(kv client.KV, prefix string) place {
	p := place{ID: kv.Key[len(prefix):]}
	// A value that is no badge says nothing about its member, and that is all it is for.
	var b badge
	_ = json.Unmarshal(kv.Value, &b)
	p.Name = b.Name
	return p
}

// badge is the value of a member's keys, for people to read.
type badge struct {
	Name string `json:"name"`
}

// next returns the record after the present phase's end.
func (v *view) next(t *trip) *record {
	return &record{terms: v.rec.terms, Phase: v.rec.Phase + 1, Trip: t}
}

// fresh returns the record of a phase that begins with nobody.
func (v *view) fresh(t terms) *record {
	next := &record{terms: t}
	if v.rec != nil {
		next.Phase = v.rec.Phase + 1
	}
	if t.Recipe == double && next.Phase%2 == 1 {
		next.Phase++
	}
	return next
}
