package sim

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sort"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// digestEvery is how many entries lie between those at which members are compared whole.
const digestEvery = 97

// truth is what really happened: the log as its entries were first applied anywhere, and all that follows from it. The
// members are measured against it.
type truth struct {
	s       *sim
	entries []entry // entries[i] is at index bootIndex+1+i
	digests map[uint64][32]byte

	members  []state.Member // after the last entry
	revision int64
	events   []state.Event               // in revision order
	keys     map[string][]*state.Version // versions of each key, ascending
	values   map[string]int              // how often each value was written
	acked    []string                    // values acknowledged as written
	refused  map[string]bool             // values reported as not written

	leaders  map[uint64]uint64 // by term
	expiries map[expiry]time.Duration
	renewals map[int64]time.Duration // when the client sent what was last acknowledged
	ttls     map[int64]int64
	guarded  int64 // the highest token among guarded writes
	locks    []acquisition
}

type entry struct {
	term     uint64
	hash     uint64
	revision int64
}

// expiry names a decision of the leader of a term.
type expiry struct {
	term uint64
	id   int64
}

// acquisition is a lock that a client was told it holds.
type acquisition struct {
	client   int
	token    int64
	revision int64 // that showed it
}

func newTruth(s *sim) *truth {
	return &truth{
		s: s, revision: 1, digests: make(map[uint64][32]byte),
		keys: make(map[string][]*state.Version), values: make(map[string]int), refused: make(map[string]bool),
		leaders: make(map[uint64]uint64), expiries: make(map[expiry]time.Duration),
		renewals: make(map[int64]time.Duration), ttls: make(map[int64]int64),
	}
}

// index is the highest index applied anywhere.
func (t *truth) index() uint64 { return bootIndex + uint64(len(t.entries)) }

// leads notes that a node acts as leader of a term.
func (t *truth) leads(term uint64, n *node) {
	if other := t.leaders[term]; other != 0 && other != n.id {
		t.s.violate("leader", "members %d and %d lead term %d", other, n.id, term)
	}
	t.leaders[term] = n.id
}

func (t *truth) elected(n *node, st replica.Status) {
	t.leads(st.Term, n)
	t.s.counts.Elections++
	t.s.note("elected", n.id, st.Term, st.LastIndex)
	// Votes may come so late that a later term has begun already; its entries are not this leader's to have.
	earlier := sort.Search(len(t.entries), func(i int) bool { return t.entries[i].term >= st.Term })
	if at := bootIndex + uint64(earlier); st.LastIndex < at {
		t.s.violate("leader", "member %d leads term %d with a log up to %d, but %d was applied", n.id, st.Term, st.LastIndex, at)
	}
}

// applying is called before an entry is applied on a node.
func (t *truth) applying(n *node, e replica.Entry, commands []state.Command) {
	h := fnv.New64a()
	for _, c := range e.Commands {
		_, _ = h.Write(c)
		_, _ = h.Write([]byte{0xff})
	}
	switch {
	case e.Index <= t.index():
		if known := t.entries[e.Index-bootIndex-1]; known.term != e.Term || known.hash != h.Sum64() {
			t.s.violate("log", "member %d applies another entry at %d, of term %d; term %d was applied elsewhere",
				n.id, e.Index, e.Term, known.term)
		}
		return
	case e.Index != t.index()+1:
		t.s.violate("log", "member %d applies %d, but nobody applied %d", n.id, e.Index, t.index()+1)
	}
	t.entries = append(t.entries, entry{term: e.Term, hash: h.Sum64()})
	t.s.counts.Entries++
	t.s.counts.Commands += len(commands)
	t.s.note("apply", n.id, e.Index, e.Term, h.Sum64())
	for _, c := range commands {
		switch r := c.Request.(type) {
		case *state.ExpireLeases:
			for _, id := range r.IDs {
				t.expired(e.Term, id)
			}
		case *pb.LeaseGrantRequest:
			t.ttls[r.GetID()] = r.GetTTL()
		}
	}
}

// applied is called after an entry was applied on a node.
func (t *truth) applied(n *node, e replica.Entry) {
	known := &t.entries[e.Index-bootIndex-1]
	if known.revision == 0 {
		known.revision = n.mach.Revision()
		t.learn(n)
		t.s.reconfigured(n)
	}
	if got := n.mach.Revision(); got != known.revision {
		t.s.violate("state", "member %d is at revision %d after entry %d; others at %d", n.id, got, e.Index, known.revision)
	}
	if e.Index%digestEvery == 0 {
		t.compareDigest(n)
	}
}

// learn takes the events that a machine made and no other had made before.
func (t *truth) learn(n *node) {
	h := n.mach.History()
	for e := range h.From(t.revision + 1) {
		v := e.Version
		t.events = append(t.events, e)
		t.keys[v.Key] = append(t.keys[v.Key], v)
		if !v.Deleted {
			t.written(v)
		}
	}
	t.revision = n.mach.Revision()
}

func (t *truth) written(v *state.Version) {
	if v.Key == resourceKey {
		token := parseToken(v.Value)
		if token < t.guarded {
			t.s.violate("lock", "a guarded write with token %d follows one with %d", token, t.guarded)
		}
		t.guarded = token
		return
	}
	value := string(v.Value)
	t.values[value]++
	if t.values[value] > 1 {
		t.s.violate("ack", "%q was applied twice", value)
	}
	if t.refused[value] {
		t.s.violate("ack", "%q was applied after it was reported as not applied", value)
	}
}

// compareDigest compares a node's whole state with the others' at the same index, and checks it by itself.
func (t *truth) compareDigest(n *node) {
	if err := n.mach.Check(); err != nil {
		t.s.violate("state", "member %d: %v", n.id, err)
	}
	index, d := n.index(), n.mach.Digest()
	if index < bootIndex {
		return // a new member knows only who the others are
	}
	t.s.counts.Digests++
	known, ok := t.digests[index]
	if ok && known != d {
		t.s.violate("state", "member %d differs from others at index %d: %s", n.id, index, t.difference(n))
	}
	t.digests[index] = d
}

// difference says in which key a node differs from what the log says, for the reader of a failure.
func (t *truth) difference(n *node) string {
	view := n.mach.View()
	for _, key := range slices.Sorted(maps.Keys(t.keys)) {
		want, got := t.at(key, view.Revision()), view.Get(key)
		if !sameVersion(want, got) {
			return fmt.Sprintf("%q is %s, not %s", key, show(got), show(want))
		}
	}
	return "no live key differs"
}

// at returns the version of a key at a revision, nil when it did not exist.
func (t *truth) at(key string, revision int64) *state.Version {
	versions := t.keys[key]
	i := sort.Search(len(versions), func(i int) bool { return versions[i].Mod > revision })
	if i == 0 || versions[i-1].Deleted {
		return nil
	}
	return versions[i-1]
}

// answered checks the answer to a read of one key at a revision.
func (t *truth) answered(n *node, key string, revision int64, got *state.Version) {
	if want := t.at(key, revision); !sameVersion(want, got) {
		t.s.violate("read", "member %d says that %q is %s at revision %d, not %s", n.id, key, show(got), revision, show(want))
	}
}

// wrote notes that a client was told how a write of a value went.
func (t *truth) wrote(value string, o outcome) {
	switch o {
	case applied:
		t.s.counts.Acked++
		t.acked = append(t.acked, value)
	case notApplied:
		t.s.counts.NotApplied++
		t.refused[value] = true
		if t.values[value] > 0 {
			t.s.violate("ack", "%q is reported as not applied, but it was", value)
		}
	default:
		t.s.counts.Uncertain++
	}
}

// finish checks what was promised about writes.
func (t *truth) finish() {
	for _, value := range t.acked {
		if t.values[value] != 1 {
			t.s.violate("ack", "%q was acknowledged and is not in the log", value)
		}
	}
	slices.SortStableFunc(t.locks, func(a, b acquisition) int { return int(a.revision - b.revision) })
	for i := 1; i < len(t.locks); i++ {
		if a, b := t.locks[i-1], t.locks[i]; b.token <= a.token {
			t.s.violate("lock", "client %d got token %d at revision %d, after client %d got %d at %d",
				b.client, b.token, b.revision, a.client, a.token, a.revision)
		}
	}
}

// expiring notes that the leader of a term decides that leases have run out. It may have been deposed without knowing:
// only what is applied is held against it.
func (t *truth) expiring(term uint64, ids []int64) {
	for _, id := range ids {
		t.expiries[expiry{term, id}] = t.s.now
	}
}

// expired checks an expiry that was applied: it is the decision of the leader of the entry's term.
func (t *truth) expired(term uint64, id int64) {
	if _, ok := t.ttls[id]; !ok {
		return
	}
	t.s.counts.Expiries++
	at, ok := t.expiries[expiry{term, id}]
	if !ok {
		t.s.violate("lease", "lease %x ends by an entry of term %d, whose leader did not decide that", id, term)
	}
	t.checkExpiry(t.s.nodes[t.leaders[term]-1], id, at)
}

// checkExpiry compares a decision on a leader's clock with what a client was promised.
func (t *truth) checkExpiry(leader *node, id int64, at time.Duration) {
	sent, ok := t.renewals[id]
	if !ok {
		return
	}
	ttl := time.Duration(t.ttls[id]) * time.Second
	if lived := leader.local(at).Sub(leader.local(sent)); lived < ttl-time.Microsecond {
		t.s.violate("lease", "member %d ends lease %x %v after the last acknowledged renewal was sent; its time to live is %v",
			leader.id, id, lived, ttl)
	}
}

// renewed notes that a client is told that a lease, as of the time it sent the request, has its full time to live.
func (t *truth) renewed(id int64, sent time.Duration) {
	if last, ok := t.renewals[id]; !ok || sent > last {
		t.renewals[id] = sent
	}
}

// locked checks a lock that a client believes in.
func (t *truth) locked(client int, key string, token, revision int64) {
	t.s.counts.Locks++
	mine := t.at(key, revision)
	if mine == nil || mine.Create != token {
		t.s.violate("lock", "client %d holds %q with token %d at revision %d, where it is %s",
			client, key, token, revision, show(mine))
	}
	for _, other := range slices.Sorted(maps.Keys(t.keys)) {
		if v := t.at(other, revision); v != nil && other != key && isLock(other) && v.Create < token {
			t.s.violate("lock", "client %d holds %q with token %d at revision %d, where %q is older",
				client, key, token, revision, other)
		}
	}
	t.locks = append(t.locks, acquisition{client, token, revision})
}

func sameVersion(a, b *state.Version) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Key == b.Key && bytes.Equal(a.Value, b.Value) && a.Create == b.Create && a.Mod == b.Mod && a.Sub == b.Sub &&
		a.Count == b.Count && a.Lease == b.Lease && a.Deleted == b.Deleted
}

func show(v *state.Version) string {
	if v == nil {
		return "absent"
	}
	if v.Deleted {
		return fmt.Sprintf("deleted at %d", v.Mod)
	}
	return fmt.Sprintf("%q of revision %d", v.Value, v.Mod)
}
