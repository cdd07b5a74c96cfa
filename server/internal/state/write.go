package state

import (
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// victimsKept bounds the working space that a range delete leaves for the next one, in keys.
const victimsKept = 4096

// pinnedBytes is how large a value is whose key a tombstone takes a copy of. The key and the value are the memory of one
// request, which would stay whole until a compaction.
const pinnedBytes = 64

// putResponse is a response and its header in one allocation.
type putResponse struct {
	response pb.PutResponse
	header   pb.ResponseHeader
}

// put checks and carries out a put that is a command of its own.
func (m *Machine) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := m.checkPut(r); err != nil {
		return nil, err
	}
	return m.putChecked(r), nil
}

// checkPut tells whether the put is possible. The lease is looked up first, as in etcd, whose error a request with both
// faults shows.
func (m *Machine) checkPut(r *pb.PutRequest) error {
	if id := r.GetLease(); id != 0 && m.leases[id] == nil {
		return ErrLeaseNotFound
	}
	if r.GetIgnoreValue() || r.GetIgnoreLease() {
		if _, ok := m.live.Get(text(r.GetKey())); !ok {
			return ErrKeyNotFound
		}
	}
	return nil
}

// putChecked carries out a put that was checked, alone or with its transaction. One descent of the tree both finds the version to supersede and puts the new one in its
// place, so the new one is completed when it is in the tree already. Its key is the request's memory, as its value is:
// the request was given to the machine.
func (m *Machine) putChecked(r *pb.PutRequest) *pb.PutResponse {
	v := &Version{Key: text(r.GetKey()), Value: r.GetValue(), Lease: r.GetLease(), Count: 1}
	m.stamp(v)
	m.counts.Puts++
	m.counts.PutBytes += int64(len(v.Key) + len(v.Value))
	a := new(putResponse)
	a.response.Header, a.header.Revision = &a.header, v.Mod

	prev, _ := m.live.Set(v.Key, v)
	if prev == nil {
		v.Create = v.Mod
		m.write(v, m.buried(v.Key))
		return &a.response
	}
	v.Create, v.Count = prev.Create, prev.Count+1
	if r.GetIgnoreValue() {
		v.Value = prev.Value
	}
	if r.GetIgnoreLease() {
		v.Lease = prev.Lease
	}
	if r.GetPrevKv() {
		a.response.PrevKv = prev.KeyValue()
	}
	m.write(v, prev)
	return &a.response
}

// buried takes the tombstone of a key out of the dead tree, nil when nothing is known of the key.
func (m *Machine) buried(key string) *Version {
	if m.dead.Len() == 0 {
		return nil
	}
	t, _ := m.dead.Delete(key)
	return t
}

// deleteRange deletes the keys of the range in order. Deleting nothing writes nothing.
func (m *Machine) deleteRange(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	victims := m.room.victims[:0]
	reader := m.reader()
	reader.ascend(boundsOf(r.GetKey(), r.GetRangeEnd()), func(v *Version) bool {
		victims = append(victims, v)
		return true
	})
	response := &pb.DeleteRangeResponse{Deleted: int64(len(victims))}
	if r.GetPrevKv() && len(victims) > 0 {
		response.PrevKvs = make([]*mvccpb.KeyValue, len(victims))
		for i, v := range victims {
			response.PrevKvs[i] = v.KeyValue()
		}
	}
	for _, v := range victims {
		m.delete(v)
	}
	clear(victims)
	if cap(victims) <= victimsKept {
		m.room.victims = victims[:0]
	}
	response.Header = m.header()
	return response
}

// delete writes a tombstone over a live version.
func (m *Machine) delete(prev *Version) {
	m.counts.Deletes++
	t := &Version{Key: prev.Key, Deleted: true}
	if len(prev.Value) >= pinnedBytes {
		t.Key = strings.Clone(prev.Key)
	}
	m.stamp(t)
	m.live.Delete(t.Key)
	m.dead.Set(t.Key, t)
	m.write(t, prev)
}

// stamp gives v the next revision of the command being applied.
func (m *Machine) stamp(v *Version) {
	v.Mod, v.Sub = m.revision+1, m.subs
	m.subs++
}

// write completes and records v, which is the newest version of its key and stands in its tree already; its revision is
// the highest of all. prev is the version that it supersedes, live or tombstone, nil for none. All writes and the
// loading of a checkpoint come through here.
func (m *Machine) write(v, prev *Version) {
	v.sum, m.room.checksum = v.checksum(m.room.checksum)
	m.prints.replace(v, prev)
	event := Event{Version: v}
	if prev != nil {
		// Only the newest version is appended to, so the space behind older is nobody else's.
		v.older = append(prev.older, prev.past())
		if !prev.Deleted {
			event.Prev = prev
			m.size.Keys--
			m.size.Live -= liveBytes(prev)
			m.size.History += historyBytes(len(prev.Key), len(prev.Value))
		}
	}
	if v.Deleted {
		m.size.History += historyBytes(len(v.Key), 0)
	} else {
		m.size.Keys++
		m.size.Live += liveBytes(v)
	}
	m.moveLease(v, event.Prev)
	if event.Prev != nil && event.Prev.Mod == v.Mod {
		event.Prev = m.before(v)
	}
	m.window.append(event)
	m.pending.versions = append(m.pending.versions, v)
}

// before returns what the key of v had before the revision of v, in which v is not its first write. A write that creates
// the key has nothing before it, even if the same revision deleted the key.
func (m *Machine) before(v *Version) *Version {
	if !v.Deleted && v.Create == v.Mod {
		return nil
	}
	first := len(v.older) - 1
	for first > 0 && v.older[first-1].main == v.Mod {
		first--
	}
	return m.window.snapshot(v.Mod).event(v.older[first].revision()).Prev
}

// liveBytes is what a live version counts for in Size.Live.
func liveBytes(v *Version) int64 { return int64(len(v.Key) + len(v.Value) + liveKeyBytes) }

// historyBytes is what a superseded version or a tombstone counts for in Size.History.
func historyBytes(key, value int) int64 {
	return int64(key + value + versionBytes + eventSlotBytes + pastBytes)
}
