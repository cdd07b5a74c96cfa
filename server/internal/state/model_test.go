package state

import (
	"bytes"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// model is the reference that the machine is compared with: the list of all that was ever written, and nothing else.
// Every question is answered by replaying the list. It shares no code with the machine.
type model struct {
	log     []written
	rev     int64
	compact int64
	leases  map[int64]int64 // id -> TTL
	members map[uint64]Member
	notices []LeaseEvent
}

type written struct {
	key                              string
	value                            []byte
	create, mod, sub, version, lease int64
	deleted                          bool
}

func newModel() *model {
	return &model{rev: 1, compact: -1, leases: map[int64]int64{}, members: map[uint64]Member{}}
}

func (w written) kv() *mvccpb.KeyValue {
	return &mvccpb.KeyValue{Key: []byte(w.key), Value: w.value, CreateRevision: w.create, ModRevision: w.mod,
		Version: w.version, Lease: w.lease}
}

// keysAt is the store at a revision, sorted by key.
func (m *model) keysAt(rev int64) []written {
	at := map[string]written{}
	for _, w := range m.log {
		switch {
		case w.mod > rev:
		case w.deleted:
			delete(at, w.key)
		default:
			at[w.key] = w
		}
	}
	var list []written
	for _, w := range at {
		list = append(list, w)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].key < list[j].key })
	return list
}

func within(key string, from, end []byte) bool {
	switch {
	case len(end) == 0:
		return key == string(from)
	case string(end) == "\x00":
		return key >= string(from)
	default:
		return key >= string(from) && key < string(end)
	}
}

func (m *model) inRange(rev int64, from, end []byte) []written {
	var list []written
	for _, w := range m.keysAt(rev) {
		if within(w.key, from, end) {
			list = append(list, w)
		}
	}
	return list
}

// cur is the current revision as a command sees it that has or has not written yet.
func (m *model) cur() int64 {
	if len(m.log) > 0 && m.log[len(m.log)-1].mod > m.rev {
		return m.rev + 1
	}
	return m.rev
}

func (m *model) readRange(q *pb.RangeRequest) (*pb.RangeResponse, error) {
	rev := q.Revision
	if rev > m.cur() {
		return nil, ErrFutureRevision
	}
	if rev <= 0 {
		rev = m.cur()
	}
	if rev < m.compact {
		return nil, ErrCompacted
	}
	list := m.inRange(rev, q.Key, q.RangeEnd)
	r := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: m.cur()}, Count: int64(len(list))}
	if q.CountOnly {
		return r, nil
	}
	filters := q.MinModRevision != 0 || q.MaxModRevision != 0 || q.MinCreateRevision != 0 || q.MaxCreateRevision != 0
	byKey := q.SortTarget == pb.RangeRequest_KEY
	// etcd fetches limit+1 keys when the order asked for is none at all, and only then sorts by the target.
	if q.SortOrder == pb.RangeRequest_NONE && !filters && q.Limit > 0 && int64(len(list)) > q.Limit+1 {
		list = list[:q.Limit+1]
	}
	var kept []written
	for _, w := range list {
		if q.MinModRevision != 0 && w.mod < q.MinModRevision || q.MaxModRevision != 0 && w.mod > q.MaxModRevision ||
			q.MinCreateRevision != 0 && w.create < q.MinCreateRevision ||
			q.MaxCreateRevision != 0 && w.create > q.MaxCreateRevision {
			continue
		}
		kept = append(kept, w)
	}
	less := map[pb.RangeRequest_SortTarget]func(a, b written) bool{
		pb.RangeRequest_KEY:     func(a, b written) bool { return a.key < b.key },
		pb.RangeRequest_VERSION: func(a, b written) bool { return a.version < b.version },
		pb.RangeRequest_CREATE:  func(a, b written) bool { return a.create < b.create },
		pb.RangeRequest_MOD:     func(a, b written) bool { return a.mod < b.mod },
		pb.RangeRequest_VALUE:   func(a, b written) bool { return bytes.Compare(a.value, b.value) < 0 },
	}[q.SortTarget]
	switch {
	case q.SortOrder == pb.RangeRequest_ASCEND, q.SortOrder == pb.RangeRequest_NONE && !byKey:
		sort.SliceStable(kept, func(i, j int) bool { return less(kept[i], kept[j]) })
	case q.SortOrder == pb.RangeRequest_DESCEND:
		sort.SliceStable(kept, func(i, j int) bool { return less(kept[j], kept[i]) })
	}
	if q.Limit > 0 && int64(len(kept)) > q.Limit {
		kept, r.More = kept[:q.Limit], true
	}
	for _, w := range kept {
		kv := w.kv()
		if q.KeysOnly {
			kv.Value = nil
		}
		r.Kvs = append(r.Kvs, kv)
	}
	return r, nil
}

func (m *model) find(key []byte) *written {
	for _, w := range m.keysAt(m.cur()) {
		if w.key == string(key) {
			return &w
		}
	}
	return nil
}

func (m *model) write(w written) {
	w.mod = m.rev + 1
	for _, o := range m.log {
		if o.mod == w.mod {
			w.sub++
		}
	}
	if !w.deleted && w.create == 0 {
		w.create = w.mod
	}
	m.log = append(m.log, w)
}

func (m *model) canPut(q *pb.PutRequest) error {
	if _, ok := m.leases[q.Lease]; q.Lease != 0 && !ok {
		return ErrLeaseNotFound
	}
	if (q.IgnoreValue || q.IgnoreLease) && m.find(q.Key) == nil {
		return ErrKeyNotFound
	}
	return nil
}

func (m *model) put(q *pb.PutRequest) *pb.PutResponse {
	w := written{key: string(q.Key), value: q.Value, lease: q.Lease, version: 1}
	r := &pb.PutResponse{}
	if old := m.find(q.Key); old != nil {
		w.create, w.version = old.create, old.version+1
		if q.IgnoreValue {
			w.value = old.value
		}
		if q.IgnoreLease {
			w.lease = old.lease
		}
		if q.PrevKv {
			r.PrevKv = old.kv()
		}
	}
	m.write(w)
	r.Header = &pb.ResponseHeader{Revision: m.rev + 1}
	return r
}

func (m *model) deleteRange(q *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	r := &pb.DeleteRangeResponse{}
	for _, w := range m.inRange(m.cur(), q.Key, q.RangeEnd) {
		if q.PrevKv {
			r.PrevKvs = append(r.PrevKvs, w.kv())
		}
		m.write(written{key: w.key, deleted: true})
		r.Deleted++
	}
	r.Header = &pb.ResponseHeader{Revision: m.cur()}
	return r
}

// chosen is a transaction with its outcome, and the nested ones in its branch.
type chosen struct {
	ok     bool
	ops    []*pb.RequestOp
	nested map[int]*chosen
}

func (m *model) choose(q *pb.TxnRequest) *chosen {
	c := &chosen{ok: true, ops: q.Success, nested: map[int]*chosen{}}
	for _, cmp := range q.Compare {
		c.ok = c.ok && m.compares(cmp)
	}
	if !c.ok {
		c.ops = q.Failure
	}
	for i, op := range c.ops {
		if n := op.GetRequestTxn(); n != nil {
			c.nested[i] = m.choose(n)
		}
	}
	return c
}

func (m *model) compares(c *pb.Compare) bool {
	list := m.inRange(m.cur(), c.Key, c.RangeEnd)
	if len(list) == 0 {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		list = []written{{}}
	}
	for _, w := range list {
		var a, b int64
		switch c.Target {
		case pb.Compare_VERSION:
			a, b = w.version, c.GetVersion()
		case pb.Compare_CREATE:
			a, b = w.create, c.GetCreateRevision()
		case pb.Compare_MOD:
			a, b = w.mod, c.GetModRevision()
		case pb.Compare_LEASE:
			a, b = w.lease, c.GetLease()
		case pb.Compare_VALUE:
			a = int64(bytes.Compare(w.value, c.GetValue()))
		}
		holds := map[pb.Compare_CompareResult]bool{
			pb.Compare_EQUAL: a == b, pb.Compare_NOT_EQUAL: a != b, pb.Compare_GREATER: a > b, pb.Compare_LESS: a < b,
		}[c.Result]
		if !holds {
			return false
		}
	}
	return true
}

func (m *model) possible(c *chosen) error {
	for i, op := range c.ops {
		var err error
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			switch rev := o.RequestRange.Revision; {
			case rev > m.cur():
				err = ErrFutureRevision
			case rev != 0 && rev < m.compact:
				err = ErrCompacted
			}
		case *pb.RequestOp_RequestPut:
			err = m.canPut(o.RequestPut)
		case *pb.RequestOp_RequestTxn:
			err = m.possible(c.nested[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) execute(c *chosen) *pb.TxnResponse {
	r := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: c.ok}
	for i, op := range c.ops {
		out := &pb.ResponseOp{}
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			got, err := m.readRange(o.RequestRange)
			if err != nil {
				panic(err)
			}
			out.Response = &pb.ResponseOp_ResponseRange{ResponseRange: got}
		case *pb.RequestOp_RequestPut:
			out.Response = &pb.ResponseOp_ResponsePut{ResponsePut: m.put(o.RequestPut)}
		case *pb.RequestOp_RequestDeleteRange:
			out.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: m.deleteRange(o.RequestDeleteRange)}
		case *pb.RequestOp_RequestTxn:
			out.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: m.execute(c.nested[i])}
		}
		r.Responses = append(r.Responses, out)
	}
	return r
}

// close ends a command or a part of one: what it wrote, if anything, is a revision.
func (m *model) close() { m.rev = m.cur() }

// apply does what Machine.Apply does for one command.
func (m *model) apply(c Command) (proto.Message, error) {
	defer m.close()
	switch q := c.Request.(type) {
	case *pb.PutRequest:
		if err := m.canPut(q); err != nil {
			return nil, err
		}
		return m.put(q), nil
	case *pb.DeleteRangeRequest:
		return m.deleteRange(q), nil
	case *pb.TxnRequest:
		c := m.choose(q)
		if err := m.possible(c); err != nil {
			return nil, err
		}
		r := m.execute(c)
		r.Header.Revision = m.cur()
		return r, nil
	case *pb.CompactionRequest:
		if q.Revision <= m.compact {
			return nil, ErrCompacted
		}
		if q.Revision > m.rev {
			return nil, ErrFutureRevision
		}
		m.compact = q.Revision
		return &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: m.rev}}, nil
	default:
		return m.applyLease(c)
	}
}

func (m *model) applyLease(c Command) (proto.Message, error) {
	switch q := c.Request.(type) {
	case *pb.LeaseGrantRequest:
		_, exists := m.leases[q.ID]
		switch {
		case q.ID == 0:
			return nil, ErrLeaseNotFound
		case q.TTL > 9_000_000_000:
			return nil, ErrLeaseTTLTooLarge
		case exists:
			return nil, ErrLeaseExists
		}
		ttl := max(q.TTL, 1)
		m.leases[q.ID] = ttl
		m.notices = append(m.notices, LeaseEvent{ID: q.ID, TTL: ttl})
		return &pb.LeaseGrantResponse{Header: &pb.ResponseHeader{Revision: m.rev}, ID: q.ID, TTL: ttl}, nil
	case *pb.LeaseRevokeRequest:
		if _, ok := m.leases[q.ID]; !ok {
			return nil, ErrLeaseNotFound
		}
		m.end(q.ID)
	case *ExpireLeases:
		for _, id := range q.IDs {
			if _, ok := m.leases[id]; ok {
				m.end(id)
				m.close()
			}
		}
	case *Member:
		old, ok := m.members[q.ID]
		if !ok {
			return nil, ErrMemberNotFound
		}
		old.Name, old.ClientURLs = q.Name, q.ClientURLs
		m.members[q.ID] = old
		return &pb.MemberUpdateResponse{Header: &pb.ResponseHeader{Revision: m.rev}}, nil
	}
	return &pb.LeaseRevokeResponse{Header: &pb.ResponseHeader{Revision: m.cur()}}, nil
}

func (m *model) end(id int64) {
	m.notices = append(m.notices, LeaseEvent{ID: id, TTL: m.leases[id], Revoked: true})
	for _, w := range m.keysAt(m.rev) {
		if w.lease == id {
			m.write(written{key: w.key, deleted: true})
		}
	}
	delete(m.leases, id)
}

// retained is what compaction leaves: of each key all above the compact revision, and the newest not above it if that
// is a value or was written exactly there.
func (m *model) retained() map[Revision]written {
	kept := map[Revision]written{}
	newest := map[string]written{}
	for _, w := range m.log {
		if w.mod > m.compact {
			kept[Revision{w.mod, w.sub}] = w
		} else {
			newest[w.key] = w
		}
	}
	for _, w := range newest {
		if !w.deleted || w.mod == m.compact {
			kept[Revision{w.mod, w.sub}] = w
		}
	}
	return kept
}
