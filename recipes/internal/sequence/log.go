package sequence

import (
	"errors"

	"github.com/latchkey-go/latchkey/client"
)

// ErrMissing: the log has no floor, so it does not exist, or no longer.
var ErrMissing = errors.New("log does not exist")

// Log says where the keys of a log stand. It is immutable.
type Log struct {
	// Lanes are the prefixes of its entries: a key is a lane and an id. Readers
	// read all lanes as one log.
	Lanes []string
	// Floor is the key of the floor. Its value is an id, or a Bound. Empty for a
	// log that is only read, such as several in one: then a position's From never
	// rises, so that a reader that starts again reads all keys above it.
	Floor string
	// Under is a prefix that all lanes and the floor have in common, for watches;
	// there should not be much else below it.
	Under string
	// Found, if it is set, is given the keys that a reader's watch sees in no lane,
	// and returns the lane; that is added to the reader's lanes. An empty one means
	// that the key is none of the log's entries.
	Found func(key string) (lane string)
}

// Create returns the operation that makes the log, with a floor below all ids.
// The condition that there is none yet is client.Missing(l.Floor).
func (l Log) Create() client.Op { return client.OpPut(l.Floor, []byte(Bound(0))) }

// Append returns the conditions and the operation that add an entry to a lane: that
// the floor admits the id, and that the key is new. The note is put into the key,
// where readers of keys alone see it too. An append that is repeated must be the
// same.
//
// In a transaction with other conditions, these must be an outer one's, or be told
// apart: a refused id must not look like a condition of the caller's that failed.
func (l Log) Append(lane string, id ID, note string, value []byte) ([]client.Compare, client.Op) {
	key := Key(lane, id, note)
	return []client.Compare{client.Value(l.Floor).Less([]byte(id.String())), client.Missing(key)}, client.OpPut(key, value)
}

// Key returns the key of an entry.
func Key(lane string, id ID, note string) string {
	if note == "" {
		return lane + id.String()
	}
	return lane + id.String() + noteMark + note
}
