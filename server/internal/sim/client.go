package sim

import (
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	clientTimeout = 600 * time.Millisecond
	never         = time.Duration(1 << 62)
)

// Kinds of operations that a history holds.
type opKind int

const (
	opPut opKind = iota
	opGet
	opSwap // compare and swap
	opDelete
)

// operation is one call of a client on one key, for the history.
type operation struct {
	client     int
	kind       opKind
	key        string
	value, old string // written; compared
	call, ret  time.Duration

	// The answer. known is false when the client was not told; then ret is never.
	known   bool
	found   bool // get: the key exists; swap: the comparison held
	got     string
	over    bool // the client no longer waits
	dropped bool // known not to have happened: no part of the history
}

// kvClient puts, reads, swaps and deletes a few keys, one call at a time, and goes to another member when one does not
// answer.
type kvClient struct {
	s    *sim
	id   int
	node *node
}

// clientKey is a key that the clients use at present.
type clientKey struct{ number, generation, uses int }

func (s *sim) startClients() {
	s.startWatchers()
	for i := range s.Keys {
		s.keys = append(s.keys, clientKey{number: i})
	}
	for i := range s.Clients {
		c := &kvClient{s: s, id: i, node: s.pick()}
		s.clients = append(s.clients, c)
		s.after(s.around(ms(300)), c.next)
	}
	for i := range s.Lockers {
		l := &locker{s: s, id: i, home: s.pick()}
		s.lockers = append(s.lockers, l)
		s.after(s.around(ms(300)), l.begin)
	}
	s.after(s.around(s.Burst), s.burst)
	if s.Compactions > 0 {
		s.after(s.around(s.Compactions), s.compact)
	}
}

// ask takes a request to a member and runs it there. It is lost when the member is down.
func (s *sim) ask(n *node, fn func()) {
	s.arriveAt(n, s.now+s.net.delay(), func() {
		if n.up {
			fn()
		}
	})
}

// answer takes an answer back to a client.
func (s *sim) answer(fn func()) { s.after(s.net.delay(), fn) }

// next does one operation, and after it another.
func (c *kvClient) next() {
	s := c.s
	if !s.load {
		return
	}
	if s.chance(0.02) {
		c.node = s.pick()
	}
	op := &operation{client: c.id, key: s.key(), call: s.now, ret: never}
	after := func() { s.after(s.around(s.Think), c.next) }
	s.after(clientTimeout, func() {
		if !op.over {
			op.over = true
			c.node = s.pick()
			after()
		}
	})
	// finish is run where the answer arrives, unless the client has stopped waiting.
	finish := func(fn func()) {
		s.answer(func() {
			if !op.over {
				op.over, op.known, op.ret = true, true, s.now
				fn()
				after()
			}
		})
	}
	switch p := s.rng.IntN(100); {
	case p < 30:
		op.kind, op.value = opPut, s.value()
		c.write(op, finish, encode(state.KindPut, &pb.PutRequest{Key: []byte(op.key), Value: []byte(op.value)}))
	case p < 60:
		op.kind = opGet
		c.get(op, finish)
	case p < 75:
		c.swap(op, finish)
	case p < 83:
		op.kind = opDelete
		c.write(op, finish, encode(state.KindDeleteRange, &pb.DeleteRangeRequest{Key: []byte(op.key)}))
	default:
		op.dropped = true
		c.localRead(op, finish)
	}
	s.history = append(s.history, op)
}

// key draws the key of an operation. Each has a bounded number of operations and then gives way to a fresh one, which
// bounds the search for a linearization and leaves no operation out of it.
func (s *sim) key() string {
	k := &s.keys[s.rng.IntN(s.Keys)]
	if k.uses++; k.uses > s.HistoryPerKey {
		k.uses, k.generation = 1, k.generation+1
	}
	return fmt.Sprintf("k%d.%d", k.number, k.generation)
}

func (c *kvClient) write(op *operation, finish func(func()), data []byte) {
	n := c.node
	c.s.ask(n, func() {
		n.propose(data, 0, func(o outcome, r *state.Result) {
			txn, isTxn := resultOf[*pb.TxnResponse](o, r)
			if op.value != "" && (!isTxn || txn.GetSucceeded()) {
				c.s.truth.wrote(op.value, o)
			}
			switch o {
			case notApplied:
				finish(func() { op.dropped = true })
			case applied:
				finish(func() { op.found = txn.GetSucceeded() })
			}
		})
	})
}

func (c *kvClient) get(op *operation, finish func(func())) {
	n := c.node
	c.s.ask(n, func() {
		n.read(func(r *reading) {
			v := r.view.Get(op.key)
			c.s.truth.answered(n, op.key, r.view.Revision(), v)
			finish(func() {
				if op.found = v != nil; op.found {
					op.got = string(v.Value)
				}
			})
		})
	})
}

// swap replaces the value that it reads locally, maybe an old one.
func (c *kvClient) swap(op *operation, finish func(func())) {
	n, s := c.node, c.s
	op.kind, op.value = opSwap, s.value()
	if v := n.mach.View().Get(op.key); v != nil {
		op.old = string(v.Value)
	}
	compare := &pb.Compare{
		Key: []byte(op.key), Target: pb.Compare_VALUE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_Value{Value: []byte(op.old)},
	}
	if op.old == "" {
		compare.Target, compare.TargetUnion = pb.Compare_CREATE, &pb.Compare_CreateRevision{CreateRevision: 0}
	}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(op.key), Value: []byte(op.value)},
	}}
	c.write(op, finish, encode(state.KindTxn, &pb.TxnRequest{Compare: []*pb.Compare{compare}, Success: []*pb.RequestOp{put}}))
}

// localRead reads what the member has, now or at an old revision.
func (c *kvClient) localRead(op *operation, finish func(func())) {
	n, s := c.node, c.s
	s.ask(n, func() {
		defer finish(func() {})
		view := n.mach.View()
		s.counts.LocalReads++
		floor := max(view.CompactRevision(), 1)
		s.truth.answered(n, op.key, view.Revision(), view.Get(op.key))
		if view.Revision() <= floor {
			return
		}
		s.counts.OldReads++
		revision := floor + s.rng.Int64N(view.Revision()-floor)
		resp, err := view.Range(&pb.RangeRequest{Key: []byte(op.key), Revision: revision})
		if err != nil {
			s.violate("read", "member %d can not read %q at %d: %v", n.id, op.key, revision, err)
		}
		var got *state.Version
		if kvs := resp.GetKvs(); len(kvs) > 0 {
			got = &state.Version{
				Key: string(kvs[0].GetKey()), Value: kvs[0].GetValue(), Create: kvs[0].GetCreateRevision(),
				Mod: kvs[0].GetModRevision(), Count: kvs[0].GetVersion(), Lease: kvs[0].GetLease(),
			}
			if want := s.truth.at(op.key, revision); want != nil {
				got.Sub = want.Sub // not in the response
			}
		}
		s.truth.answered(n, op.key, revision, got)
	})
}

// put writes a value that is in no history.
func (s *sim) put(n *node, key, value string, done func(outcome, int64)) {
	if !n.up {
		return
	}
	n.propose(encode(state.KindPut, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}), 0,
		func(o outcome, r *state.Result) {
			s.truth.wrote(value, o)
			done(o, 0)
		})
}

// burst writes many keys at once, so that batches fill.
func (s *sim) burst() {
	if !s.load {
		return
	}
	s.after(s.around(s.Burst), s.burst)
	n := s.pick()
	for range 1 + s.rng.IntN(s.BurstMax) {
		s.put(n, fmt.Sprint("b", s.rng.IntN(40)), s.value(), func(outcome, int64) {})
	}
}

// compact makes old revisions unreadable.
func (s *sim) compact() {
	if !s.load {
		return
	}
	s.after(s.around(s.Compactions), s.compact)
	n := s.pick()
	if !n.up {
		return
	}
	back := s.rng.Int64N(200)
	revision := max(n.mach.Revision()-back, 1)
	n.propose(encode(state.KindCompact, &pb.CompactionRequest{Revision: revision}), 0, func(o outcome, r *state.Result) {
		if o == applied && r != nil && r.Err == nil {
			s.counts.Compactions++
		}
	})
}
