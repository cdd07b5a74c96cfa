package lock

import (
	"encoding/json"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// Contender is one key in a lock's queue: its holder or somebody who waits.
type Contender struct {
	Key   string
	Lease client.LeaseID
	Token fence.Token // the key's create revision; the smallest one holds the lock
	Owner string      // as given by WithOwner; empty for etcd's own clients
	Mode  Mode        // of a read-write lock; ModeWrite for others
	// Permits that it has, or wants, of a semaphore; zero for others.
	Permits int64
}

// record is the value of a key. etcd's clients leave it empty and never read it.
type record struct {
	Owner   string `json:"owner,omitempty"`
	Mode    string `json:"mode,omitempty"`    // of a read-write lock
	Permits int64  `json:"permits,omitempty"` // of a semaphore
	Waits   bool   `json:"waits,omitempty"`   // for permits; absent for a moment when it is new
}

func (r record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // a struct of strings, numbers and booleans
	}
	return b
}

func contenderOf(kv client.KV) Contender {
	c, _ := parse(kv)
	return c
}

// parse returns the contender, and the record that it was made from.
func parse(kv client.KV) (Contender, record) {
	var r record
	// A value that is no record says nothing.
	_ = json.Unmarshal(kv.Value, &r)
	return Contender{Key: kv.Key, Lease: kv.Lease, Token: fence.Token(kv.CreateRevision), Owner: r.Owner}, r
}
