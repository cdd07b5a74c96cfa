package shard

import (
	"encoding/binary"
	"slices"
	"strings"
)

// Entry is one claim in a journal.
type Entry struct {
	Key      string
	Create   int64 // of the item: together with Key, which one it is
	Failures int   // of runs under this claim, on top of the item's
	Crashes  int   // of workers that had this claim, on top of the item's
	Parked   bool  // not started since it was adopted: its worker's end does not count
	Group    string
	Done     []byte // a bit for each message of a chunk that has ended
}

// EncodeJournal returns the value of a journal.
func EncodeJournal(entries []Entry) []byte {
	slices.SortFunc(entries, func(a, b Entry) int {
		if a.Create != b.Create {
			return int(max(-1, min(1, a.Create-b.Create)))
		}
		return strings.Compare(a.Key, b.Key)
	})
	b := []byte{formatVersion}
	for _, e := range entries {
		b = appendString(b, e.Key)
		b = binary.AppendUvarint(b, uint64(e.Create))
		b = binary.AppendUvarint(b, uint64(e.Failures))
		parked := 0
		if e.Parked {
			parked = 1
		}
		b = binary.AppendUvarint(b, uint64(e.Crashes<<1|parked))
		b = appendString(b, e.Group)
		b = appendString(b, string(e.Done))
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// reader takes a value apart; bad stays true once something was missing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number() int64 {
	n, w := binary.Uvarint(r.b)
	if w <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[w:]
	return int64(n)
}

func (r *reader) string() string {
	n := r.number()
	if n < 0 || n > int64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// DecodeJournal reads a journal.
func DecodeJournal(value []byte) ([]Entry, error) {
	if len(value) == 0 || value[0] != formatVersion {
		return nil, ErrDamaged
	}
	var out []Entry
	for r := (reader{b: value[1:]}); len(r.b) > 0; {
		e := Entry{Key: r.string(), Create: r.number(), Failures: int(r.number())}
		crashes := r.number()
		e.Crashes, e.Parked = int(crashes>>1), crashes&1 == 1
		e.Group, e.Done = r.string(), []byte(r.string())
		if r.bad {
			return out, ErrDamaged
		}
		out = append(out, e)
	}
	return out, nil
}

func bit(set []byte, i int) bool { return i/8 < len(set) && set[i/8]&(1<<(i%8)) != 0 }

func setBit(set []byte, i int) []byte {
	for i/8 >= len(set) {
		set = append(set, 0)
	}
	set[i/8] |= 1 << (i % 8)
	return set
}

func countBits(set []byte, n int) (count int) {
	for i := range n {
		if bit(set, i) {
			count++
		}
	}
	return count
}
