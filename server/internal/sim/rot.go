package sim

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// rot is damage to a member's log that nobody has found yet.
type rot struct {
	sound  *disk.Mem // the disk as it was
	file   string
	offset int64
}

// rot crashes a member, and by the time that it starts again one bit of its log has changed. One member is enough: what
// is lost on more than a minority can not be had back.
func (s *sim) rot() {
	n := s.pick()
	if !n.up || s.counts.Rotted > 0 {
		return
	}
	s.crash(n, s.Outage)
	var logs []string
	for _, name := range n.disk.Names() {
		if strings.HasPrefix(name, logDir) {
			logs = append(logs, name)
		}
	}
	file := logs[s.rng.IntN(len(logs))]
	content, err := n.disk.ReadFile(file)
	if err != nil {
		panic(err)
	}
	offset, ok := s.flip(content)
	if !ok {
		return
	}
	s.counts.Rotted++
	s.note("rot", n.id, uint64(offset))
	n.rot = &rot{sound: n.disk.Clone(s.rng.Uint64()), file: file, offset: offset}
	if err := n.disk.WriteFile(file, content); err != nil {
		panic(err)
	}
}

// flip changes one bit in a sector that was written, and returns in which byte. It leaves no sector of zeros behind: that
// is what an unwritten one looks like.
func (s *sim) flip(content []byte) (offset int64, ok bool) {
	zeros := make([]byte, disk.SectorBytes)
	var written []int
	for at := 0; at+disk.SectorBytes <= len(content); at += disk.SectorBytes {
		if !bytes.Equal(content[at:at+disk.SectorBytes], zeros) {
			written = append(written, at)
		}
	}
	if len(written) == 0 {
		return 0, false
	}
	sector := written[s.rng.IntN(len(written))]
	at := sector + s.rng.IntN(disk.SectorBytes)
	content[at] ^= 1 << s.rng.IntN(8)
	return int64(at), !bytes.Equal(content[sector:sector+disk.SectorBytes], zeros)
}

// foundRot judges what recovery made of a damaged log: it refuses it and says where the damage is, or it has lost nothing
// that an undamaged log has. It returns true when the member can go on. One that can not stays down for good: it would be
// welcome only as a new member.
func (n *node) foundRot(rec wal.Recovery, refused error) bool {
	r, s := n.rot, n.s
	n.rot = nil
	var damage *wal.DamageError
	if errors.As(refused, &damage) {
		if damage.File != r.file || damage.Offset > r.offset {
			s.violate("log", "member %d: byte %d of %s is damaged; recovery says: %v", n.id, r.offset, r.file, refused)
		}
		s.counts.RotRefused++
		n.lost = true
		return false
	}
	c := n.walConfig()
	c.FS = r.sound
	log, want, err := wal.Open(c)
	if err != nil {
		s.violate("log", "member %d: recovery refuses a log that nobody damaged: %v", n.id, err)
	}
	if err := log.Close(); err != nil {
		panic(err)
	}
	if refused != nil || !sameRecovery(rec, want) {
		s.violate("log", "member %d: byte %d of %s is damaged; recovery goes on with %d entries of %d, and says: %v",
			n.id, r.offset, r.file, len(rec.Entries), len(want.Entries), refused)
	}
	return true
}

func sameRecovery(a, b wal.Recovery) bool {
	if a.Base != b.Base || len(a.Entries) != len(b.Entries) || !proto.Equal(a.HardState, b.HardState) {
		return false
	}
	for i := range a.Entries {
		if !proto.Equal(a.Entries[i], b.Entries[i]) {
			return false
		}
	}
	return true
}

// members returns those whose disks are sound.
func (s *sim) members() []*node {
	return slices.DeleteFunc(s.current(), func(n *node) bool { return n.lost })
}
