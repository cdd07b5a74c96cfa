package lock

import (
	"encoding/json"
	"strconv"
	"strings"

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

// recipes are the names that other recipes give to the level below theirs. A
// lock can not end in one of them, so keys below tell the recipe.
var recipes = map[string]string{
	"read":  "read-write lock",
	"write": "read-write lock",
	"g":     "barrier",
	"d":     "latch",
}

// validName says whether a lock can have the name: an empty last segment would
// make its keys look like those below another name, and one of recipes would
// make them look like another recipe's.
func validName(name string) bool {
	last := name[strings.LastIndexByte(name, '/')+1:]
	_, reserved := recipes[last]
	return last != "" && !strings.Contains(name, "//") && !reserved
}

// kind is what a key below a lock's name is to that lock.
type kind uint8

const (
	contender kind = iota // a place in the queue
	nested                // something of another name, below this one
	foreign               // a sign of another recipe under this very name
)

// classify judges a key by what follows "<name>/". A contender's key ends there
// with its lease in hexadecimal; only such keys take part, so that locks on
// "a" and "a/b" have nothing to do with each other.
func classify(rest string) (k kind, recipe string) {
	if first, _, below := strings.Cut(rest, "/"); below {
		if recipe, ok := recipes[first]; ok {
			return foreign, recipe
		}
		return nested, ""
	}
	if _, err := strconv.ParseUint(rest, 16, 64); err == nil {
		return contender, ""
	}
	if lease, _, ok := strings.Cut(rest, "."); ok {
		if _, err := strconv.ParseUint(lease, 16, 64); err == nil {
			return foreign, "semaphore"
		}
	}
	return foreign, "unknown"
}

// first returns the first contender among kvs, which are all keys below the
// lock's name in some order, from below the limit on; nil when there is none.
func (l *Lock) first(kvs []client.KV, below client.Revision) (*client.KV, error) {
	for i := range kvs {
		kv := &kvs[i]
		if kv.CreateRevision >= below {
			continue
		}
		switch k, recipe := classify(strings.TrimPrefix(kv.Key, l.prefix())); k {
		case contender:
			return kv, nil
		case foreign:
			return nil, &ConflictError{Name: l.name, Key: kv.Key, Recipe: recipe}
		case nested:
		}
	}
	return nil, nil
}
