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
}

// record is the value of a key. etcd's clients leave it empty and never read it.
type record struct {
	Owner string `json:"owner,omitempty"`
}

func contenderOf(kv client.KV) Contender {
	var r record
	// A value that is no record says nothing about its owner, and that is all
	// it is for.
	_ = json.Unmarshal(kv.Value, &r)
	return Contender{Key: kv.Key, Lease: kv.Lease, Token: fence.Token(kv.CreateRevision), Owner: r.Owner}
}
