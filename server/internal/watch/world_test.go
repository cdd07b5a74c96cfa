package watch

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// world is a hub with a real machine in front of it and an archive behind it, and a naive account of what happened
// that is kept apart from both: from the commands alone.
type world struct {
	mu      sync.Mutex // protects machine
	machine *state.Machine
	archive *archive
	hub     *Hub
	index   uint64

	historyBytes int

	log  []change
	keys map[string]*mvccpb.KeyValue
}

// change is one event as the commands imply it.
type change struct {
	rev  int64
	kv   *mvccpb.KeyValue
	prev *mvccpb.KeyValue
	del  bool
}

// newWorld returns a world whose hub has the given limits; without any, one with the real limits and a dispatcher.
func newWorld(historyBytes int, l *limits) *world {
	w := &world{keys: map[string]*mvccpb.KeyValue{}, historyBytes: historyBytes}
	w.archive = &archive{world: w}
	w.machine = state.New(state.Config{HistoryBytes: historyBytes, Archive: w.archive})
	if l == nil {
		w.hub = NewHub(Config{Archive: w.archive}, w.machine.History(), w.machine.CompactRevision())
	} else {
		w.hub = newHub(Config{Archive: w.archive}, w.machine.History(), w.machine.CompactRevision(), *l)
	}
	return w
}

// apply carries out commands as one batch and publishes the outcome.
func (w *world) apply(commands ...state.Command) []state.Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range commands {
		w.account(c)
	}
	w.index++
	results := w.machine.Apply(w.index, 1, commands)
	w.hub.Publish(w.machine.History(), w.machine.CompactRevision())
	if last := w.revision(); last != w.machine.Revision() {
		panic(fmt.Sprintf("the account is at revision %d, the machine at %d", last, w.machine.Revision()))
	}
	return results
}

// revision is the current one by the account.
func (w *world) revision() int64 {
	if len(w.log) == 0 {
		return 1
	}
	return w.log[len(w.log)-1].rev
}

// account notes what a command will do.
func (w *world) account(c state.Command) {
	rev := w.revision() + 1
	switch r := c.Request.(type) {
	case *pb.PutRequest:
		w.accountPut(rev, r)
	case *pb.DeleteRangeRequest:
		w.accountDelete(rev, r)
	case *pb.TxnRequest:
		for _, op := range r.Success {
			if put := op.GetRequestPut(); put != nil {
				w.accountPut(rev, put)
			} else {
				w.accountDelete(rev, op.GetRequestDeleteRange())
			}
		}
	}
}

func (w *world) accountPut(rev int64, r *pb.PutRequest) {
	prev := w.keys[string(r.Key)]
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: rev, ModRevision: rev, Version: 1}
	if prev != nil {
		kv.CreateRevision, kv.Version = prev.CreateRevision, prev.Version+1
	}
	w.keys[string(r.Key)] = kv
	w.log = append(w.log, change{rev: rev, kv: kv, prev: prev})
}

func (w *world) accountDelete(rev int64, r *pb.DeleteRangeRequest) {
	rng := Range{Start: string(r.Key), End: string(r.RangeEnd)}
	var keys []string
	for k := range w.keys {
		if rng.holds(k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		w.log = append(w.log, change{
			rev: rev, del: true, prev: w.keys[k], kv: &mvccpb.KeyValue{Key: []byte(k), ModRevision: rev},
		})
		delete(w.keys, k)
	}
}

// holds is the definition of a Range, apart from the index.
func (r Range) holds(key string) bool {
	switch r.End {
	case "":
		return key == r.Start
	case fromKey:
		return key >= r.Start
	default:
		return key >= r.Start && key < r.End
	}
}

// compact makes everything below rev unreadable.
func (w *world) compact(rev int64) {
	w.apply(state.Command{Kind: state.KindCompact, Request: &pb.CompactionRequest{Revision: rev}})
}

// checkpoint does a part of the physical compaction and moves all changes to the archive, after which the machine may
// drop them from memory; what it drops shows in the next history that is published.
func (w *world) checkpoint(sweep int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machine.Sweep(sweep)
	changes := w.machine.TakeChanges()
	w.archive.save(changes)
	w.machine.Archived(changes.Revision)
	w.hub.Publish(w.machine.History(), w.machine.CompactRevision())
}

// install replaces the machine by one that is loaded from a checkpoint which has more commands than were published, as
// when a member that fell behind is sent a snapshot.
func (w *world) install(commands ...state.Command) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range commands {
		w.account(c)
	}
	w.index++
	w.machine.Apply(w.index, 1, commands)
	w.archive.save(w.machine.TakeChanges())
	loader := state.NewLoader(state.Config{HistoryBytes: w.historyBytes, Archive: w.archive})
	err := w.archive.Scan(0, w.machine.Revision(), func(v *state.Version) bool {
		copied := *v
		if err := loader.Version(&copied); err != nil {
			panic(err)
		}
		return true
	})
	if err != nil {
		panic(err)
	}
	machine, err := loader.Finish(w.index, 1, w.machine.Revision(), w.machine.CompactRevision())
	if err != nil {
		panic(err)
	}
	w.machine = machine
	w.hub.Publish(w.machine.History(), w.machine.CompactRevision())
}

func put(key, value string) state.Command {
	return state.Command{Kind: state.KindPut, Request: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}
}

func del(key, end string) state.Command {
	return state.Command{Kind: state.KindDeleteRange, Request: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}
}

func txn(ops ...state.Command) state.Command {
	r := &pb.TxnRequest{}
	for _, op := range ops {
		switch q := op.Request.(type) {
		case *pb.PutRequest:
			r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: q}})
		case *pb.DeleteRangeRequest:
			r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: q}})
		}
	}
	return state.Command{Kind: state.KindTxn, Request: r}
}

// archive is the simplest thing that has a checkpoint's answers.
type archive struct {
	world    *world
	mu       sync.Mutex
	versions []*state.Version // in revision order
	scans    int
	err      error
	// during runs in the middle of the next Scan.
	during func()
}

var errBroken = errors.New("archive is broken")

func (a *archive) save(c state.Changes) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.versions = append(a.versions, c.Versions...)
	if len(c.Removed) == 0 {
		return
	}
	removed := map[state.Revision]bool{}
	for _, rev := range c.Removed {
		removed[rev] = true
	}
	a.versions = slices.DeleteFunc(a.versions, func(v *state.Version) bool { return removed[v.Revision()] })
}

// at returns the index of the first version that is not before rev.
func (a *archive) at(rev state.Revision) int {
	i, _ := slices.BinarySearchFunc(a.versions, rev, func(v *state.Version, rev state.Revision) int {
		return v.Revision().Compare(rev)
	})
	return i
}

func (a *archive) Version(rev state.Revision) (*state.Version, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := a.at(rev); i < len(a.versions) && a.versions[i].Revision() == rev {
		return a.versions[i], nil
	}
	return nil, nil
}

func (a *archive) Scan(from, to int64, fn func(*state.Version) bool) error {
	if during := a.during; during != nil {
		a.during = nil
		during()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.scans++
	if a.err != nil {
		return a.err
	}
	for _, v := range a.versions[a.at(state.Revision{Main: from}):] {
		if v.Mod > to || !fn(v) {
			break
		}
	}
	return nil
}

// At is what the server makes of a View.
func (a *archive) At(key string, rev int64) (*mvccpb.KeyValue, error) {
	a.world.mu.Lock()
	view := a.world.machine.View()
	a.world.mu.Unlock()
	r, err := view.Range(&pb.RangeRequest{Key: []byte(key), Revision: rev})
	if errors.Is(err, state.ErrCompacted) || (err == nil && len(r.Kvs) == 0) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r.Kvs[0], nil
}

// response is one that a Sink was given, decoded.
type response struct {
	id       int64
	revision int64
	events   []*mvccpb.Event
	compact  int64
	fragment bool
}

// record is a Sink that keeps everything.
type record struct {
	responses []response
	err       error
}

func (r *record) Events(b *Batch) error {
	var m pb.WatchResponse
	if err := (proto.UnmarshalOptions{}).Unmarshal(slices.Concat(b.Events...), &m); err != nil {
		return err
	}
	for _, id := range b.IDs {
		r.responses = append(r.responses, response{id: id, revision: b.Revision, events: m.Events, fragment: b.Fragment})
	}
	return r.err
}

func (r *record) Progress(id, revision int64) error {
	r.responses = append(r.responses, response{id: id, revision: revision})
	return r.err
}

func (r *record) Compacted(id, compact int64) error {
	r.responses = append(r.responses, response{id: id, compact: compact})
	return r.err
}

// take returns the responses since the last take.
func (r *record) take() []response {
	taken := r.responses
	r.responses = nil
	return taken
}

// settle steps until nothing more is to be done at once.
func settle(s *Stream, sink Sink) error {
	for {
		if more, err := s.Step(sink); err != nil || !more {
			return err
		}
	}
}

// dispatchSome is one round of the dispatcher, for hubs that have none.
func (h *Hub) dispatchSome() (more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dispatch(h.limits.dispatchWork, true)
}

func (h *Hub) dispatchAll() {
	for h.dispatchSome() {
	}
}

// check tells the first invariant of the hub and the given streams, which are all that it has, that does not hold.
func (h *Hub) check(streams ...*Stream) error {
	live, lagging, watchers := 0, 0, 0
	for i, s := range streams {
		for rng, g := range s.live {
			live++
			if !slices.Contains(h.live.match(g.rng.Start, nil), g) || g.rng != rng || len(g.watchers) == 0 {
				return fmt.Errorf("stream %d: live group %q with %d watchers is not in the index", i, rng, len(g.watchers))
			}
		}
		for _, g := range s.lagging {
			lagging++
			if !slices.Contains(s.laggards.match(g.rng.Start, nil), g) || s.live[g.rng] == g || len(g.batch) != 0 {
				return fmt.Errorf("stream %d: lagging group %q is not in the stream's index", i, g.rng)
			}
		}
		if s.laggards.size != len(s.lagging) {
			return fmt.Errorf("stream %d: %d lagging groups, %d in the index", i, len(s.lagging), s.laggards.size)
		}
		for id, w := range s.watchers {
			watchers++
			if w.id != id || w.group.watchers[w.index] != w {
				return fmt.Errorf("stream %d: watcher %d is not where it should be", i, id)
			}
		}
	}
	if h.live.size != live || h.attached.Load() != int64(live) {
		return fmt.Errorf("%d live groups, %d in the index, %d attached", live, h.live.size, h.attached.Load())
	}
	want := Stats{Streams: int64(len(streams)), Watchers: int64(watchers), Lagging: int64(lagging)}
	if got := h.Stats(); got != want {
		return fmt.Errorf("stats are %+v, want %+v", got, want)
	}
	return h.live.check()
}

// check tells the first invariant of an index that does not hold.
func (x *index) check() error {
	all := x.all(nil)
	if len(all) != x.size {
		return fmt.Errorf("index has %d groups, counts %d", len(all), x.size)
	}
	prefixes := 0
	for _, l := range x.lengths {
		prefixes += l.prefixes
	}
	if prefixes != len(x.prefixes) || !slices.IsSortedFunc(x.lengths, func(a, b prefixLength) int { return cmp.Compare(a.length, b.length) }) {
		return fmt.Errorf("%d prefixes, lengths %v", len(x.prefixes), x.lengths)
	}
	return x.spans.root.check()
}

func (n *span) check() error {
	if n == nil {
		return nil
	}
	maxEnd := n.end
	for _, child := range []*span{n.left, n.right} {
		if child == nil {
			continue
		}
		if err := child.check(); err != nil {
			return err
		}
		if child.maxEnd.compare(maxEnd) > 0 {
			maxEnd = child.maxEnd
		}
		if child.priority > n.priority {
			return fmt.Errorf("span %q: child has a higher priority", n.start)
		}
	}
	if n.left != nil && n.compare(n.left.start, n.left.end) >= 0 || n.right != nil && n.compare(n.right.start, n.right.end) <= 0 {
		return fmt.Errorf("span %q: children are out of order", n.start)
	}
	if maxEnd != n.maxEnd || n.groups == nil {
		return fmt.Errorf("span %q: max end %v, want %v", n.start, n.maxEnd, maxEnd)
	}
	return nil
}
