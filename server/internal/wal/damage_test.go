package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

const sector = disk.SectorBytes

// sample is a log of 20 batches in several segments, on a disk that tests damage.
type sample struct {
	config wal.Config
	disk   *disk.Mem         // as it was left; never opened
	files  map[string][]byte // the log's
	names  []string          // sorted: the mark, if any, comes last
	states []model           // after each batch
	acked  int               // batches that a synced Append returned for
	group  int               // batches before the last group: those that a later batch says were durable
	used   map[string]int64  // bytes of each file that are not spare room
	where  map[string][]int64
	number map[string]int // number of the batch in front of the first one of the segment
}

// ending is how a sample stopped.
type ending int

const (
	closed  ending = iota // cleanly
	killed                // every batch synced
	grouped               // the last batch's sync was the first one for the last three
	behind                // the last three batches were never synced
)

func newSample(t *testing.T, how ending) *sample {
	s := &sample{disk: disk.NewMem(1), files: map[string][]byte{}, states: []model{{}}, acked: 20, group: 19}
	s.config = config(s.disk, 12*sector)
	l, err := wal.Create(s.config, wal.Base{})
	require.NoError(t, err)
	for i := range 20 {
		b := wal.Batch{Entries: []*raftpb.Entry{entry(s.states[i].last().Index+1, uint64(1+i/8), bytes.Repeat([]byte{byte(i), 0x55}, 40+i))}}
		switch i {
		case 3, 11:
			b.HardState = hard(uint64(1+i/8), 1, uint64(i))
		case 6: // a sector of zeros within
			b.Entries = append(b.Entries, entry(b.Entries[0].GetIndex()+1, 1, make([]byte, 1300)))
		case 9:
			b.Entries[0] = entry(s.states[i].last().Index-1, 2, []byte("replaces two"))
		case 16:
			b.Entries = append(b.Entries, entry(b.Entries[0].GetIndex()+1, 3, bytes.Repeat([]byte{7}, 300)))
		case 19: // four sectors, one of them zeros
			b.Entries = append(b.Entries, entry(b.Entries[0].GetIndex()+1, 3, bytes.Repeat([]byte{7}, 300)),
				entry(b.Entries[0].GetIndex()+2, 3, make([]byte, 1100)))
		}
		sync := i < 17 || how == killed || how == closed || how == grouped && i == 19
		require.NoError(t, l.Append(b, sync))
		s.states = append(s.states, s.states[i].apply(b))
	}
	switch how {
	case closed:
		require.NoError(t, l.Close())
		s.group = 20
	case grouped:
		s.group = 17
	case behind:
		s.acked, s.group = 17, 17
	}
	s.read(t)
	return s
}

// read takes in the files and finds their batches by the format's description, not by the package's code.
func (s *sample) read(t *testing.T) {
	s.used, s.where, s.number = map[string]int64{}, map[string][]int64{}, map[string]int{}
	batches := -1 // that of Create has no number here
	for _, name := range s.disk.Names() {
		b, err := s.disk.ReadFile(name)
		require.NoError(t, err)
		if path.Base(name) == "spare.tmp" {
			continue
		}
		s.files[name], s.used[name] = b, int64(len(b))
		s.names = append(s.names, name)
		if !strings.HasSuffix(name, ".wal") {
			continue
		}
		s.number[name] = batches
		at := int64(sector)
		for at < int64(len(b)) && binary.LittleEndian.Uint32(b[at:]) == 0x4b4c4246 {
			if b[at+4] == 1 {
				s.where[name] = append(s.where[name], at)
				batches++
			}
			n := 76 + 8 + int64(binary.LittleEndian.Uint32(b[at+8:]))
			at += (n + sector - 1) / sector * sector
		}
		s.used[name] = at
	}
	require.Equal(t, 20, batches)
	require.GreaterOrEqual(t, len(s.where), 3)
	require.GreaterOrEqual(t, len(s.where[s.newest()]), 3)
}

func (s *sample) newest() string {
	segments := slices.DeleteFunc(slices.Clone(s.names), func(n string) bool { return !strings.HasSuffix(n, ".wal") })
	return segments[len(segments)-1]
}

// batchAt is the number of the batch that an offset belongs to, and where that begins; -1 for none.
func (s *sample) batchAt(name string, off int64) (number int, start int64) {
	offsets := s.where[name]
	i, ok := slices.BinarySearch(offsets, off)
	if !ok {
		i--
	}
	if i < 0 || off >= s.used[name] {
		return -1, 0
	}
	if i == len(offsets)-1 && name != s.newest() && off >= s.used[name]-sector { // the seal
		return -1, s.used[name] - sector
	}
	return s.number[name] + i + 1, offsets[i]
}

// outcome is what Open made of a damaged log.
type outcome struct {
	refused *wal.DamageError
	batches int // recovered: the index into states; -1 when it is none of them
	torn    *wal.Torn
}

// open opens the log with one file replaced; nil removes it. A log that was refused must not have been touched.
func (s *sample) open(t *testing.T, m *disk.Mem, name string, b []byte) outcome {
	if b == nil {
		require.NoError(t, m.Remove(name))
		require.NoError(t, m.SyncDir("/wal"))
	} else {
		require.NoError(t, m.WriteFile(name, b))
	}
	touched := 0
	m.SetFault(func(op disk.Op) error {
		switch op.Kind {
		case disk.OpList, disk.OpOpen, disk.OpSize, disk.OpRead, disk.OpClose:
		default:
			touched++
		}
		return nil
	})
	c := s.config
	c.FS = m
	l, rec, err := wal.Open(c)
	if err != nil {
		var damage *wal.DamageError
		if !errors.As(err, &damage) || touched > 0 {
			t.Fatalf("%d operations changed the disk, then %v", touched, err)
		}
		return outcome{refused: damage, batches: -1}
	}
	require.NoError(t, l.Close())
	o := outcome{torn: rec.Torn, batches: -1}
	for i, state := range s.states {
		if state.differs(rec, 0) == "" {
			o.batches = i
		}
	}
	return o
}

// damage opens the log once for every variant of every file, always on a fresh copy of the disk.
func (s *sample) damage(t *testing.T,
	variants func(name string, b []byte, try func(at int64, b []byte)),
	judge func(name string, at int64, o outcome),
) {
	for _, name := range s.names {
		m := s.disk.Clone(1)
		variants(name, s.files[name], func(at int64, b []byte) {
			o := s.open(t, m, name, b)
			judge(name, at, o)
			if o.refused != nil && b != nil {
				require.NoError(t, m.WriteFile(name, s.files[name]))
			} else {
				m = s.disk.Clone(1)
			}
		})
	}
}

// TestEveryBit flips every bit of the log, mark and spare room included: a log is refused, with the file and the place, or
// what it recovers is all there was. Nothing is lost and nothing passes for torn, not even in the last batch after a crash.
// How the log ended makes no difference to the segments before the newest, so those are flipped once.
func TestEveryBit(t *testing.T) {
	for name, how := range map[string]ending{"closed": closed, "killed": killed, "grouped": grouped, "behind": behind} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSample(t, how)
			var flips, refused, whole, swept int
			flip := func(name string, b []byte, try func(int64, []byte)) {
				if how != closed && name != s.newest() {
					return
				}
				b = slices.Clone(b)
				for at := range b {
					for bit := range 8 {
						if raced && bit != at%8 {
							continue
						}
						b[at] ^= 1 << bit
						try(int64(at), b)
						b[at] ^= 1 << bit
					}
				}
			}
			s.damage(t, flip, func(name string, at int64, o outcome) {
				flips++
				newest := name == s.newest()
				// A sector where the next batch would begin holds a header or nothing.
				if at < s.used[name] || newest && (how == closed || at < s.used[name]+sector) {
					refused++
					_, start := s.batchAt(name, at)
					if o.refused == nil || o.refused.File != name || o.refused.Offset > at || start > 0 && o.refused.Offset != start {
						t.Fatalf("%s at %d: %+v", name, at, o)
					}
					return
				}
				whole++
				switch {
				case o.batches != 20 || newest != (o.torn != nil):
					t.Fatalf("%s at %d: %+v", name, at, o)
				case newest: // bytes in the spare room are swept out
					require.Equal(t, s.used[name], o.torn.Offset)
					swept++
				}
			})
			t.Logf("%d flips: %d refused, %d recovered whole (%d swept), 0 lost", flips, refused, whole, swept)
			require.Equal(t, flips, refused+whole)
			require.Greater(t, refused, 3000)
			require.Greater(t, whole, 400)
			require.Equal(t, how != closed, swept > 400)
			if !raced {
				require.Greater(t, flips, 49_000)
			}
		})
	}
}

// TestEveryTruncation cuts every file at every length: files have all their bytes before they are part of the log, so a
// shorter one is refused.
func TestEveryTruncation(t *testing.T) {
	for name, how := range map[string]ending{"closed": closed, "killed": killed} {
		t.Run(name, func(t *testing.T) {
			s := newSample(t, how)
			cuts := 0
			cut := func(_ string, b []byte, try func(int64, []byte)) {
				for n := range b {
					if raced && n%7 > 0 {
						continue
					}
					try(int64(n), b[:n:n])
				}
			}
			s.damage(t, cut, func(name string, at int64, o outcome) {
				cuts++
				require.NotNil(t, o.refused, "%s cut at %d: %+v", name, at, o)
				require.Equal(t, name, o.refused.File)
			})
			t.Logf("%d cuts, all refused", cuts)
			require.Greater(t, cuts, int(fewer(15_000)))
		})
	}
}

// TestEveryZeroedSector: a sector of zeros is what a lost write looks like. Only in the last group and after a crash may it
// pass for one, and then nothing before that group is lost.
func TestEveryZeroedSector(t *testing.T) {
	for name, how := range map[string]ending{"closed": closed, "killed": killed, "grouped": grouped, "behind": behind} {
		t.Run(name, func(t *testing.T) {
			s := newSample(t, how)
			var refused, harmless, lost, torn, acked int
			zero := func(_ string, b []byte, try func(int64, []byte)) {
				for at := 0; at < len(b); at += sector {
					z := slices.Clone(b)
					clear(z[at : at+sector])
					try(int64(at), z)
				}
			}
			s.damage(t, zero, func(name string, at int64, o outcome) {
				number, _ := s.batchAt(name, at)
				was := s.files[name][at : at+sector]
				switch {
				case bytes.Equal(was, make([]byte, sector)): // spare room, or zeros that a batch has by right
					require.Equal(t, 20, o.batches, "%s at %d: %+v", name, at, o)
					require.Nil(t, o.torn)
					harmless++
				case number > s.group: // the ambiguity that is left
					require.Equal(t, number-1, o.batches, "%s at %d: %+v", name, at, o)
					lost++
					if o.torn != nil {
						torn++
					}
					if number <= s.acked {
						acked++
					}
				default:
					require.NotNil(t, o.refused, "%s at %d: %+v", name, at, o)
					require.Equal(t, name, o.refused.File)
					refused++
				}
			})
			t.Logf("%d sectors refused, %d were zero before, %d passed for a crash (%d reported as torn, %d of them in acknowledged batches)",
				refused, harmless, lost, torn, acked)
			require.Greater(t, refused, 20)
			require.Greater(t, harmless, 5)
			require.Equal(t, map[ending]int{closed: 0, killed: 3, grouped: 5, behind: 5}[how], lost)
			require.Equal(t, lost, torn, "other sectors of the group remain here")
			require.Equal(t, map[ending]int{closed: 0, killed: 3, grouped: 5, behind: 0}[how], acked)
		})
	}
}

// TestVanishedBatch is the worst of what is left: a last batch of one sector, zeroed after a crash, is gone without a trace.
// With a mark it is not.
func TestVanishedBatch(t *testing.T) {
	for _, how := range []ending{closed, killed} {
		m := disk.NewMem(1)
		c := config(m, 4096)
		l := mustCreate(t, c, wal.Base{})
		appendRun(t, l, 1, 3, 1, 100)
		if how == closed {
			require.NoError(t, l.Close())
		}
		name := "/wal/0000000000000001.wal"
		b, err := m.ReadFile(name)
		require.NoError(t, err)
		clear(b[4*sector : 5*sector])
		require.NoError(t, m.WriteFile(name, b))
		_, rec, err := wal.Open(c)
		if how == closed {
			var damage *wal.DamageError
			require.ErrorAs(t, err, &damage)
			require.Equal(t, &wal.DamageError{File: name, Offset: 4 * sector, Reason: damage.Reason}, damage)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, "0@0: 1@1 2@1", spans(rec))
		require.Nil(t, rec.Torn)
	}
}

// TestZeroedLength is the damage that etcd's log takes for its end: in any batch but the last group's it is refused, and
// there too, as the rest of the header was written.
func TestZeroedLength(t *testing.T) {
	for _, how := range []ending{closed, killed, behind} {
		s := newSample(t, how)
		lengths := 0
		length := func(name string, b []byte, try func(int64, []byte)) {
			for _, at := range s.where[name] {
				z := slices.Clone(b)
				clear(z[at+8 : at+12])
				if !bytes.Equal(z, b) { // Create's batch has none
					try(at, z)
				}
			}
		}
		s.damage(t, length, func(name string, at int64, o outcome) {
			lengths++
			require.Equal(t, &wal.DamageError{File: name, Offset: at, Reason: o.refused.Reason}, o.refused)
		})
		require.Equal(t, 20, lengths)
	}
}

// TestMisplacedSectors puts every sector of a log in the place of every other: a write that went astray is noticed
// wherever it landed, unless it landed as zeros in the last group after a crash.
func TestMisplacedSectors(t *testing.T) {
	for name, how := range map[string]ending{"closed": closed, "killed": killed} {
		t.Run(name, func(t *testing.T) {
			s := newSample(t, how)
			var sources [][]byte
			for _, n := range s.names {
				for at := 0; at < int(s.used[n]); at += sector {
					sources = append(sources, s.files[n][at:at+sector])
				}
			}
			var moves, refused, whole int
			move := func(_ string, b []byte, try func(int64, []byte)) {
				for at := 0; at < len(b); at += sector {
					for _, src := range sources {
						if bytes.Equal(src, b[at:at+sector]) || bytes.Equal(src, make([]byte, sector)) {
							continue
						}
						z := slices.Clone(b)
						copy(z[at:], src)
						try(int64(at), z)
					}
				}
			}
			s.damage(t, move, func(name string, at int64, o outcome) {
				moves++
				if o.refused != nil {
					refused++
					return
				}
				whole++
				require.Equal(t, 20, o.batches, "%s at %d: %+v", name, at, o)
				require.GreaterOrEqual(t, at, s.used[name])
			})
			t.Logf("%d moves: %d refused, %d recovered whole", moves, refused, whole)
			require.Greater(t, refused, 900)
			require.Greater(t, whole, 25)
		})
	}
}

// TestBatchOfAnotherHistory puts in a batch of the same number from a log that was the same up to the batch before: each
// batch continues one history only.
func TestBatchOfAnotherHistory(t *testing.T) {
	name := "/wal/0000000000000001.wal"
	var logs [2][]byte
	var m *disk.Mem
	for i := range logs {
		m = disk.NewMem(1)
		l := mustCreate(t, config(m, 8192), wal.Base{})
		appendRun(t, l, 1, 3, 1, 100)
		appendRun(t, l, 4, 4, uint64(2+i), 100)
		appendRun(t, l, 5, 6, 4, 100)
		b, err := m.ReadFile(name)
		require.NoError(t, err)
		logs[i] = b
	}
	fifth := 6 * sector
	require.Equal(t, logs[0][:fifth-sector], logs[1][:fifth-sector])
	copy(logs[0][fifth:fifth+sector], logs[1][fifth:])
	require.NoError(t, m.WriteFile(name, logs[0]))
	_, _, err := wal.Open(config(m, 8192))
	var damage *wal.DamageError
	require.ErrorAs(t, err, &damage)
	require.EqualValues(t, fifth, damage.Offset)
}

// TestMissingFiles removes each file. Only the oldest segment may be gone, as after Release: the log then says that it
// begins later, which its owner must hold against what it has in another form.
func TestMissingFiles(t *testing.T) {
	for _, how := range []ending{closed, killed} {
		s := newSample(t, how)
		var refused int
		s.damage(t, func(_ string, _ []byte, try func(int64, []byte)) { try(0, nil) }, func(name string, _ int64, o outcome) {
			switch {
			case name == s.names[0]:
				require.Nil(t, o.refused)
				require.Equal(t, -1, o.batches, "the base is another")
			case path.Base(name) == "closed":
				require.Equal(t, 20, o.batches)
			default:
				require.NotNil(t, o.refused, name)
				refused++
			}
		})
		require.GreaterOrEqual(t, refused, 2)
	}
	s := newSample(t, closed)
	m := s.disk.Clone(1)
	for _, n := range s.names {
		if strings.HasSuffix(n, ".wal") {
			require.NoError(t, m.Remove(n))
		}
	}
	c := s.config
	c.FS = m
	_, _, err := wal.Open(c)
	var damage *wal.DamageError
	require.ErrorAs(t, err, &damage, "the mark says that there was a log")
	_, err = wal.Create(c, wal.Base{})
	require.ErrorIs(t, err, wal.ErrExists)
}
