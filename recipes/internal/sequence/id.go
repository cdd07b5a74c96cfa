package sequence

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/latchkey-go/latchkey/client"
)

// ID names an entry of a log. Its text is as long for each and sorts as the
// fields do.
type ID struct {
	// Seed is the newest revision that the writer had seen. The entry's create
	// revision is larger.
	Seed client.Revision
	// Tag tells writers apart that have seen the same.
	Tag uint32
	// Count grows with each entry of a writer, by as many as the entry holds.
	Count uint64
}

const (
	seedDigits  = 16
	tagDigits   = 8
	countDigits = 12 // 48 bits, for a hundred years of 60,000 a second
	tagEnd      = seedDigits + 1 + tagDigits
	idLength    = tagEnd + 1 + countDigits
)

// noteMark stands between an id and a note in a key.
const noteMark = "."

var errID = errors.New("not the id of an entry")

// String returns the id as it stands in keys.
func (id ID) String() string {
	var text [idLength]byte
	putHex(text[:seedDigits], uint64(id.Seed))
	text[seedDigits] = '-'
	putHex(text[seedDigits+1:tagEnd], uint64(id.Tag))
	text[tagEnd] = '-'
	putHex(text[tagEnd+1:], id.Count)
	return string(text[:])
}

func putHex(text []byte, n uint64) {
	for i := len(text) - 1; i >= 0; i, n = i-1, n>>4 {
		text[i] = "0123456789abcdef"[n&15]
	}
}

// ParseID is the reverse of String.
func ParseID(s string) (ID, error) {
	if len(s) != idLength || s[seedDigits] != '-' || s[tagEnd] != '-' {
		return ID{}, errID
	}
	seed, err1 := strconv.ParseInt(s[:seedDigits], 16, 64)
	tag, err2 := strconv.ParseUint(s[seedDigits+1:tagEnd], 16, 32)
	count, err3 := strconv.ParseUint(s[tagEnd+1:], 16, 64)
	if err1 != nil || err2 != nil || err3 != nil || seed < 0 {
		return ID{}, errID
	}
	return ID{Seed: client.Revision(seed), Tag: uint32(tag), Count: count}, nil
}

// Bound returns the smallest text of all ids with this seed or a larger one.
func Bound(seed client.Revision) string { return fmt.Sprintf("%016x", uint64(max(seed, 0))) }

// seedOf returns the seed of an id, or of what an id can be compared with.
func seedOf(bound string) client.Revision {
	if len(bound) < seedDigits {
		return 0
	}
	seed, _ := strconv.ParseInt(bound[:seedDigits], 16, 64)
	return client.Revision(seed)
}

// Mint makes the ids of one writer. It is safe for concurrent use.
type Mint struct {
	mu    sync.Mutex // protects what follows
	tag   uint32
	count uint64
	seed  client.Revision
}

// NewMint returns a mint with a tag of its own, by chance. That two writers have
// the same tag, seed and count is left to the conditions of Append.
func NewMint() *Mint { return &Mint{tag: rand.Uint32()} }

// Next returns an id for an entry that holds n things, n at least one, of a writer
// that has seen a revision: that of client.Seen. Ids of one mint only grow.
func (m *Mint) Next(seen client.Revision, n int) ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seed = max(m.seed, seen)
	id := ID{Seed: m.seed, Tag: m.tag, Count: m.count}
	m.count += uint64(n)
	return id
}
