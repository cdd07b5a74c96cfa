package election

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
)

// Candidate is one who stands for an election: its leader, or somebody in line.
type Candidate struct {
	// ID names the candidate: what it was given by WithIdentity, else its lease
	// in hexadecimal, which is also the last part of its key.
	ID string
	// Term is the create revision of the candidate's key: the fencing token
	// that it leads with, or will. The line is in the order of the terms.
	Term fence.Token
	// Key is the candidate's key, without the client's namespace.
	Key   string
	Lease client.LeaseID
	// Proposal is what the candidate stands with, as the store has it.
	Proposal []byte
	// Priority is that of WithPriority; zero for the candidates of etcd's clients.
	Priority int
	// Preempts says that the candidate asks a leader of lower priority to step down.
	Preempts bool
	// Leads says that it is the leader.
	Leads bool
	// Ours is false for a candidate of etcd's clients, which waits in line like
	// others, but knows nothing of priorities, hand-overs and requests.
	Ours bool
}

// answersTo says that the candidate has the ID, or the key's last part, that was
// asked for.
func (c Candidate) answersTo(id string) bool {
	return id != "" && (c.ID == id || strings.HasSuffix(c.Key, "/"+id))
}

// record is what a candidate tells of itself beside its proposal, in a key of
// the same lease. etcd's clients have none.
type record struct {
	ID       string `json:"id,omitempty"`
	Priority int    `json:"priority,omitempty"`
	Preempts bool   `json:"preempts,omitempty"`
}

// succession names who is to lead next: the value of "<name>.next".
type succession struct {
	To   string      `json:"to"`   // the last part of the candidate's key
	Term fence.Token `json:"term"` // so that a later candidacy of the same session is not meant
}

// Keys of an election. Those of its candidates are etcd's; all others stand
// beside them, as whatever is below "<name>/" counts as a candidate.
type keys string

func (k keys) candidates() string { return string(k) + "/" }

func (k keys) candidate(id string) string { return k.candidates() + id }

func (k keys) records() string { return string(k) + ".prio/" }

func (k keys) record(id string) string { return k.records() + id }

func (k keys) next() string { return string(k) + ".next" }

// requests are those to the leader of one term.
func (k keys) requests(term fence.Token) string {
	return string(k) + ".req/" + strconv.FormatUint(uint64(term), 10) + "/"
}

// beside spans all that stands beside the candidates: who is next, the records,
// and the requests of all terms.
func (k keys) beside() (from string, to client.RangeOption) {
	return k.next(), client.Range(string(k) + ".req0")
}

// all spans everything that says who leads: what stands beside, and the
// candidates. ('.' comes right before '/', and that right before '0'.)
func (k keys) all() (from string, to client.RangeOption) {
	return k.next(), client.Range(string(k) + "0")
}

// candidateID returns the last part of a candidate's key; ok is false for any
// other key.
func (k keys) candidateID(key string) (id string, ok bool) {
	id, ok = strings.CutPrefix(key, k.candidates())
	return id, ok && isLease(id)
}

// recordID returns whose record a key is; ok is false for any other key.
func (k keys) recordID(key string) (id string, ok bool) {
	id, ok = strings.CutPrefix(key, k.records())
	return id, ok && isLease(id)
}

// concerns says that a key says something about who leads.
func (k keys) concerns(key string) bool {
	_, candidate := k.candidateID(key)
	_, record := k.recordID(key)
	return candidate || record || key == k.next()
}

func isLease(id string) bool {
	_, err := strconv.ParseUint(id, 16, 64)
	return err == nil
}

// decodeRecord reads a record. What can not be read is the record of nobody in
// particular, and ranks like one that says nothing.
func decodeRecord(value []byte) record {
	var r record
	_ = json.Unmarshal(value, &r)
	return r
}

func decodeSuccession(value []byte) succession {
	var s succession
	if json.Unmarshal(value, &s) != nil {
		return succession{}
	}
	return s
}

// encode makes the bytes of a record or a succession, which always can be made.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
