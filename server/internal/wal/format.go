package wal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// The format; README.md has it as tables. All integers are little-endian, all checksums CRC32C.
const (
	formatVersion = 1

	sectorBytes  = disk.SectorBytes // what a disk writes whole; every batch begins on one and shares none
	headerBytes  = sectorBytes      // of a segment
	headerCRCAt  = headerBytes - 4  // in all versions of the format, as are magic and version
	frameHeader  = 76
	frameTrailer = 8
	sealBytes    = sectorBytes
	entryHeader  = 16

	frameMagic   = 0x4b4c4246 // "FBLK"
	trailerMagic = 0x444e4546 // "FEND"; never zero, so that no last sector of a batch is

	kindBatch = 1 // what one Append wrote
	kindSeal  = 2 // the last frame of a segment that another one follows

	frameHasHardState = 1 << 0
	segmentIsReset    = 1 << 0
)

var (
	segmentMagic = [8]byte{'L', 'A', 'T', 'C', 'H', 'W', 'A', 'L'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// segmentHeader is the first sector of a segment. It is written with the segment's first batch, once.
type segmentHeader struct {
	identity Identity
	number   uint64 // of the segment, from 1
	batch    uint64 // number of its first batch
	base     Base   // all its entries are above; where the log is cut, or restarted, before they are added
	reset    bool   // restarted: what older segments hold is forgotten
	salt     uint64
	size     int64  // length of the file
	previous uint32 // chain value before this segment
	chain    uint32 // the header's own checksum: the chain value after it
}

func (h *segmentHeader) encode(b []byte) {
	clear(b[:headerBytes])
	copy(b, segmentMagic[:])
	le := binary.LittleEndian
	le.PutUint32(b[8:], formatVersion)
	if h.reset {
		le.PutUint32(b[12:], segmentIsReset)
	}
	le.PutUint64(b[16:], h.identity.ClusterID)
	le.PutUint64(b[24:], h.identity.MemberID)
	le.PutUint64(b[32:], h.number)
	le.PutUint64(b[40:], h.batch)
	le.PutUint64(b[48:], h.base.Index)
	le.PutUint64(b[56:], h.base.Term)
	le.PutUint64(b[64:], h.salt)
	le.PutUint64(b[72:], uint64(h.size))
	le.PutUint32(b[80:], h.previous)
	h.chain = crc32.Checksum(b[:headerCRCAt], castagnoli)
	le.PutUint32(b[headerCRCAt:], h.chain)
}

// decode reads a header; version is what the sector says it is, and the rest is set only for a known one. A reason is
// given when the sector is no header of any version.
func (h *segmentHeader) decode(b []byte) (version uint32, reason string) {
	le := binary.LittleEndian
	if [8]byte(b) != segmentMagic {
		return 0, "this is not a segment header"
	}
	h.chain = le.Uint32(b[headerCRCAt:])
	if crc32.Checksum(b[:headerCRCAt], castagnoli) != h.chain {
		return 0, "the segment header's checksum does not match"
	}
	version = le.Uint32(b[8:])
	if version != formatVersion {
		return version, ""
	}
	h.reset = le.Uint32(b[12:])&segmentIsReset != 0
	h.identity = Identity{ClusterID: le.Uint64(b[16:]), MemberID: le.Uint64(b[24:])}
	h.number = le.Uint64(b[32:])
	h.batch = le.Uint64(b[40:])
	h.base = Base{Index: le.Uint64(b[48:]), Term: le.Uint64(b[56:])}
	h.salt = le.Uint64(b[64:])
	h.size = int64(le.Uint64(b[72:]))
	h.previous = le.Uint32(b[80:])
	return version, ""
}

// seed is what the checksums of the segment's frame headers begin with: that of the salt.
func (h *segmentHeader) seed() uint32 {
	return crc32.Checksum(binary.LittleEndian.AppendUint64(nil, h.salt), castagnoli)
}

// frame is the header of a batch or a seal.
type frame struct {
	kind    uint8
	payload int    // bytes of entries
	count   uint32 // entries
	batch   uint64 // number of the batch; a seal bears that of the batch that follows in the next segment
	synced  uint64 // the highest batch that was durable when this one was written
	first   uint64 // index of the first entry; 0 without entries
	hard    hardState
	hasHard bool
	blank   uint32 // how many of its sectors are zero, as entries' data may be
	chain   uint32 // chain value before it
}

// hardState is raft's, by value.
type hardState struct{ term, vote, commit uint64 }

// bytes is the frame's length: header, payload and trailer, up to a whole sector.
func (f *frame) bytes() int64 { return frameBytes(int64(f.payload)) }

func frameBytes(payload int64) int64 {
	return roundUp(frameHeader+payload+frameTrailer, sectorBytes)
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// encodeHeader writes the header. The segment's seed is in its checksum, and the header is in that of the frame: nothing written
// for another segment passes for a part of this one.
func (f *frame) encodeHeader(b []byte, seed uint32) {
	le := binary.LittleEndian
	le.PutUint32(b, frameMagic)
	b[4], b[5], b[6], b[7] = f.kind, 0, 0, 0
	if f.hasHard {
		b[5] = frameHasHardState
	}
	le.PutUint32(b[8:], uint32(f.payload))
	le.PutUint32(b[12:], f.count)
	le.PutUint64(b[16:], f.batch)
	le.PutUint64(b[24:], f.synced)
	le.PutUint64(b[32:], f.first)
	le.PutUint64(b[40:], f.hard.term)
	le.PutUint64(b[48:], f.hard.vote)
	le.PutUint64(b[56:], f.hard.commit)
	le.PutUint32(b[64:], f.blank)
	le.PutUint32(b[68:], f.chain)
	le.PutUint32(b[72:], headerSum(b, seed))
}

// decodeFrame reads a frame header; false when the bytes are not one that was written with this seed. Only then are its
// fields worth anything, the length above all.
func decodeFrame(b []byte, seed uint32) (f frame, ok bool) {
	le := binary.LittleEndian
	if le.Uint32(b) != frameMagic || le.Uint32(b[72:]) != headerSum(b, seed) {
		return f, false
	}
	f = frame{
		kind: b[4], payload: int(le.Uint32(b[8:])), count: le.Uint32(b[12:]),
		batch: le.Uint64(b[16:]), synced: le.Uint64(b[24:]), first: le.Uint64(b[32:]),
		hard:    hardState{term: le.Uint64(b[40:]), vote: le.Uint64(b[48:]), commit: le.Uint64(b[56:])},
		hasHard: b[5] == frameHasHardState, blank: le.Uint32(b[64:]), chain: le.Uint32(b[68:]),
	}
	known := (f.kind == kindBatch || f.kind == kindSeal) && b[5]&^frameHasHardState == 0 && b[6] == 0 && b[7] == 0
	return f, known && f.payload <= MaxBatchBytes
}

func headerSum(b []byte, seed uint32) uint32 {
	return crc32.Update(seed, castagnoli, b[:frameHeader-4])
}

// encode writes the whole frame to b, whose length is f.bytes(), and returns the chain value after it.
func (f *frame) encode(b []byte, seed uint32, entries []*raftpb.Entry) uint32 {
	le := binary.LittleEndian
	at := frameHeader
	for _, e := range entries {
		le.PutUint64(b[at:], e.GetTerm())
		le.PutUint32(b[at+8:], uint32(len(e.GetData())))
		le.PutUint32(b[at+12:], uint32(e.GetType()))
		at += entryHeader
		at += copy(b[at:], e.GetData())
	}
	end := len(b) - frameTrailer
	clear(b[at:end])
	le.PutUint32(b[end:], trailerMagic)
	f.blank = zeroSectors(b[min(sectorBytes, len(b)):]) // the first one has the header
	f.encodeHeader(b, seed)
	chain := crc32.Checksum(b[:end+4], castagnoli)
	le.PutUint32(b[end+4:], chain)
	return chain
}

// zeroSectors counts the sectors of b that have nothing in them.
func zeroSectors(b []byte) (n uint32) {
	for ; len(b) > 0; b = b[sectorBytes:] {
		if isZero(b[:sectorBytes]) {
			n++
		}
	}
	return n
}

var zeroSector [sectorBytes]byte

func isZero(sector []byte) bool { return bytes.Equal(sector, zeroSector[:]) }

// whole says whether b is a complete frame, and the chain value after it.
func whole(b []byte) (chain uint32, ok bool) {
	end := len(b) - frameTrailer
	chain = binary.LittleEndian.Uint32(b[end+4:])
	return chain, crc32.Checksum(b[:end+4], castagnoli) == chain
}

// payloadBytes is what entries take up in a frame; more than MaxBatchBytes for all that is too much.
func payloadBytes(entries []*raftpb.Entry) int64 {
	var n int64
	for _, e := range entries {
		n += entryHeader + int64(len(e.GetData()))
	}
	return n
}

// slot is a decoded entry with the fields that it points to: one allocation for all of a batch.
type slot struct {
	entry       raftpb.Entry
	term, index uint64
	kind        raftpb.EntryType
}

// decodeEntries reads a batch's entries, whose Data are parts of payload. It checks everything, the payload's checksum
// notwithstanding: a reason is given when the bytes are not what encode writes.
func decodeEntries(payload []byte, f *frame) (entries []*raftpb.Entry, reason string) {
	le := binary.LittleEndian
	if int64(f.count)*entryHeader > int64(len(payload)) {
		return nil, "a batch has more entries than its length allows"
	}
	if f.count > 0 && (f.first == 0 || f.first > math.MaxUint64-uint64(f.count)) {
		return nil, "a batch has entries with impossible indices"
	}
	slots := make([]slot, f.count)
	entries = make([]*raftpb.Entry, f.count)
	for i := range slots {
		if len(payload) < entryHeader {
			return nil, "a batch ends inside an entry"
		}
		n, kind := le.Uint32(payload[8:]), le.Uint32(payload[12:])
		if int64(n) > int64(len(payload)-entryHeader) || kind > math.MaxInt32 {
			return nil, "a batch has an entry that is longer than it"
		}
		s := &slots[i]
		s.term, s.index, s.kind = le.Uint64(payload), f.first+uint64(i), raftpb.EntryType(kind)
		s.entry.Term, s.entry.Index, s.entry.Type = &s.term, &s.index, &s.kind
		end := entryHeader + int(n)
		if n > 0 {
			s.entry.Data = payload[entryHeader:end:end]
		}
		entries[i], payload = &s.entry, payload[end:]
	}
	if len(payload) != 0 {
		return nil, "a batch is longer than its entries"
	}
	return entries, ""
}
