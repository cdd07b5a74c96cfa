package sequence

import (
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seeds = flag.Int("sequence.seeds", 1000, "how many runs of the model each test makes")

// writer is a client that appends to the log of the model.
type writer struct {
	seen    client.Revision
	tag     uint32
	count   uint64
	pending []request // sent, and not executed yet
}

type request struct {
	lane int
	id   ID
}

// run is one run: writers with views of different age, requests that are executed
// late or twice, a floor that rises, trims of what was consumed, compactions, and
// a reader that crashes and goes on from the position that it has stored.
type run struct {
	*model
	writers  []*writer
	stored   Position
	out      []Entry // what was yielded up to the stored position, and since
	consumed int     // entries of out up to the stored position
	late     int     // entries that were yielded behind a larger id
	crashes  int
}

func newRun(seed int64, m mutation) *run {
	r := rand.New(rand.NewSource(seed))
	w := &run{model: newModel(r, 1+r.Intn(3), m)}
	for i := range 4 {
		w.writers = append(w.writers, &writer{tag: uint32(i)})
	}
	w.busy = func() {
		if r.Intn(4) == 0 {
			w.step()
		}
	}
	return w
}

// step lets the others do something.
func (w *run) step() {
	for range 1 + w.r.Intn(4) {
		w.write(w.writers[w.r.Intn(len(w.writers))])
	}
	if w.r.Intn(3) == 0 {
		w.other()
	}
	if w.r.Intn(6) == 0 && w.rev > 15 {
		w.raise(Bound(w.rev - 15))
	}
	if w.r.Intn(8) == 0 && w.stored.Revision > 1 {
		// What the reader has stored as consumed may go.
		w.trim(w.stored.Revision)
	}
	if w.r.Intn(40) == 0 {
		w.compact()
	}
}

// write appends, or executes what was sent earlier, once more or for the first
// time.
func (w *run) write(p *writer) {
	if n := len(p.pending); n > 0 && w.r.Intn(3) == 0 {
		i := w.r.Intn(n)
		w.append(p.pending[i].lane, p.pending[i].id)
		if w.r.Intn(2) == 0 {
			p.pending = slices.Delete(p.pending, i, i+1)
		}
		return
	}
	q := request{lane: w.r.Intn(len(w.log.Lanes))}
	for {
		seed := p.seen
		if w.futureSeed {
			seed = w.rev + 3
		}
		q.id = ID{Seed: seed, Tag: p.tag, Count: p.count}
		p.count++
		if w.r.Intn(10) == 0 { // on its way for a while, or its answer is lost
			p.pending = append(p.pending, q)
			break
		}
		if w.append(q.lane, q.id) {
			break
		}
		p.seen = w.rev
	}
	if w.r.Intn(3) == 0 {
		p.seen = w.rev
	}
}

// check runs one seed and returns what went wrong.
func (w *run) check(t *testing.T) string {
	for range 15 {
		for range w.r.Intn(25) {
			w.step()
		}
		if problem := w.read(t); problem != "" {
			return problem
		}
	}
	return w.judge()
}

// read starts the reader where it has stored to be, and lets it go on until it has
// caught up, or crashes.
func (w *run) read(t *testing.T) string {
	reader := newReader(w.log, w.model)
	reader.history = client.Revision(w.r.Intn(60))
	reader.backlogBytes = w.r.Intn(2000)
	if w.noBacklog {
		reader.settled = func(*scan) client.Revision { return settledEnd }
	}
	w.out = w.out[:w.consumed]
	budget := 1 + w.r.Intn(400)
	for b, err := range reader.Read(t.Context(), w.stored) {
		if err != nil {
			if !errors.Is(err, errEnd) {
				return err.Error()
			}
			break
		}
		for i, e := range b.Entries {
			w.out = append(w.out, e)
			last := i+1 == len(b.Entries)
			if w.r.Intn(50) == 0 && (last || b.Entries[i+1].Revision != e.Revision) {
				w.store(Position{Revision: e.Revision, From: b.Position.From})
			}
			if budget--; budget == 0 {
				break
			}
		}
		if budget == 0 {
			w.crashes++
			break
		}
		if w.r.Intn(10) == 0 {
			w.store(b.Position)
		}
	}
	return w.problem
}

// store is the commit of the reader's position.
func (w *run) store(p Position) {
	if w.futureHorizon {
		p.From = string(w.live[w.log.Floor].Value)
	}
	w.stored, w.consumed = p, len(w.out)
}

// judge compares what was yielded up to the stored position with all that was
// ever committed up to there.
func (w *run) judge() string {
	var want []string
	for _, ev := range w.events {
		if w.log.lane(ev.KV.Key) >= 0 && ev.Created() && ev.KV.ModRevision <= w.stored.Revision {
			want = append(want, string(ev.KV.Value))
		}
	}
	var got []string
	for _, e := range w.out[:w.consumed] {
		if n := len(got); n > 0 && e.ID.String() < got[n-1] {
			w.late++
		}
		got = append(got, e.ID.String())
		if string(e.Value) != e.ID.String() {
			return "an entry has another's value"
		}
	}
	if !slices.Equal(want, got) {
		return fmt.Sprintf("yielded %d entries, committed %d", len(got), len(want))
	}
	return w.problem
}

// TestReaderOrder: whatever writers, the floor, trims, compactions and crashes do,
// the reader yields everything once, in the order of commits.
func TestReaderOrder(t *testing.T) {
	var entries, late, crashes, trimmed, compacted int
	for seed := range *seeds {
		w := newRun(int64(seed), mutation{})
		require.Empty(t, w.check(t), "seed %d", seed)
		entries += w.consumed
		late += w.late
		crashes += w.crashes
		trimmed += w.trimmed
		compacted += w.refused
	}
	t.Logf("%d entries in order, %d behind larger ids, %d trimmed; %d crashes, %d reads of what was compacted",
		entries, late, trimmed, crashes, compacted)
	require.Greater(t, entries, 200**seeds)
	require.Greater(t, late, entries/100, "the order of keys was that of commits: nothing was shown")
	require.Greater(t, crashes, *seeds)
	require.Greater(t, trimmed, entries/20)
	require.Greater(t, compacted, *seeds)
}

// TestReaderMutations breaks each rule on purpose, and wants it to be noticed.
func TestReaderMutations(t *testing.T) {
	for name, m := range map[string]mutation{
		"an append without the floor's condition":       {noGuard: true},
		"a seed that was not seen":                      {futureSeed: true},
		"a reader without a backlog":                    {noBacklog: true},
		"a position with a floor newer than the reader": {futureHorizon: true},
		"a trim by seeds":                               {trimYoung: true},
		"a floor that falls, and late requests":         {floorFalls: true},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range 500 {
				if problem := newRun(int64(seed), m).check(t); problem != "" {
					t.Logf("seed %d: %s", seed, problem)
					return
				}
			}
			t.Error("nobody noticed")
		})
	}
}
