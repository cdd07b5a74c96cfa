package state

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// putResponse is a response and its header in one allocation.
type putResponse struct {
	response pb.PutResponse
	header   pb.ResponseHeader
}

// put checks and carries out a put that is a command of its own.
func (m *Machine) put(r *pb.PutRequest) (*pb.PutResponse, error) {
	prev, _ := m.live.Get(text(r.GetKey()))
	if err := m.checkPut(r, prev); err != nil {
		return nil, err
	}
	return m.putOver(r, prev), nil
}

// checkPut tells whether the put is possible over prev, the key's live version. The lease is looked up first, as in
// etcd, whose error a request with both faults shows.
func (m *Machine) checkPut(r *pb.PutRequest, prev *Version) error {
	if id := r.GetLease(); id != 0 && m.leases[id] == nil {
		return ErrLeaseNotFound
	}
	if prev == nil && (r.GetIgnoreValue() || r.GetIgnoreLease()) {
		return ErrKeyNotFound
	}
	return nil
}

// putOver writes a key whose live version is prev, nil when it does not exist.
func (m *Machine) putOver(r *pb.PutRequest, prev *Version) *pb.PutResponse {
	a := new(putResponse)
	a.response.Header = &a.header
	v := &Version{Value: r.GetValue(), Lease: r.GetLease(), Count: 1}
	if prev != nil {
		v.Key, v.Create, v.Count = prev.Key, prev.Create, prev.Count+1
		if r.GetIgnoreValue() {
			v.Value = prev.Value
		}
		if r.GetIgnoreLease() {
			v.Lease = prev.Lease
		}
		if r.GetPrevKv() {
			a.response.PrevKv = prev.KeyValue()
		}
	}
	m.stamp(v)
	if prev == nil {
		v.Create = v.Mod
		prev = m.tombstone(r.GetKey())
		if prev != nil {
			v.Key = prev.Key
		} else {
			v.Key = string(r.GetKey())
		}
	}
	m.write(v, prev)
	a.header.Revision = v.Mod
	return &a.response
}

// tombstone returns the tombstone of a key that is not live, nil when nothing is known of it.
func (m *Machine) tombstone(key []byte) *Version {
	if m.dead.Len() == 0 {
		return nil
	}
	t, _ := m.dead.Get(text(key))
	return t
}

// deleteRange deletes the keys of the range in order. Deleting nothing writes nothing.
func (m *Machine) deleteRange(r *pb.DeleteRangeRequest) *pb.DeleteRangeResponse {
	victims := m.victims[:0]
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
	m.victims = victims[:0]
	response.Header = m.header()
	return response
}

// delete writes a tombstone over a live version.
func (m *Machine) delete(prev *Version) {
	t := &Version{Key: prev.Key, Deleted: true}
	m.stamp(t)
	m.write(t, prev)
}

// stamp gives v the next revision of the command being applied.
func (m *Machine) stamp(v *Version) {
	v.Mod, v.Sub = m.revision+1, m.subs
	m.subs++
}

// write makes v, whose revision is the highest of all, the newest version of its key; prev is the one that it
// supersedes, live or tombstone, nil for none. All writes and the loading of a checkpoint come through here.
func (m *Machine) write(v, prev *Version) {
	v.sum, m.scratch = v.checksum(m.scratch)
	event := Event{Version: v}
	if prev != nil {
		// Only the newest version is appended to, so the space behind older is nobody else's.
		v.older = append(prev.older, prev.past())
	}
	if prev != nil && !prev.Deleted {
		event.Prev = prev
		m.size.Live -= liveBytes(prev)
		m.size.History += historyBytes(len(prev.Key), len(prev.Value))
	}
	switch {
	case v.Deleted:
		if event.Prev != nil {
			m.live.Delete(v.Key)
			m.size.Keys--
		}
		m.dead.Set(v.Key, v)
		m.size.History += historyBytes(len(v.Key), 0)
	default:
		if event.Prev == nil {
			m.size.Keys++
			if prev != nil {
				m.dead.Delete(v.Key)
			}
		}
		m.live.Set(v.Key, v)
		m.size.Live += liveBytes(v)
	}
	m.moveLease(v, event.Prev)
	m.window.append(event)
	m.pending.versions = append(m.pending.versions, v)
}

// liveBytes is what a live version counts for in Size.Live.
func liveBytes(v *Version) int64 { return int64(len(v.Key) + len(v.Value) + liveKeyBytes) }

// historyBytes is what a superseded version or a tombstone counts for in Size.History.
func historyBytes(key, value int) int64 {
	return int64(key + value + versionBytes + eventSlotBytes + pastBytes)
}
