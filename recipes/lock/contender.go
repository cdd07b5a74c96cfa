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
	Info  string      // as given by WithInfo
	Mode  Mode        // of a read-write lock; ModeWrite for others
	// Permits that it has, or wants, of a semaphore; zero for others.
	Permits int64
	// Request is the latest request to give the lock up, or nil.
	Request *Request
}

// Request asks a holder to give its lock up.
type Request struct {
	// By is who asks, up to 256 bytes. Default: the host's name and the process id.
	By string `json:"by,omitempty"`
	// Reason is why, up to 256 bytes.
	Reason string `json:"reason,omitempty"`
}

// record is the value of a key. etcd's clients leave it empty and never read it.
type record struct {
	Owner   string   `json:"owner,omitempty"`
	Info    string   `json:"info,omitempty"`
	Request *Request `json:"request,omitempty"`
	Broken  string   `json:"broken,omitempty"`  // by whom
	Mode    string   `json:"mode,omitempty"`    // of a read-write lock
	Permits int64    `json:"permits,omitempty"` // of a semaphore
	Waits   bool     `json:"waits,omitempty"`   // for permits; it says so when it has seen that it has to
}

func (r record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // there is nothing in it that can not be encoded
	}
	return b
}

func contenderOf(kv client.KV) Contender {
	var r record
	// A value that is no record says nothing about its owner, and that is all
	// it is for.
	_ = json.Unmarshal(kv.Value, &r)
	return Contender{
		Key: kv.Key, Lease: kv.Lease, Token: fence.Token(kv.CreateRevision),
		Owner: r.Owner, Info: r.Info, Request: r.Request, Permits: r.Permits,
	}
}

// edited returns the record with one field set, and everything else that
// whoever wrote it put there.
func edited(value []byte, field string, v any) ([]byte, error) {
	fields := make(map[string]json.RawMessage)
	if err := json.Unmarshal(value, &fields); err != nil || len(fields) == 0 {
		return nil, ErrUnreachable
	}
	var err error
	if fields[field], err = json.Marshal(v); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}
