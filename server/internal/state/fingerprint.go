package state

import (
	"crypto/sha256"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// FingerprintVersion names how fingerprints are computed. Members of two programs with different ones do not compare. It
// rises with every change of what a fingerprint covers, or members that are upgraded one by one accuse each other.
const FingerprintVersion = 1

// fingerprintsKept is how many fingerprints a machine remembers: as many as may be asked for at one time.
const fingerprintsKept = 4

// Fingerprint is a hash of the state after the entries below one.
type Fingerprint struct {
	Index uint64 // of the entry that asked for it
	Sum   [sha256.Size]byte
}

// prints is what follows the content of the state from change to change, so that a fingerprint costs the same however
// much there is. The sums are of hashes that are as good as random, so they do not depend on an order, and a row that is
// missing, or that is there twice, shows as much as a wrong one.
type prints struct {
	live, leases uint64
	taken        []Fingerprint // the newest, ascending
	accused      []Divergence  // the newest
	accusations  uint64        // since this machine was made
}

// row is the part of the sum that is a version's. What stands in it but the checksum, which covers the whole version, is
// there to tell apart versions of equal checksums.
func (v *Version) row() uint64 {
	return mix(mix(uint64(v.Mod)<<20^uint64(v.Sub)) ^ uint64(v.sum))
}

func (g *grant) row() uint64 { return mix(mix(uint64(g.id)) ^ uint64(g.ttl)) }

// replace follows a write: v takes the place of prev, which may be nil.
func (p *prints) replace(v, prev *Version) {
	if prev != nil && !prev.Deleted {
		p.live -= prev.row()
	}
	if !v.Deleted {
		p.live += v.row()
	}
}

// mix is the finisher of splitmix64: each bit of the result depends on all of n.
func mix(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// takeFingerprint remembers the fingerprint of the present state, before the entry being applied has changed anything
// else. A request of another version is of a program that computes it otherwise, and leaves nothing.
func (m *Machine) takeFingerprint(version int64) {
	if version != FingerprintVersion {
		return
	}
	p := &m.prints
	if len(p.taken) == fingerprintsKept {
		p.taken = append(p.taken[:0], p.taken[1:]...)
	}
	p.taken = append(p.taken, Fingerprint{Index: m.index, Sum: m.fingerprint()})
}

// Fingerprint returns what the entry at index asked for, if that is remembered.
func (m *Machine) Fingerprint(index uint64) (Fingerprint, bool) {
	for _, f := range m.prints.taken {
		if f.Index == index {
			return f, true
		}
	}
	return Fingerprint{}, false
}

// fingerprint covers what every member holds at one index: live keys and their leases, leases, members, alarms,
// users and roles, and the numbers. Superseded versions are not part of it, as each member removes them in its own time; HashKV compares those.
func (m *Machine) fingerprint() [sha256.Size]byte {
	d := digester{h: sha256.New()}
	d.numbers(int64(m.clusterID), m.revision, m.compact, int64(m.prints.live), int64(m.prints.leases))
	d.numbers(int64(m.size.Keys), m.size.Live, int64(len(m.leases)))
	m.digestMembers(&d)
	m.digestNotices(&d)
	m.auth.state.digest(&d)
	d.flush()
	return [sha256.Size]byte(d.h.Sum(nil))
}

func (m *Machine) digestNotices(d *digester) {
	d.numbers(int64(len(m.notices.Alarms)))
	for _, a := range m.notices.Alarms {
		d.numbers(int64(a.Type), int64(a.Member))
		d.flag(a.Raised)
	}
	d.text(m.notices.Downgrade)
}

// checkPrints compares the sums with what they are of.
func (m *Machine) checkPrints() error {
	var want prints
	m.live.Scan(func(_ string, v *Version) bool {
		want.replace(v, nil)
		return true
	})
	for _, g := range m.leases {
		want.leases += g.row()
	}
	if want.live != m.prints.live || want.leases != m.prints.leases {
		return broken("the sums are those of what is held", "%x, %x, not %x, %x",
			m.prints.live, m.prints.leases, want.live, want.leases)
	}
	return nil
}

// Divergence says that a member's fingerprint at the entry Index was not Sum, which most members have. As a command it
// raises a CORRUPT alarm about the member; Index is 0 when it was found by other means than a fingerprint.
type Divergence struct {
	Member, Index uint64
	Sum           []byte
}

// Field numbers, on disk for ever.
const (
	fieldDivergenceMember = 1
	fieldDivergenceIndex  = 2
	fieldDivergenceSum    = 3
)

func (d *Divergence) appendTo(b []byte) []byte {
	b = protowire.AppendTag(b, fieldDivergenceMember, protowire.VarintType)
	b = protowire.AppendVarint(b, d.Member)
	b = protowire.AppendTag(b, fieldDivergenceIndex, protowire.VarintType)
	b = protowire.AppendVarint(b, d.Index)
	b = protowire.AppendTag(b, fieldDivergenceSum, protowire.BytesType)
	return protowire.AppendBytes(b, d.Sum)
}

func (d *Divergence) decode(b []byte) error {
	return fields(b, func(num protowire.Number, n uint64, bytes []byte) error {
		switch num {
		case fieldDivergenceMember:
			d.Member = n
		case fieldDivergenceIndex:
			d.Index = n
		case fieldDivergenceSum:
			d.Sum = slices.Clone(bytes)
		}
		return nil
	})
}

// accuse raises the alarm, and remembers what it rests on.
func (m *Machine) accuse(d *Divergence) *pb.AlarmResponse {
	if d == nil {
		return &pb.AlarmResponse{Header: m.header()}
	}
	p := &m.prints
	if len(p.accused) == fingerprintsKept {
		p.accused = append(p.accused[:0], p.accused[1:]...)
	}
	p.accused = append(p.accused, *d)
	p.accusations++
	return m.alarm(&pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: d.Member, Alarm: pb.AlarmType_CORRUPT,
	}, true)
}

// Accusations counts the Divergences that were applied since the machine was made or loaded.
func (m *Machine) Accusations() uint64 { return m.prints.accusations }

// Acquitted tells whether the member, which is this one, has the fingerprint of the others after all, as one has that
// lost a wrong state with its memory and built it anew from the log.
func (m *Machine) Acquitted(member uint64) bool {
	for i := len(m.prints.accused) - 1; i >= 0; i-- {
		if d := m.prints.accused[i]; d.Member == member {
			f, ok := m.Fingerprint(d.Index)
			return ok && string(f.Sum[:]) == string(d.Sum)
		}
	}
	return false
}
