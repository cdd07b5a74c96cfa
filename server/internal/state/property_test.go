package state

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// memory is an archive fed from Changes, as the checkpoint is.
type memory struct {
	versions map[Revision]Version
	leases   map[int64]int64
	fail     error
	met      tally
}

func newMemory() *memory {
	return &memory{versions: map[Revision]Version{}, leases: map[int64]int64{}, met: tally{}}
}

func (a *memory) save(c Changes) {
	for _, v := range c.Versions {
		a.versions[v.Revision()] = plain(v)
	}
	for _, rev := range c.Removed {
		a.met["removed"]++
		delete(a.versions, rev)
	}
	for _, l := range c.Leases {
		a.leases[l.ID] = l.TTL
	}
	for _, id := range c.RevokedLeases {
		delete(a.leases, id)
	}
}

// plain is what is left of a version after it was written and read.
func plain(v *Version) Version {
	return Version{Key: v.Key, Value: slices.Clone(v.Value), Create: v.Create, Mod: v.Mod, Sub: v.Sub, Count: v.Count,
		Lease: v.Lease, Deleted: v.Deleted}
}

func (a *memory) Version(rev Revision) (*Version, error) {
	v, ok := a.versions[rev]
	if !ok || a.fail != nil {
		return nil, a.fail
	}
	a.met["archive read"]++
	return &v, nil
}

func (a *memory) Scan(from, to int64, fn func(*Version) bool) error {
	for _, rev := range a.sorted() {
		v := a.versions[rev]
		if rev.Main >= from && rev.Main <= to && !fn(&v) {
			break
		}
	}
	return a.fail
}

func (a *memory) sorted() []Revision {
	return slices.SortedFunc(maps.Keys(a.versions), Revision.Compare)
}

// world holds a machine with an archive and a tiny window, a twin that keeps all in memory and is swept at other times,
// and the model. All get the same log and must agree at every step.
type world struct {
	require.TestingT
	pick    func(n int, label string) int // 0 <= result < n
	m, twin *Machine
	model   *model
	archive *memory
	index   uint64
	packed  string // where packing goes on
	loaded  int64  // compact revision when m was last loaded; below it events may have lost their Prev
	olds    []old
	met     tally
}

// old is a view with the model as it was when the view was taken.
type old struct {
	view   *View
	model  *model
	loaded int64
}

func config(a Archive) Config {
	return Config{HistoryBytes: 1024, Archive: a, ClusterID: 7,
		Members: []Member{{ID: 2, Name: "two"}, {ID: 1, PeerURLs: []string{"http://one"}, Learner: true}}}
}

func newWorld(t require.TestingT, pick func(n int, label string) int, met tally) *world {
	w := &world{TestingT: t, pick: pick, model: newModel(), archive: newMemory(), loaded: neverCompacted, met: met}
	w.archive.met = met
	w.m, w.twin = New(config(w.archive)), New(config(nil))
	for _, member := range config(nil).Members {
		w.model.members[member.ID] = member
	}
	return w
}

// tally counts what happened in all runs: a run in which nothing of interest happened proves nothing.
type tally map[string]int

// Short runs, for which rapid finds a still shorter one when they fail.
func TestMachineAgreesWithModel(t *testing.T) { rapid.Check(t, shortRun) }

func FuzzMachine(f *testing.F) { f.Fuzz(rapid.MakeFuzz(shortRun)) }

func shortRun(t *rapid.T) {
	pick := func(n int, label string) int { return rapid.IntRange(0, n-1).Draw(t, label) }
	newWorld(t, pick, tally{}).run(1 + pick(60, "steps"))
}

// Long runs, in which all that can happen does.
func TestMachineAgreesWithModelForLong(t *testing.T) {
	const runs, steps = 25, 250
	met := tally{}
	for range runs {
		seed := rand.Uint64()
		t.Logf("seed %#x", seed)
		r := rand.New(rand.NewPCG(seed, 0))
		newWorld(t, func(n int, _ string) int { return r.IntN(n) }, met).run(steps)
	}
	for _, what := range []string{
		ErrCompacted.Error(), ErrFutureRevision.Error(), ErrLeaseNotFound.Error(), ErrLeaseExists.Error(),
		ErrLeaseTTLTooLarge.Error(), ErrKeyNotFound.Error(), ErrMemberNotFound.Error(),
		"*etcdserverpb.PutResponse", "*etcdserverpb.DeleteRangeResponse", "*etcdserverpb.TxnResponse",
		"*etcdserverpb.CompactionResponse", "*etcdserverpb.LeaseGrantResponse", "*etcdserverpb.LeaseRevokeResponse",
		"*etcdserverpb.MemberUpdateResponse", "*etcdserverpb.RangeResponse",
		"archive read", "dropped", "removed", "half swept at restart", "lost to a compaction",
		"several writes in one revision", "packed", "packed a tombstone", "shrunk",
	} {
		require.Greater(t, met[what], runs, "%s happened too seldom: %v", what, met)
	}
}

// run drives a world through random steps.
func (w *world) run(n int) {
	for range n {
		pick(w, "step", w.apply, w.apply, w.apply, w.apply, w.read, w.read, w.sweep, w.sweep, w.keepView, w.checkpoint,
			w.settle, w.restart, w.transfer, w.pack)()
		w.compare()
	}
	w.read()
	w.settle()
	w.transfer()
}

// apply applies a batch and compares all results. The machines get decoded copies, since they own what they are given.
func (w *world) apply() {
	batch := make([]Command, w.pick(5, "batch"))
	for i := range batch {
		batch[i] = w.command()
	}
	w.index++
	got, twin := w.m.Apply(w.index, 3, w.copies(batch)), w.twin.Apply(w.index, 3, w.copies(batch))
	require.Len(w, got, len(batch))
	for i, c := range batch {
		want, err := w.model.apply(c)
		w.same(want, err, got[i].Response, got[i].Err, c)
		w.same(want, err, twin[i].Response, twin[i].Err, c)
	}
}

func (w *world) copies(batch []Command) []Command {
	out := make([]Command, len(batch))
	for i, c := range batch {
		b, err := c.AppendTo(nil)
		require.NoError(w, err)
		out[i], err = DecodeCommand(b)
		require.NoError(w, err)
	}
	return out
}

func (w *world) same(want proto.Message, wantErr error, got proto.Message, err error, request any) {
	require.ErrorIs(w, err, wantErr, "%v", request)
	if wantErr != nil {
		w.met[wantErr.Error()]++
	} else {
		w.met[fmt.Sprintf("%T", got)]++
	}
	if wantErr == nil && !proto.Equal(want, got) {
		require.Equal(w, want, got, "%v", request)
	}
}

// compare checks everything that can be seen without a request.
func (w *world) compare() {
	require.NoError(w, w.m.Check())
	require.NoError(w, w.twin.Check())
	require.Equal(w, w.twin.Digest(), w.m.Digest(), "digests of swept and of unswept")
	require.Equal(w, [2]int64{w.model.rev, w.model.compact}, [2]int64{w.m.Revision(), w.m.CompactRevision()})

	var size Size
	leases := map[int64][]string{}
	for _, k := range w.model.keysAt(w.model.rev) {
		size.Keys++
		size.Live += int64(len(k.key) + len(k.value) + 256)
		if k.lease != 0 {
			leases[k.lease] = append(leases[k.lease], k.key)
		}
	}
	require.Equal(w, size, Size{Live: w.m.Size().Live, Keys: w.m.Size().Keys})
	var infos []LeaseInfo
	for _, id := range slices.Sorted(maps.Keys(w.model.leases)) {
		infos = append(infos, LeaseInfo{ID: id, TTL: w.model.leases[id], Keys: len(leases[id])})
		require.Equal(w, leases[id], w.m.LeaseKeys(id))
	}
	require.Equal(w, infos, append([]LeaseInfo(nil), unindexed(w.m.Leases())...))
	require.Equal(w, w.model.notices, w.m.TakeLeaseEvents())
	require.Equal(w, w.model.notices, w.twin.TakeLeaseEvents())
	w.model.notices = nil
	require.Len(w, w.m.Members(), len(w.model.members))
	for _, member := range w.m.Members() {
		require.Equal(w, w.model.members[member.ID], member)
	}
	w.compareHistory(w.m.History(), w.model, w.loaded)
	w.compareHistory(w.twin.History(), w.model, neverCompacted)
}

// compareHistory checks that the window tells exactly the writes since First, with their Prev. Up to the revision at
// which the machine was loaded compacted, writes and Prevs may be missing.
func (w *world) compareHistory(h History, m *model, loaded int64) {
	require.Equal(w, m.rev, h.Last())
	if h.First() > max(loaded, firstRevision) {
		w.met["dropped"]++
	}
	events := map[Revision]Event{}
	last := Revision{}
	for e := range h.From(0) {
		require.Positive(w, e.Version.Revision().Compare(last), "order")
		last = e.Version.Revision()
		if last.Sub > 0 {
			w.met["several writes in one revision"]++
		}
		events[last] = e
	}
	latest, before := map[string]written{}, map[string]written{} // of each key: its last write, and that of an earlier revision
	for _, x := range m.log {
		latestBefore, ok := latest[x.key]
		if ok && latestBefore.mod < x.mod {
			before[x.key] = latestBefore
		}
		prev, existed := before[x.key]
		latest[x.key] = x
		e, ok := events[Revision{x.mod, x.sub}]
		delete(events, Revision{x.mod, x.sub})
		if x.mod <= loaded && (!ok || e.Prev == nil) {
			continue
		}
		require.Equal(w, x.mod >= h.First(), ok, "event %v", x)
		if !ok {
			continue
		}
		require.Equal(w, x, unplain(e.Version))
		again := x.create == x.mod && latestBefore.mod == x.mod // created anew after a deletion in the same revision
		require.Equal(w, existed && !prev.deleted && !again, e.Prev != nil, "Prev of %v", x)
		if e.Prev != nil {
			require.Equal(w, prev, unplain(e.Prev))
		}
	}
	require.Empty(w, events, "events that nobody wrote")
}

func unplain(v *Version) written {
	return written{key: v.Key, value: v.Value, create: v.Create, mod: v.Mod, sub: v.Sub, version: v.Count, lease: v.Lease,
		deleted: v.Deleted}
}

// read asks the present view and the kept ones.
func (w *world) read() {
	for range 4 {
		w.readView(w.m.View(), w.model)
		w.readView(w.twin.View(), w.model)
		for _, o := range w.olds {
			w.readView(o.view, o.model)
		}
	}
	for _, o := range w.olds {
		w.compareHistory(o.view.History(), o.model, o.loaded)
	}
}

// readView asks a view for one range and one transaction.
func (w *world) readView(v *View, m *model) {
	q := w.rangeRequest(m)
	want, wantErr := m.readRange(q)
	got, err := v.Range(q)
	w.sameRead(m, want, wantErr, got, err, q)

	x := w.readOnlyTxn(m, 2)
	c := m.choose(x)
	wantErr = m.possible(c)
	var wantTxn *pb.TxnResponse
	if wantErr == nil {
		wantTxn = m.execute(c)
		wantTxn.Header.Revision = m.rev
	}
	gotTxn, err := v.Txn(x)
	w.sameRead(m, wantTxn, wantErr, gotTxn, err, x)

	key := w.key()
	if k := m.find(key); k == nil {
		require.Nil(w, v.Get(string(key)))
	} else {
		require.Equal(w, *k, unplain(v.Get(string(key))))
	}
}

// pack moves a stretch of the versions, and makes the window small.
func (w *world) pack() {
	if held := w.m.window.bytes; w.pick(3, "shrink") == 0 {
		if w.m.Shrink(); w.m.window.bytes < held {
			w.met["shrunk"]++
		}
	}
	newest := func() (all []*Version) {
		merge(w.m.live, w.m.dead, "", func(v *Version) bool { all = append(all, v); return true })
		return all
	}
	before := newest()
	w.packed = w.m.Pack(w.packed, 1+w.pick(8, "pack"))
	for i, v := range newest() {
		require.Equal(w, plain(before[i]), plain(v))
		if v == before[i] {
			continue
		}
		w.met["packed"]++
		if v.Deleted {
			w.met["packed a tombstone"]++
		}
	}
}

// sameRead allows an old view to miss what was compacted and swept after it was taken; that is promised to be the only
// thing that can change for it.
func (w *world) sameRead(m *model, want proto.Message, wantErr error, got proto.Message, err error, q any) {
	if wantErr == nil && errors.Is(err, ErrCompacted) && m.compact < w.model.compact {
		w.met["lost to a compaction"]++
		return
	}
	w.same(want, wantErr, got, err, q)
}

func (w *world) keepView() {
	frozen := *w.model
	frozen.log, frozen.leases = slices.Clip(frozen.log), maps.Clone(frozen.leases)
	w.olds = append(w.olds, old{w.m.View(), &frozen, w.loaded})
	if len(w.olds) > 3 {
		w.olds = w.olds[1:]
	}
}

func (w *world) sweep() {
	w.m.Sweep(1 + w.pick(4, "keys"))
	if w.pick(2, "twin") == 0 {
		w.twin.Sweep(100)
	}
}

// checkpoint moves the changes to the archive; what they hold may leave memory.
func (w *world) checkpoint() {
	c := w.m.TakeChanges()
	if w.pick(2, "merged") == 0 {
		w.apply()
		c.Merge(w.m.TakeChanges())
	}
	empty := w.m.TakeChanges()
	require.True(w, empty.Empty())
	w.archive.save(c)
	w.m.Archived(w.m.Revision())
}

// settle sweeps all and compares what is left with what compaction has to leave.
func (w *world) settle() {
	for w.m.Sweep(3) {
	}
	for w.twin.Sweep(1) {
	}
	c := w.m.TakeChanges()
	w.archive.save(c)
	w.m.Archived(w.m.Revision())
	kept := w.model.retained()
	require.Equal(w, len(kept), len(w.archive.versions))
	history := int64(0)
	for rev, k := range kept {
		v, ok := w.archive.versions[rev]
		require.True(w, ok, "%v was removed", k)
		require.Equal(w, k, unplain(&v))
		if live := w.model.find([]byte(k.key)); live == nil || live.mod != k.mod || live.sub != k.sub {
			history += historyBytes(len(k.key), len(k.value))
		}
	}
	require.Equal(w, history, w.m.Size().History)
	require.Equal(w, w.model.leases, w.archive.leases)
}

// restart loads the machine from the archive, swept or not.
func (w *world) restart() {
	if w.m.sweep.active && w.m.sweep.begun {
		w.met["half swept at restart"]++
	}
	w.archive.save(w.m.TakeChanges())
	l := NewLoader(config(w.archive))
	for _, id := range slices.Sorted(maps.Keys(w.archive.leases)) {
		require.NoError(w, l.Lease(LeaseInfo{ID: id, TTL: w.archive.leases[id]}))
	}
	for _, rev := range w.archive.sorted() {
		v := w.archive.versions[rev]
		require.NoError(w, l.Version(&v))
	}
	w.m = w.finish(l)
	w.loaded = w.model.compact
	require.Equal(w, w.twin.Digest(), w.m.Digest())
}

// transfer replaces the twin by what the machine dumps.
func (w *world) transfer() {
	dump, twin := w.m.Dump(), w.twin.Dump()
	require.Equal(w, len(w.model.retained()), len(dump.Versions))
	for i := range dump.Versions {
		require.Equal(w, plain(twin.Versions[i]), plain(dump.Versions[i]))
	}
	dump.Versions, twin.Versions = nil, nil
	dump.Leases, twin.Leases = unindexed(dump.Leases), unindexed(twin.Leases) // reload does not know them
	require.Equal(w, twin, dump)
	dump = w.m.Dump()
	l := NewLoader(Config{ClusterID: 7})
	for _, v := range dump.Versions {
		require.NoError(w, l.Version(v))
	}
	for _, info := range dump.Leases {
		require.NoError(w, l.Lease(info))
	}
	fresh := w.finish(l)
	require.Equal(w, w.m.Digest(), fresh.Digest())
	require.Equal(w, w.m.Size().Live, fresh.Size().Live)
}

func (w *world) finish(l *Loader) *Machine {
	for _, member := range w.model.members {
		require.NoError(w, l.Member(member))
	}
	term := uint64(3)
	if w.index == 0 {
		term = 0
	}
	m, err := l.Finish(w.index, term, w.model.rev, w.model.compact)
	require.NoError(w, err)
	return m
}
