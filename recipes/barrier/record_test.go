package barrier

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What a view asks for: for each recipe and policy, with members who have come, left by
// themselves, been lost, and arrived.
func TestStep(t *testing.T) {
	gathers := func(p LossPolicy) record { return record{terms: terms{Recipe: double, Parties: 3, OnLoss: p}} }
	inside := func(p LossPolicy) record {
		return record{terms: terms{Recipe: double, Parties: 3, OnLoss: p}, Phase: 1}
	}
	rounds := func(p LossPolicy) record {
		return record{terms: terms{Recipe: cyclic, Parties: 3, OnLoss: p}, Phase: 4}
	}
	phases := func(p LossPolicy) record { return record{terms: terms{Recipe: phaser, OnLoss: p}} }
	acts := func(r record) record { r.Action = true; return r }
	runs := func(r record) record { r.Action, r.Acting = true, &acting{}; return r }
	breaks := func(r record) record { r.Broken = &broken{}; return r }
	for _, tt := range []struct {
		name                         string
		rec                          record
		came, left, present, arrived int64
		actor                        bool
		want                         step
	}{
		{"nobody", gathers(Break), 0, 0, 0, 0, false, stay},
		{"one is missing", gathers(Break), 2, 0, 2, 2, false, stay},
		{"all are there", gathers(Break), 3, 0, 3, 3, false, advance},
		{"more than all", gathers(Break), 4, 0, 4, 4, false, advance},
		{"one was lost", gathers(Break), 2, 0, 1, 1, false, fall},
		{"one was lost, and all are there", gathers(Break), 4, 0, 3, 3, false, fall},
		{"one left", gathers(Break), 2, 1, 1, 1, false, stay},
		{"all were lost", gathers(Break), 2, 0, 0, 0, false, renew},
		{"lost, and waited for", gathers(Wait), 3, 0, 2, 2, false, stay},
		{"lost, and replaced", gathers(Wait), 4, 0, 3, 3, false, advance},
		{"lost, and the rest is there", gathers(Shrink), 3, 0, 2, 2, false, advance},
		{"lost, and one has not come", gathers(Shrink), 2, 0, 1, 1, false, stay},
		{"two of three lost", gathers(Shrink), 3, 0, 1, 1, false, advance},
		{"lost, and the place taken", gathers(Shrink), 4, 0, 3, 3, false, advance},

		{"inside", inside(Break), 3, 0, 3, 0, false, stay},
		{"two want to leave", inside(Break), 3, 0, 3, 2, false, stay},
		{"all want to leave", inside(Break), 3, 0, 3, 3, false, advance},
		{"lost inside", inside(Break), 3, 0, 2, 1, false, fall},
		{"lost inside, and the rest leaves", inside(Wait), 3, 0, 2, 2, false, advance},
		{"lost inside, and one works", inside(Shrink), 3, 0, 2, 1, false, stay},
		{"all lost inside", inside(Wait), 3, 0, 0, 0, false, renew},

		{"joined, not arrived", rounds(Break), 3, 0, 3, 2, false, stay},
		{"all arrived", rounds(Break), 3, 0, 3, 3, false, advance},
		{"lost in its round", rounds(Break), 3, 0, 2, 2, false, fall},
		{"left in its round", rounds(Break), 3, 1, 2, 2, false, stay},
		{"left with shrink", rounds(Shrink), 3, 1, 2, 2, false, advance},
		{"not all have joined", rounds(Shrink), 2, 0, 2, 2, false, stay},
		{"arrived, and one more joined", rounds(Shrink), 4, 0, 3, 2, false, stay},
		{"all arrived, with an action", acts(rounds(Break)), 3, 0, 3, 3, false, claim},
		{"the action runs", runs(rounds(Break)), 3, 0, 2, 2, true, stay},
		{"the actor died", runs(rounds(Break)), 3, 0, 2, 2, false, claim},
		{"all died while it ran", runs(rounds(Break)), 3, 0, 0, 0, false, renew},
		{"broken", breaks(rounds(Wait)), 3, 0, 3, 3, false, stay},
		{"broken, and all have left", breaks(rounds(Wait)), 3, 3, 0, 0, false, renew},
		{"all have left", rounds(Wait), 3, 3, 0, 0, false, renew},

		{"nobody registered", phases(Shrink), 0, 0, 0, 0, false, stay},
		{"registered", phases(Shrink), 2, 0, 2, 1, false, stay},
		{"all registered arrived", phases(Shrink), 2, 0, 2, 2, false, advance},
		{"lost, and the rest arrived", phases(Shrink), 2, 0, 1, 1, false, advance},
		{"all deregistered", phases(Shrink), 2, 2, 0, 0, false, advance},
		{"lost from a phaser that breaks", phases(Break), 2, 0, 1, 1, false, fall},
		{"deregistered", phases(Break), 2, 1, 1, 1, false, advance},
	} {
		v := view{rec: &tt.rec, rev: 7, came: tt.came, left: tt.left, present: tt.present, arrived: tt.arrived, actor: tt.actor}
		require.Equal(t, tt.want, v.step(), tt.name)
	}
	require.Equal(t, stay, (&view{}).step(), "there is no record")
}

// A phase that begins anew is one that gathers.
func TestFresh(t *testing.T) {
	d, c := terms{Recipe: double, Parties: 2}, terms{Recipe: cyclic, Parties: 2}
	for _, tt := range []struct {
		terms       terms
		phase, want uint64
	}{{d, 0, 2}, {d, 1, 2}, {d, 2, 4}, {c, 0, 1}, {c, 1, 2}} {
		v := view{rec: &record{terms: tt.terms, Phase: tt.phase}}
		require.Equal(t, tt.want, v.fresh(tt.terms).Phase)
	}
	require.Zero(t, (&view{}).fresh(d).Phase)
}

func TestRecord(t *testing.T) {
	r := &record{
		terms: terms{Recipe: cyclic, Parties: 2, OnLoss: Shrink}, Phase: 9,
		Trip: &trip{At: 12, Members: []place{{ID: "ab.1", Name: "one"}}},
	}
	got, err := decodeRecord("job", r.encode())
	require.NoError(t, err)
	require.Equal(t, r, got)
	require.Equal(t, "cyclic barrier, shrink on loss, 2 parties", got.terms.String())
	for _, value := range []string{"", "7", "{}", "[]", `{"recipe":3}`} {
		_, err := decodeRecord("job", []byte(value))
		require.ErrorIs(t, err, ErrConflict, "%q", value)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a/b": true, "/a": true, "gates": true, "a.b": true,
		"": false, "/": false, "a/": false, "a//b": false, "g": false, "a/d": false, "a/read": false,
	} {
		require.Equal(t, want, validName(name), "%q", name)
	}
}
