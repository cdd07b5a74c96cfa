package discovery

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/latchkey-go/latchkey/client"
)

// State is what an instance wants of its clients.
type State uint8

// The states of an instance.
const (
	// Up: the instance wants requests.
	Up State = iota
	// Draining: the instance serves what it has, and wants nothing new.
	Draining
	// Lost: the instance is no longer there, and nobody better is. Only with
	// [KeepLost].
	Lost
)

var stateNames = [...]string{"up", "draining", "lost"}

// String returns "up", "draining" or "lost".
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", s)
}

// Instance is one of those that serve a service. M is the type of what its
// clients are told besides; it travels as JSON.
type Instance[M any] struct {
	Service string
	ID      string // unique in the service
	Addr    string // where it serves, such as "10.0.0.1:8080"
	Zone    string // where it runs, for strategies that prefer their own
	Version string // of the program, for people
	Weight  uint32 // its share of the requests, relative to the others'; zero counts as 1
	State   State
	Meta    M
}

// record is the value of an instance's key: the one of etcd's naming package,
// with what it does not know in fields that it skips.
type record struct {
	Op       int             // always zero: add
	Addr     string          // read by etcd's resolver
	Metadata json.RawMessage // the same
	Zone     string          `json:"zone,omitempty"`
	Version  string          `json:"version,omitempty"`
	Weight   uint32          `json:"weight,omitempty"`
	State    string          `json:"state,omitempty"` // empty means up
	By       string          `json:"by,omitempty"`    // the incarnation: random, another one for each registration
}

func decodeRecord(value []byte) (record, error) {
	var r record
	err := json.Unmarshal(value, &r)
	if err == nil && r.Addr == "" {
		err = fmt.Errorf("there is no address in it")
	}
	return r, err
}

func (r record) state() State {
	if r.State == Draining.String() {
		return Draining
	}
	return Up
}

func (r *record) setState(s State) {
	r.State = ""
	if s != Up {
		r.State = s.String()
	}
}

// recordOf makes the record of an instance.
func recordOf[M any](in Instance[M], by string) (record, error) {
	meta, err := json.Marshal(in.Meta)
	if err != nil {
		return record{}, fmt.Errorf("encode the metadata: %w", err)
	}
	r := record{Addr: in.Addr, Metadata: meta, Zone: in.Zone, Version: in.Version, Weight: in.Weight, By: by}
	r.setState(in.State)
	return r, nil
}

// instanceOf makes the instance of a record.
func instanceOf[M any](service, id string, r record) (Instance[M], error) {
	in := Instance[M]{
		Service: service, ID: id, Addr: r.Addr, Zone: r.Zone, Version: r.Version, Weight: max(1, r.Weight), State: r.state(),
	}
	if len(r.Metadata) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(r.Metadata, &in.Meta); err != nil {
		return in, fmt.Errorf("decode the metadata: %w", err)
	}
	return in, nil
}

// decode makes the instance of a key, which has lost the service's prefix.
func decode[M any](service string, kv client.KV) (Instance[M], error) {
	r, err := decodeRecord(kv.Value)
	if err != nil {
		return Instance[M]{}, &client.DecodeError{Key: kv.Key, Err: err}
	}
	in, err := instanceOf[M](service, kv.Key, r)
	if err != nil {
		return in, &client.DecodeError{Key: kv.Key, Err: err}
	}
	return in, nil
}

// checkService says whether a service can have the name: an empty segment would
// make its keys look like another one's.
func checkService(service string) error {
	if service == "" || strings.HasSuffix(service, "/") || strings.Contains(service, "//") {
		return fmt.Errorf("service %q: %w", service, ErrName)
	}
	return nil
}

func checkID(id string) error {
	if id == "" || strings.Contains(id, "/") {
		return fmt.Errorf("instance %q: %w", id, ErrName)
	}
	return nil
}

// prefix is what the keys of a service begin with.
func prefix(service string) string { return service + "/" }

// isInstance says that a key, which has lost the service's prefix, is one of the
// service: one with a further "/" belongs to a service whose name is longer.
func isInstance(key string) bool { return key != "" && !strings.Contains(key, "/") }
