package state

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// endOfKeys ends the keys in the digest: no key has it for a length.
const endOfKeys = -1

// Digest returns a hash of the whole logical state: equal on members that applied the same log up to the same index,
// whatever each has swept or archived. Live values go in whole, superseded ones by the checksum taken when they were
// written, since they may have left memory. It reads all live data: some hundred MiB a second.
func (m *Machine) Digest() [32]byte {
	d := digester{h: sha256.New()}
	d.numbers(int64(m.clusterID), int64(m.index), int64(m.term), m.revision, m.compact)
	merge(m.live, m.dead, "", func(v *Version) bool {
		n, all := v.discarded(m.compact)
		if all {
			return true
		}
		d.text(v.Key)
		d.numbers(v.Create, v.Mod, v.Sub, v.Count, v.Lease, int64(len(v.older)-n), int64(len(v.Value)))
		d.flag(v.Deleted)
		d.b = append(d.b, v.Value...)
		for _, p := range v.older[n:] {
			d.numbers(p.main, int64(p.sub), int64(p.sum))
		}
		d.flush()
		return true
	})
	d.numbers(endOfKeys, int64(len(m.leases)), int64(len(m.members)))
	// Not the index that granted a lease: it tells how commands were packed, which is not part of the state.
	for _, l := range m.Leases() {
		d.numbers(l.ID, l.TTL, int64(l.Keys))
	}
	m.digestMembers(&d)
	m.digestNotices(&d)
	m.auth.state.digest(&d)
	d.flush()
	return [32]byte(d.h.Sum(nil))
}

func (m *Machine) digestMembers(d *digester) {
	for _, member := range m.members {
		d.numbers(int64(member.ID))
		d.text(member.Name)
		d.flag(member.Learner)
		d.texts(member.PeerURLs)
		d.texts(member.ClientURLs)
	}
	d.numbers(int64(len(m.removed)))
	for _, id := range m.removed {
		d.numbers(int64(id))
	}
}

// digester writes values so that no two different sequences give the same bytes. It gathers before it hashes: the hash
// is slow on small writes.
type digester struct {
	h hash.Hash
	b []byte
}

func (d *digester) numbers(ns ...int64) {
	for _, n := range ns {
		d.b = binary.LittleEndian.AppendUint64(d.b, uint64(n))
	}
}

func (d *digester) flag(v bool) {
	if v {
		d.numbers(1)
	} else {
		d.numbers(0)
	}
}

func (d *digester) text(s string) {
	d.numbers(int64(len(s)))
	d.b = append(d.b, s...)
}

func (d *digester) texts(list []string) {
	d.numbers(int64(len(list)))
	for _, s := range list {
		d.text(s)
	}
}

func (d *digester) flush() {
	d.h.Write(d.b) // a hash never fails
	d.b = d.b[:0]
}
