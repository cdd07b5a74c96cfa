package interop_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

var (
	diffRequests = flag.Int("diff.requests", 4000, "`requests` of the differential test; 20000 for the full one")
	diffSeed     = flag.Uint64("diff.seed", 1, "`seed` of the differential test; 0 for one of the clock")
)

const (
	flushEvery     = 200 // requests between two comparisons of the whole state and of all watchers
	requestTimeout = 10 * time.Second
	shownHistory   = 5     // requests before the failing one that a report shows
	fullRequests   = 20000 // from here on, each of the reasons must have been needed
)

// TestDifferential puts the same generated requests of several users, about
// keys, leases, watchers and the users themselves, to a fresh etcd and a fresh
// Latchkey, one after the other. Every answer must be equal: contents,
// revisions, errors; but for the few reasons of the table. From time to time
// the whole state and the events of all watchers are compared as well.
func TestDifferential(t *testing.T) {
	seed := *diffSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("go test -run %s -diff.seed %d -diff.requests %d", t.Name(), seed, *diffRequests)
	reference, subject := startBoth(t, 1, "--bcrypt-cost=4")
	d := newDifference(seed, reference, subject)
	for n := range *diffRequests {
		if n%flushEvery == flushEvery-1 {
			d.flush(t)
		}
		user, req := d.gen.user(), d.admit(d.gen.request())
		if user != "root" {
			upright(req)
		}
		d.step(t, user, req)
	}
	d.flush(t)
	d.requireEnough(t)
	requireCompared(t, reference.called)
}

// admit keeps the number of watchers in bounds, and turns some creations into
// collisions with a live watcher.
func (d *difference) admit(req proto.Message) proto.Message {
	create, ok := req.(*pb.WatchCreateRequest)
	if !ok || len(d.watchers) == 0 {
		return req
	}
	live := slices.Sorted(maps.Keys(d.watchers))
	if len(live) >= maxWatchers {
		return &pb.WatchCancelRequest{WatchId: live[d.gen.rng.IntN(len(live))]}
	}
	if d.gen.percent(invalidPercent) {
		create.WatchId = live[d.gen.rng.IntN(len(live))]
	}
	return req
}

// difference is one run of the differential test.
type difference struct {
	gen       *generator
	sides     [2]*side // the reference, the subject
	streams   map[string]*watchPair
	watchers  map[int64]*liveWatcher
	tokens    map[string][2]string // of each user who has ever had one, on each side
	compacted map[int64]bool       // the revisions that history was compacted at
	masks     masks
	history   []string
	tally

	compacting  bool // the last compaction may be under way
	authChanged bool // users or roles, since all watchers were compared
}

// tally is what a run has met.
type tally struct {
	succeeded map[string]int // answers without error by kind of request
	failed    map[string]int // by request and error text
	spent     map[string]time.Duration
	flushes   int
	events    int
	fragments int
	progress  int
	overrun   int
	ended     int // watchers by a change of rights
	denied    int
}

// watchPair is one user's stream on each side.
type watchPair struct {
	user    string
	token   [2]string
	sides   [2]*watchStream
	behind  bool           // a watcher may be reading the past, or wait for the future
	overrun map[int64]bool // watchers that a compaction ended, and that were not cancelled
}

// liveWatcher is a watcher that was created on both sides.
type liveWatcher struct {
	*pb.WatchCreateRequest
	pair  *watchPair
	heard bool // in this round: it is alive on both sides
}

func newDifference(seed uint64, reference, subject *side) *difference {
	return &difference{
		gen:       newGenerator(seed),
		sides:     [2]*side{reference, subject},
		streams:   make(map[string]*watchPair),
		watchers:  make(map[int64]*liveWatcher),
		tokens:    make(map[string][2]string),
		compacted: make(map[int64]bool),
		masks:     make(masks),
		tally: tally{
			succeeded: make(map[string]int), failed: make(map[string]int), spent: make(map[string]time.Duration),
		},
	}
}

// step sends one request to both sides and compares. It returns the
// reference's answer.
func (d *difference) step(t *testing.T, user string, req proto.Message) answer {
	t.Helper()
	switch req.(type) {
	case *pb.CompactionRequest:
		// A compaction may overtake a watcher that is still reading the past,
		// on one side and not on the other: let them all arrive first.
		d.flush(t)
	case *pb.HashKVRequest:
		if d.compacting {
			// If nothing can be read, etcd's hash is of all that it has not removed
			// yet. This waits until it has, and changes nothing.
			d.ask(t, "root", &pb.CompactionRequest{Revision: d.gen.compact, Physical: true})
		}
	case *pb.WatchCreateRequest, *pb.WatchCancelRequest, *pb.WatchProgressRequest:
		return d.stepWatch(t, user, req)
	}
	return d.ask(t, user, req)
}

func (d *difference) ask(t *testing.T, user string, req proto.Message) answer {
	t.Helper()
	return d.compare(t, user, req, func(ctx context.Context, i int) (proto.Message, error) {
		return d.sides[i].ask(d.as(ctx, user, i), req)
	})
}

// as adds the user's token.
func (d *difference) as(ctx context.Context, user string, i int) context.Context {
	if user == forger {
		return metadata.AppendToOutgoingContext(ctx, "token", "abcdefghijklmnop.1")
	} else if token := d.tokens[user][i]; token != "" {
		return metadata.AppendToOutgoingContext(ctx, "token", token)
	}
	return ctx
}

func (d *difference) compare(t *testing.T, user string, req proto.Message, ask func(context.Context, int) (proto.Message, error)) answer {
	t.Helper()
	d.history = append(d.history, fmt.Sprintf("%q: %T\n%s", user, req, indent(prototext.Format(req))))
	d.history = d.history[max(0, len(d.history)-shownHistory-1):]
	var got [2]answer
	for i, s := range d.sides {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), requestTimeout)
		got[i] = newAnswer(ask(ctx, i))
		cancel()
		d.spent[fmt.Sprintf("%s %T", s.cluster.Kind, req)] += time.Since(start)
	}
	if r, ok := req.(*pb.AuthenticateRequest); ok {
		d.learnToken(t, r, got)
	}
	if r, ok := req.(*pb.HashKVRequest); ok && d.compacted[r.Revision] && got[0].message != nil {
		d.masks.count(compactionHash, d.masks.same(req, got[0], got[1]) != "")
		return got[0]
	}
	if diff := d.masks.same(req, got[0], got[1]); diff != "" {
		for _, r := range d.history[:len(d.history)-1] {
			t.Logf("before: %s", r)
		}
		require.Fail(t, "the servers differ", "user %q\n%s", user, diff)
	}
	d.learn(t, user, req, got)
	return got[0]
}

// learnToken takes tokens out of the answers and keeps them: each server makes
// its own.
func (d *difference) learnToken(t *testing.T, r *pb.AuthenticateRequest, got [2]answer) {
	t.Helper()
	var tokens [2]string
	for i := range got {
		if m, ok := got[i].message.(*pb.AuthenticateResponse); ok {
			require.Regexp(t, `^[a-zA-Z]{16}\.[0-9]+$`, m.Token)
			tokens[i], m.Token = m.Token, ""
		}
	}
	if tokens[0] != "" && tokens[1] != "" {
		d.masks.count(ownToken, tokens[0] != tokens[1])
		d.tokens[r.Name] = tokens
	}
}

// learn follows what the next requests depend on.
func (d *difference) learn(t *testing.T, user string, req proto.Message, got [2]answer) {
	t.Helper()
	a := got[0]
	if a.message == nil {
		d.failed[fmt.Sprintf("%T: %s", req, a.text)]++
		if strings.Contains(a.text, "denied") {
			d.denied++
		}
		return
	}
	d.succeeded[fmt.Sprintf("%T", req)]++
	switch req := req.(type) {
	case *pb.CompactionRequest:
		d.gen.compact = req.Revision
		d.compacted[req.Revision] = true
		d.compacting = !req.Physical
	case *pb.AuthRoleGrantPermissionRequest:
		d.gen.grants[req.Name]++
	case *pb.AuthRoleDeleteRequest:
		delete(d.gen.grants, req.Role)
	case *pb.LeaseGrantRequest:
		if req.ID == 0 {
			revoke := &pb.LeaseRevokeRequest{}
			d.compare(t, user, revoke, func(ctx context.Context, i int) (proto.Message, error) {
				return d.sides[i].ask(d.as(ctx, user, i), &pb.LeaseRevokeRequest{ID: got[i].message.(*pb.LeaseGrantResponse).ID})
			})
		}
	}
	d.authChanged = d.authChanged || changesRights(req)
	if h, ok := a.message.(headed); ok {
		d.gen.revision = max(d.gen.revision, h.GetHeader().GetRevision())
	}
}

// requireEnough fails a run that was too quiet to prove anything.
func (d *difference) requireEnough(t *testing.T) {
	t.Helper()
	t.Logf("succeeded: %v", d.succeeded)
	for _, text := range slices.Sorted(maps.Keys(d.failed)) {
		t.Logf("failed: %5d %s", d.failed[text], text)
	}
	slow := slices.SortedFunc(maps.Keys(d.spent), func(a, b string) int { return int(d.spent[b] - d.spent[a]) })
	for _, kind := range slow[:min(10, len(slow))] {
		t.Logf("%6.1f s in %s", d.spent[kind].Seconds(), kind)
	}
	t.Logf("revision %d, compacted to %d, %d flushes, %d events, %d responses in fragments, %d answers about progress, "+
		"watchers ended by compaction %d, by rights %d; %d requests refused to their user",
		d.gen.revision, d.gen.compact, d.flushes, d.events, d.fragments, d.progress, d.overrun, d.ended, d.denied)
	if *diffRequests >= 1000 {
		require.GreaterOrEqual(t, len(d.succeeded), 30, "kinds of request that succeeded")
		require.GreaterOrEqual(t, len(d.failed), 40, "kinds of error")
		require.Greater(t, d.events, *diffRequests/4, "events")
		require.Positive(t, d.denied, "requests that were refused to their user")
	}
	if *diffRequests >= fullRequests {
		require.GreaterOrEqual(t, len(d.succeeded), 35, "kinds of request that succeeded")
		require.GreaterOrEqual(t, len(d.failed), 60, "kinds of error")
		require.Positive(t, d.overrun, "watchers ended by compaction")
		require.Positive(t, d.fragments, "responses in fragments")
		require.Positive(t, d.progress, "answers about progress")
		require.Greater(t, d.events, *diffRequests/2, "events")
		require.Greater(t, d.denied, *diffRequests/60, "requests that were refused to their user")
		d.awaitClock(t)
		d.masks.requireAll(t)
	}
}
