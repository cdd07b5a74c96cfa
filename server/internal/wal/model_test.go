package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(800) // the heap is small and a million logs are opened
	goleak.VerifyTestMain(m)
}

// fewer is how many of n seeds are run: all, or some of them with the race detector, for which there is little to find in
// one goroutine.
func fewer(n uint64) uint64 {
	if raced {
		return max(2, n/6)
	}
	return n
}

var me = wal.Identity{ClusterID: 0xc1, MemberID: 0xe1}

// config is a log in memory that does everything in the calling goroutine.
func config(m *disk.Mem, segmentBytes int64) wal.Config {
	salts := rand.New(rand.NewPCG(7, 7))
	return wal.Config{FS: m, Dir: "/wal", Identity: me, SegmentBytes: segmentBytes, Inline: true, Salt: salts.Uint64}
}

func ptr[T any](v T) *T { return &v }

func entry(index, term uint64, data []byte) *raftpb.Entry {
	return &raftpb.Entry{Index: &index, Term: &term, Type: ptr(raftpb.EntryNormal), Data: data}
}

func hard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// model is what a log should hold, by value and without any cleverness.
type model struct {
	base    wal.Base
	entries []*raftpb.Entry
	hard    *raftpb.HardState
}

func (m model) last() wal.Base {
	if n := len(m.entries); n > 0 {
		return wal.Base{Index: m.entries[n-1].GetIndex(), Term: m.entries[n-1].GetTerm()}
	}
	return m.base
}

func (m model) term(index uint64) uint64 {
	for _, e := range m.entries {
		if e.GetIndex() == index {
			return e.GetTerm()
		}
	}
	return m.base.Term
}

func (m model) apply(b wal.Batch) model {
	if b.Reset != nil {
		m.base, m.entries = *b.Reset, nil
	}
	if len(b.Entries) > 0 {
		var kept []*raftpb.Entry
		for _, e := range m.entries {
			if e.GetIndex() < b.Entries[0].GetIndex() {
				kept = append(kept, e)
			}
		}
		m.entries = append(kept, b.Entries...)
	}
	if b.HardState != nil {
		m.hard = b.HardState
	}
	return m
}

// differs says how a recovered log is not the model, whose entries up to released may be missing; "" when it is.
func (m model) differs(r wal.Recovery, released uint64) string {
	if r.Base.Index < m.base.Index || r.Base.Index > max(m.base.Index, released) || r.Base.Index > m.last().Index {
		return fmt.Sprintf("base %v of %v, released %d", r.Base, m.base, released)
	}
	if want := m.term(r.Base.Index); r.Base.Term != want {
		return fmt.Sprintf("base %v has term %d", r.Base, want)
	}
	want := m.entries[r.Base.Index-m.base.Index:]
	if len(want) != len(r.Entries) {
		return fmt.Sprintf("%d entries after %v, want %d", len(r.Entries), r.Base, len(want))
	}
	for i, e := range r.Entries {
		w := want[i]
		if e.GetIndex() != w.GetIndex() || e.GetTerm() != w.GetTerm() || e.GetType() != w.GetType() || !bytes.Equal(e.GetData(), w.GetData()) {
			return fmt.Sprintf("entry %v, want %v", e, w)
		}
	}
	got := r.HardState
	if (got == nil) != (m.hard == nil) || got.GetTerm() != m.hard.GetTerm() || got.GetVote() != m.hard.GetVote() || got.GetCommit() != m.hard.GetCommit() {
		return fmt.Sprintf("hard state %v, want %v", got, m.hard)
	}
	return ""
}

// driver runs a random program on a log: the same one for the same seed, whatever the disk does.
type driver struct {
	config wal.Config
	rng    *rand.Rand
	log    *wal.Log

	created  bool
	states   []model // after each batch that was begun; the first is that of Create
	durable  int     // how many batches are acknowledged: the log must be states[durable] or a later one
	term     uint64
	commit   uint64 // entries up to here are never replaced
	released uint64
	did      map[string]int
}

func newDriver(m *disk.Mem, seed uint64) *driver {
	rng := rand.New(rand.NewPCG(seed, 99))
	c := config(m, []int64{4096, 6144, 16384}[rng.IntN(3)])
	c.Salt = rng.Uint64
	return &driver{config: c, rng: rng, term: 1, did: map[string]int{}}
}

// run does n steps, or fewer: it stops at the first error.
func (d *driver) run(n int) (err error) {
	base := wal.Base{}
	if d.rng.IntN(2) == 0 {
		base = wal.Base{Index: 10, Term: 1}
	}
	d.states, d.commit = []model{{base: base}}, base.Index
	if d.log, err = wal.Create(d.config, base); err != nil {
		return err
	}
	d.created = true
	for range n {
		if err := d.step(); err != nil {
			return err
		}
	}
	return d.log.Close()
}

func (d *driver) now() model { return d.states[len(d.states)-1] }

func (d *driver) step() error {
	switch p := d.rng.IntN(100); {
	case p < 8:
		d.did["release"]++
		if d.durable == len(d.states)-1 {
			d.commit = max(d.commit, d.now().last().Index-min(d.now().last().Index-d.commit, d.rng.Uint64N(4)))
		}
		d.released = max(d.released, d.commit)
		return d.log.Release(d.commit)
	case p < 12:
		d.did["reopen"]++
		if err := d.log.Close(); err != nil {
			return err
		}
		d.durable = len(d.states) - 1
		var rec wal.Recovery
		var err error
		if d.log, rec, err = wal.Open(d.config); err != nil {
			return err
		}
		if diff := d.now().differs(rec, d.released); diff != "" {
			return fmt.Errorf("after a clean stop: %s", diff)
		}
		if rec.Torn != nil {
			return fmt.Errorf("torn after a clean stop: %+v", rec.Torn)
		}
		return nil
	default:
		return d.append(d.batch(), d.rng.IntN(6) > 0)
	}
}

func (d *driver) append(b wal.Batch, sync bool) error {
	d.states = append(d.states, d.now().apply(b))
	if err := d.log.Append(b, sync); err != nil {
		return err
	}
	if sync {
		d.durable = len(d.states) - 1
	}
	return nil
}

// batch makes up a batch that raft could hand out.
func (d *driver) batch() (b wal.Batch) {
	last := d.now().last()
	if d.rng.IntN(4) == 0 {
		b.HardState = hard(d.term, d.rng.Uint64N(3)+1, d.commit)
		if d.rng.IntN(2) == 0 {
			d.did["hard state alone"]++
			return b
		}
	}
	if d.rng.IntN(20) == 0 {
		d.did["reset"]++
		d.term++
		at := d.commit + 1 + d.rng.Uint64N(10)
		b.Reset, b.HardState = &wal.Base{Index: at, Term: d.term}, hard(d.term, 0, at)
		last, d.commit = *b.Reset, at
		if d.rng.IntN(2) == 0 {
			return b
		}
	} else if last.Index > d.commit && d.rng.IntN(6) == 0 {
		d.did["overlap"]++
		d.term++
		last.Index = d.commit + d.rng.Uint64N(last.Index-d.commit)
	}
	for i := range 1 + d.rng.Uint64N(3) {
		data := make([]byte, d.rng.IntN(700))
		if d.rng.IntN(30) == 0 {
			data = make([]byte, 9000)
			d.did["large"]++
		}
		if d.rng.IntN(8) > 0 { // else zeros, as values may be
			for i := range data {
				data[i] = byte(d.rng.Uint32())
			}
		} else {
			d.did["zeros"]++
		}
		b.Entries = append(b.Entries, entry(last.Index+1+i, d.term, data))
	}
	return b
}

// check says whether a recovered log is one that the driver may find, and adopts it.
func (d *driver) check(r wal.Recovery) error {
	diff := ""
	for i := len(d.states) - 1; i >= d.durable; i-- {
		s := d.states[i].differs(r, d.released)
		if s == "" {
			d.states = d.states[:i+1]
			d.durable = i // Open made it so
			d.commit = min(d.commit, d.now().last().Index)
			return nil
		}
		diff += fmt.Sprintf("\n  after batch %d: %s", i, s)
	}
	return errors.New("the log is none of those that it may be:" + diff)
}

// TestRandomProgramsWithoutFaults: what a clean stop leaves is what was appended, for every kind of step.
func TestRandomProgramsWithoutFaults(t *testing.T) {
	did := map[string]int{}
	for seed := range fewer(150) {
		d := newDriver(disk.NewMem(seed), seed)
		require.NoError(t, d.run(80), "seed %d", seed)
		l, rec, err := wal.Open(d.config)
		require.NoError(t, err, "seed %d", seed)
		require.Empty(t, d.now().differs(rec, d.released), "seed %d", seed)
		require.NoError(t, l.Close())
		for k, n := range d.did {
			did[k] += n
		}
	}
	t.Log(did)
	for _, k := range []string{"release", "reopen", "hard state alone", "reset", "overlap", "large", "zeros"} {
		require.Greater(t, did[k], 20, k)
	}
}
