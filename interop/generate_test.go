package interop_test

import (
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// The universe is small, so that requests meet: most of them find something,
// and every kind of collision happens often.
const (
	universeKeys   = 24
	leaseIDs       = 8
	longLease      = 5000 // seconds; no lease may end by itself during a run
	maxNesting     = 3
	maxOpsInTxn    = 5
	revisionSlack  = 3 // how far outside the readable revisions a request may ask
	invalidPercent = 4
)

// generator makes requests. It follows the history only so far as to ask for
// revisions near the interesting ones.
type generator struct {
	rng      *rand.Rand
	revision int64          // the store's, after the last answer
	compact  int64          // the last compaction; 0 for none
	watchers int64          // made so far
	grants   map[string]int // of permissions to each role
}

func newGenerator(seed uint64) *generator {
	return &generator{rng: rand.New(rand.NewPCG(seed, 0x6c61746368)), revision: 1, grants: make(map[string]int)}
}

// percent is true p times in 100.
func (g *generator) percent(p int) bool { return g.rng.IntN(100) < p }

func universeKey(i int) string {
	// Nested names and a prefix of another key are in it on purpose.
	switch i % 4 {
	case 0:
		return fmt.Sprintf("k%02d", i)
	case 1:
		return fmt.Sprintf("k%02d/x", i-1)
	case 2:
		return fmt.Sprintf("dir/k%02d", i)
	default:
		return fmt.Sprintf("dir/k%02d\x00", i-1)
	}
}

func (g *generator) key() []byte {
	if g.percent(invalidPercent) && g.percent(30) {
		return nil
	}
	return []byte(universeKey(g.rng.IntN(universeKeys)))
}

// rangeEnd gives one key, prefixes, open and ordinary ranges, and now and then
// one that is empty or the wrong way round.
func (g *generator) rangeEnd(key []byte) []byte {
	switch g.rng.IntN(10) {
	case 0, 1, 2, 3:
		return nil
	case 4, 5:
		return prefixEnd(key)
	case 6:
		return []byte{0}
	default:
		return []byte(universeKey(g.rng.IntN(universeKeys)))
	}
}

func prefixEnd(key []byte) []byte {
	if len(key) == 0 {
		return []byte{0}
	}
	end := append([]byte(nil), key...)
	end[len(end)-1]++
	return end
}

// span is a range that surely holds a key of the universe: for watchers.
func (g *generator) span() (key, end []byte) {
	switch g.rng.IntN(5) {
	case 0:
		return []byte{0}, []byte{0}
	case 1:
		return []byte("dir/"), []byte("dir0")
	case 2:
		return []byte("k"), []byte{0}
	default:
		return []byte(universeKey(g.rng.IntN(universeKeys))), nil
	}
}

// readRevision is mostly "now", else anything from before the compaction to
// after the end.
func (g *generator) readRevision() int64 {
	if g.percent(60) {
		return 0
	}
	low := max(g.compact-revisionSlack, -1)
	return low + g.rng.Int64N(g.revision+revisionSlack-low+1)
}

func (g *generator) value() []byte {
	return fmt.Appendf(nil, "v%d", g.rng.IntN(6))
}

// leaseID is one of a few; granting a lease without one lets the server choose.
func (g *generator) leaseID() int64 { return 100 + g.rng.Int64N(leaseIDs) }

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: g.key(), Revision: g.readRevision()}
	r.RangeEnd = g.rangeEnd(r.Key)
	r.Serializable = g.percent(20)
	r.CountOnly = g.percent(8)
	r.KeysOnly = g.percent(12)
	if g.percent(30) {
		r.Limit = g.rng.Int64N(6)
	}
	if g.percent(25) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.rng.IntN(3))
		r.SortTarget = pb.RangeRequest_SortTarget(g.rng.IntN(5))
	}
	near := func() int64 { return max(g.revision-int64(g.rng.IntN(20)), 0) }
	if g.percent(6) {
		r.MinModRevision = near()
	}
	if g.percent(6) {
		r.MaxModRevision = near()
	}
	if g.percent(6) {
		r.MinCreateRevision = near()
	}
	if g.percent(6) {
		r.MaxCreateRevision = near()
	}
	if g.percent(1) {
		r.SortOrder = 7
	}
	return r
}

// streamRequest leaves out what etcd should refuse and does not: a sort target
// without an order, by which it sorts each chunk on its own.
func (g *generator) streamRequest() *pb.RangeRequest {
	r := g.rangeRequest()
	if r.SortOrder == pb.RangeRequest_NONE {
		r.SortTarget = pb.RangeRequest_KEY
	}
	return r
}

func (g *generator) putRequest() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.percent(40)}
	if g.percent(30) {
		r.Lease = g.leaseID()
	}
	if g.percent(8) {
		r.IgnoreValue = true
		if !g.percent(invalidPercent) {
			r.Value = nil
		}
	}
	if g.percent(8) {
		r.IgnoreLease = true
		if !g.percent(invalidPercent) {
			r.Lease = 0
		}
	}
	return r
}

func (g *generator) deleteRequest() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.percent(50)}
	// Mostly small ones: a store that is always empty tests nothing.
	if g.percent(30) {
		r.RangeEnd = g.rangeEnd(r.Key)
	}
	return r
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{
		Key:    g.key(),
		Result: pb.Compare_CompareResult(g.rng.IntN(4)),
		Target: pb.Compare_CompareTarget(g.rng.IntN(5)),
	}
	if g.percent(25) {
		c.RangeEnd = g.rangeEnd(c.Key)
	}
	rev := int64(0)
	if g.percent(70) {
		rev = max(g.revision-int64(g.rng.IntN(30)), 0)
	}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.rng.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: rev}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: rev}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	default:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.leaseID() * g.rng.Int64N(2)}
	}
	return c
}

func (g *generator) txnRequest(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range g.rng.IntN(3) {
		t.Compare = append(t.Compare, g.compare())
	}
	t.Success = g.operations(depth)
	t.Failure = g.operations(depth)
	return t
}

// operations mostly writes each key once, as etcd demands; sometimes it does
// not care.
func (g *generator) operations(depth int) []*pb.RequestOp {
	var out []*pb.RequestOp
	careful := !g.percent(10)
	order := g.rng.Perm(universeKeys)
	for i := range g.rng.IntN(maxOpsInTxn + 1) {
		var op pb.RequestOp
		switch p := g.rng.IntN(100); {
		case p < 35:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}
		case p < 70:
			put := g.putRequest()
			if careful {
				put.Key = []byte(universeKey(order[depth*maxOpsInTxn+i]))
				put.IgnoreValue, put.IgnoreLease = false, false
			}
			op.Request = &pb.RequestOp_RequestPut{RequestPut: put}
		case p < 85:
			del := g.deleteRequest()
			if careful {
				del.Key, del.RangeEnd = []byte(universeKey(order[depth*maxOpsInTxn+i])), nil
			}
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: del}
		case depth+1 < maxNesting:
			op.Request = &pb.RequestOp_RequestTxn{RequestTxn: g.txnRequest(depth + 1)}
		default:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}
		}
		out = append(out, &op)
	}
	return out
}

// request makes the next one; the kinds' shares are about those of real use,
// with more of what is rare and intricate.
func (g *generator) request() proto.Message {
	switch p := g.rng.IntN(100); {
	case p < 17:
		return g.rangeRequest()
	case p < 20:
		return streamRange{g.streamRequest()}
	case p < 42:
		return g.putRequest()
	case p < 48:
		return g.deleteRequest()
	case p < 68:
		return g.txnRequest(0)
	case p < 78:
		return g.leaseRequest()
	case p < 79:
		return &pb.CompactionRequest{Revision: g.compactRevision(), Physical: g.percent(50)}
	case p < 86:
		return g.watching()
	case p < 88:
		return g.login()
	case p < 98:
		return g.administration()
	default:
		return g.upkeep()
	}
}

func (g *generator) leaseRequest() proto.Message {
	id := g.leaseID()
	switch g.rng.IntN(11) {
	case 0, 1, 2:
		return &pb.LeaseGrantRequest{ID: id, TTL: longLease + g.rng.Int64N(100)}
	case 3:
		// One whose id the server chooses is revoked at once, so it may be short.
		return one[proto.Message](g, &pb.LeaseGrantRequest{TTL: longLease}, &pb.LeaseGrantRequest{}, &pb.LeaseGrantRequest{TTL: -1},
			&pb.LeaseGrantRequest{ID: id, TTL: 1 << 40}, &pb.LeaseGrantRequest{ID: -id, TTL: longLease})
	case 4, 5:
		return &pb.LeaseRevokeRequest{ID: id}
	case 6, 7:
		return &pb.LeaseTimeToLiveRequest{ID: id, Keys: g.percent(70)}
	case 8:
		return &pb.LeaseLeasesRequest{}
	default:
		return &pb.LeaseKeepAliveRequest{ID: id}
	}
}

func (g *generator) watching() proto.Message {
	switch p := g.rng.IntN(100); {
	case p < 35:
		return &pb.WatchCancelRequest{WatchId: g.oldWatcher()}
	case p < 42:
		return &pb.WatchProgressRequest{}
	default:
		return g.watchRequest()
	}
}

// compactRevision keeps a window of history, so that there is something to
// read in it.
func (g *generator) compactRevision() int64 {
	switch g.rng.IntN(10) {
	case 0:
		return g.revision + 1 + g.rng.Int64N(revisionSlack)
	case 1:
		return g.compact - g.rng.Int64N(revisionSlack)
	case 2:
		return g.revision - g.rng.Int64N(min(revisionSlack, g.revision))
	}
	return g.compact + g.rng.Int64N(max((g.revision-g.compact)/4, 1))
}

// oldWatcher is one of the latest watchers, alive or not.
func (g *generator) oldWatcher() int64 { return max(g.watchers-g.rng.Int64N(maxWatchers), 1) }

// watchRequest never takes the id of a watcher that is gone: etcd hands events
// that it had still queued for the old one to the new one. The id of a live one
// is taken now and then, and refused.
func (g *generator) watchRequest() *pb.WatchCreateRequest {
	r := &pb.WatchCreateRequest{PrevKv: g.percent(50), Fragment: g.percent(40), ProgressNotify: g.percent(20)}
	g.watchers++
	r.WatchId = g.watchers
	r.Key, r.RangeEnd = g.span()
	switch {
	case g.percent(40):
	case g.compact > 1 && g.percent(10):
		r.StartRevision = max(g.compact-1-g.rng.Int64N(revisionSlack), 1)
	case g.compact > 0 && g.percent(15):
		r.StartRevision = g.compact // whose previous values are gone
	case g.percent(95):
		// From the compaction to two revisions ahead: a flush writes two, so
		// every watcher sees something of it.
		low := max(g.compact, 1)
		r.StartRevision = low + g.rng.Int64N(g.revision+2-low+1)
	default:
		r.StartRevision = -1
	}
	switch g.rng.IntN(6) {
	case 0:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}
	case 1:
		r.Filters = []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}
	}
	if g.percent(invalidPercent) {
		r.Key, r.RangeEnd = []byte("b"), []byte("a")
	}
	return r
}
