package client

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// fakeStore is the state that the members of a fake cluster share: one list of events, from which everything is read
// anew each time. Slow, and simple enough to be believed.
type fakeStore struct {
	reign atomic.Pointer[fakeReign] // nil: no answer tells a term

	mu        sync.Mutex // protects everything
	changed   chan struct{}
	rev       int64
	compacted int64
	events    []*mvccpb.Event
	leases    map[int64]*fakeLease
}

type fakeLease struct {
	ttl   int64
	timer *time.Timer
}

func newFakeStore() *fakeStore {
	return &fakeStore{rev: 1, changed: make(chan struct{}), leases: make(map[int64]*fakeLease)}
}

func fakeIn(key, end, k []byte) bool {
	switch {
	case len(end) == 0:
		return bytes.Equal(key, k)
	case len(end) == 1 && end[0] == 0:
		return bytes.Compare(k, key) >= 0
	}
	return bytes.Compare(k, key) >= 0 && bytes.Compare(k, end) < 0
}

// at returns the keys of a range at a revision, in order.
func (s *fakeStore) at(rev int64, key, end []byte) []*mvccpb.KeyValue {
	live := make(map[string]*mvccpb.KeyValue)
	for _, ev := range s.events {
		if ev.Kv.ModRevision > rev || !fakeIn(key, end, ev.Kv.Key) {
			continue
		}
		delete(live, string(ev.Kv.Key))
		if ev.Type == mvccpb.Event_PUT {
			live[string(ev.Kv.Key)] = ev.Kv
		}
	}
	var out []*mvccpb.KeyValue
	for _, k := range slices.Sorted(maps.Keys(live)) {
		out = append(out, live[k])
	}
	return out
}

// write is a transaction in the making: the revision that its writes get.
type fakeWrite struct {
	s   *fakeStore
	rev int64
}

func (s *fakeStore) begin() *fakeWrite { return &fakeWrite{s: s, rev: s.rev + 1} }

// end makes what was written visible.
func (w *fakeWrite) end() {
	if n := len(w.s.events); n > 0 && w.s.events[n-1].Kv.ModRevision == w.rev {
		w.s.rev = w.rev
		close(w.s.changed)
		w.s.changed = make(chan struct{})
	}
}

func (w *fakeWrite) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	s := w.s
	if r.Lease != 0 && s.leases[r.Lease] == nil {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: w.rev, ModRevision: w.rev, Version: 1}
	if old := s.at(w.rev, r.Key, nil); len(old) > 0 {
		kv.CreateRevision, kv.Version = old[0].CreateRevision, old[0].Version+1
		if r.IgnoreLease {
			kv.Lease = old[0].Lease
		}
	}
	s.events = append(s.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv})
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: w.rev}}, nil
}

func (w *fakeWrite) delete(key, end []byte) *pb.DeleteRangeResponse {
	kvs := w.s.at(w.rev, key, end)
	for _, kv := range kvs {
		gone := &mvccpb.KeyValue{Key: kv.Key, ModRevision: w.rev}
		w.s.events = append(w.s.events, &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: gone})
	}
	return &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{Revision: w.rev}, Deleted: int64(len(kvs))}
}

func (w *fakeWrite) get(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	s, rev := w.s, r.Revision
	switch {
	case rev > s.rev:
		return nil, rpctypes.ErrGRPCFutureRev
	case rev > 0 && rev < s.compacted:
		return nil, rpctypes.ErrGRPCCompacted
	case rev == 0:
		rev = w.rev // what the transaction itself has written, and everything before
	}
	kvs := s.at(rev, r.Key, r.RangeEnd)
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: s.rev}, Count: int64(len(kvs))}
	if r.Limit > 0 && int64(len(kvs)) > r.Limit {
		kvs, resp.More = kvs[:r.Limit], true
	}
	if !r.CountOnly {
		resp.Kvs = kvs
	}
	return resp, nil
}

func (w *fakeWrite) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		resp.Succeeded = resp.Succeeded && w.s.holds(c)
	}
	ops := r.Success
	if !resp.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		var out pb.ResponseOp
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			r, err := w.get(op.RequestRange)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: r}
		case *pb.RequestOp_RequestPut:
			r, err := w.put(op.RequestPut)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: r}
		case *pb.RequestOp_RequestDeleteRange:
			r := w.delete(op.RequestDeleteRange.Key, op.RequestDeleteRange.RangeEnd)
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: r}
		case *pb.RequestOp_RequestTxn:
			r, err := w.txn(op.RequestTxn)
			if err != nil {
				return nil, err
			}
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: r}
		}
		resp.Responses = append(resp.Responses, &out)
	}
	return resp, nil
}

// holds judges a condition on the state before the transaction. Only what the tests use: ModRevision, CreateRevision.
func (s *fakeStore) holds(c *pb.Compare) bool {
	kvs := s.at(s.rev, c.Key, c.RangeEnd)
	if len(kvs) == 0 {
		kvs = []*mvccpb.KeyValue{{}}
	}
	for _, kv := range kvs {
		have, want := kv.ModRevision, c.GetModRevision()
		if c.Target == pb.Compare_CREATE {
			have, want = kv.CreateRevision, c.GetCreateRevision()
		}
		switch c.Result {
		case pb.Compare_EQUAL:
			if have != want {
				return false
			}
		case pb.Compare_LESS:
			if have >= want {
				return false
			}
		case pb.Compare_GREATER:
			if have <= want {
				return false
			}
		default:
			panic(fmt.Sprint("not faked: ", c))
		}
	}
	return true
}

func (s *fakeStore) grant(r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if s.leases[r.ID] != nil {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	l := &fakeLease{ttl: r.TTL}
	l.timer = time.AfterFunc(seconds(r.TTL), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.revoke(r.ID)
	})
	s.leases[r.ID] = l
	return &pb.LeaseGrantResponse{ID: r.ID, TTL: r.TTL}, nil
}

func (s *fakeStore) revoke(id int64) bool {
	l := s.leases[id]
	if l == nil {
		return false
	}
	l.timer.Stop()
	delete(s.leases, id)
	w := s.begin()
	for _, kv := range s.at(s.rev, []byte{0}, []byte{0}) {
		if kv.Lease == id {
			w.delete(kv.Key, nil)
		}
	}
	w.end()
	return true
}

// renew returns the TTL; zero when there is no such lease.
func (s *fakeStore) renew(id int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[id]
	if l == nil {
		return 0
	}
	l.timer.Reset(seconds(l.ttl))
	return l.ttl
}
