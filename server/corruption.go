package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	// checkInterval is the time between two comparisons of the members' states.
	checkInterval = 10 * time.Second
	// initialCheckWait bounds how long a member that starts waits for the others
	// to answer with their hashes.
	initialCheckWait  = 5 * time.Second
	initialCheckRetry = 50 * time.Millisecond
	// scrubCost is how much is compared with its checksums at one time: one for
	// each value, and one more for each KiB.
	scrubCost = 20_000
	// joinRetry is the pause before a member tries to join again.
	joinRetry = 20 * time.Millisecond
)

// Methods of the peers' Call: what members ask each other to compare their data.
const (
	callFingerprint byte = 16 // index of the entry that asked -> fingerprint; nothing if it is not remembered
	callHashKV      byte = 17 // revision -> hash and compact revision plus one; nothing if there is none
)

// compareMembers compares, while this member leads, the states of all members
// at one entry of the log, and if asked for, what is in their checkpoints.
//
// All members apply the same log, so their states are equal at every index. If
// one's is not, its memory, its disk or its program is at fault. The leader
// puts an entry in the log for which every member notes the fingerprint of its
// state, which costs no more than any other entry, and then collects them: what
// most members have is right. One that has something else is named in the log
// by a CORRUPT alarm, and ends. Where there is no majority for anything, nobody
// knows what is right, and the alarm stops the cluster, as in etcd.
func (s *Server) compareMembers(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(s.stopped, cancel)()
	ticker := time.NewTicker(s.cfg.Checks.every)
	defer ticker.Stop()
	var hashes <-chan time.Time
	if s.cfg.Checks.CorruptInterval > 0 {
		t := time.NewTicker(s.cfg.Checks.CorruptInterval)
		defer t.Stop()
		hashes = t.C
	}
	last := uint64(0) // index of the last comparison's entry
	scrubbed := ""    // key up to which values were compared with their checksums
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			scrubbed = s.scrub(scrubbed)
			if s.leading() && s.store.applied.Load() != last {
				last = s.compareStates(ctx, last)
			}
		case <-hashes:
			if s.leading() {
				s.compareHashes(ctx)
			}
		}
	}
}

// scrub looks at a few values in memory, which fingerprints do not: they are of
// checksums. A member whose memory changed what was written to it ends; its disk
// and the others have what is right.
func (s *Server) scrub(after string) string {
	next, err := s.store.view().Scrub(after, scrubCost)
	if err != nil {
		s.fail(err)
	}
	return next
}

// compareStates compares the members' states now, and returns the index of the
// entry for that, or before when there was no comparison.
func (s *Server) compareStates(ctx context.Context, before uint64) uint64 {
	ctx, cancel := context.WithTimeout(ctx, s.requestTimeout)
	defer cancel()
	others := s.others()
	if len(others) == 0 {
		return before
	}
	response, err := backend{s}.Propose(ctx, state.Command{
		Kind: state.KindFingerprint, Request: &pb.HashKVRequest{Revision: state.FingerprintVersion},
	})
	r, ok := response.(*pb.HashKVResponse)
	if err != nil || !ok {
		s.log.Debug("members were not compared", "err", err)
		return before
	}
	index := uint64(r.HashRevision)
	mine := s.fingerprint(index)
	votes := s.poll(ctx, others, callFingerprint, protowire.AppendVarint(nil, index))
	votes[s.identity.MemberID] = mine
	s.judge(votes, len(others)+1, func(member uint64, right string) state.Command {
		return state.Command{Kind: state.KindDivergence, Request: &state.Divergence{Member: member, Index: index, Sum: []byte(right)}}
	})
	return index
}

// compareHashes compares what the members' checkpoints hold, up to the leader's
// revision, as etcd's corrupt-check-time does.
func (s *Server) compareHashes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.requestTimeout)
	defer cancel()
	h, err := s.hashKV(ctx, 0)
	if err != nil {
		s.log.Warn("hashes were not compared", "err", err)
		return
	}
	others := s.others()
	votes := s.poll(ctx, others, callHashKV, protowire.AppendVarint(nil, uint64(h.Revision)))
	mine := encodeHash(h)
	for member, vote := range votes {
		if !sameCompact(vote, mine) {
			delete(votes, member) // compacted in between: not comparable
		}
	}
	votes[s.identity.MemberID] = mine
	s.judge(votes, len(others)+1, func(member uint64, _ string) state.Command {
		return state.Command{Kind: state.KindDivergence, Request: &state.Divergence{Member: member}}
	})
}

// judge finds out who differs from what a majority of the members has, and has
// the log say so. Alarms about members that agree again are ended.
func (s *Server) judge(votes map[uint64]string, members int, accuse func(member uint64, right string) state.Command) {
	right, wrong := verdictOf(votes, members)
	if len(wrong) > 0 {
		s.meters.care.divergences.Add(int64(len(wrong)))
	}
	for _, member := range wrong {
		s.log.Error("members differ", "about", hex(member), "answers", len(votes), "members", members)
		if err := s.proposeOnce(accuse(member, right)); err != nil {
			s.log.Warn("the alarm was not raised", "err", err)
		}
	}
	if len(votes) < members {
		return
	}
	s.meters.care.checks.Add(1)
	if len(wrong) > 0 {
		return
	}
	for _, a := range s.alarms() {
		if a.Type == pb.AlarmType_CORRUPT && a.Raised && a.Member != 0 {
			s.lower(a)
		}
	}
}

// verdictOf returns what most members have, and the members that have something
// else: 0 for nobody knows who, when those that answered differ and there is no
// majority.
func verdictOf(votes map[uint64]string, members int) (right string, wrong []uint64) {
	counts := make(map[string]int)
	for _, v := range votes {
		counts[v]++
	}
	if len(counts) < 2 {
		return "", nil
	}
	for v, n := range counts {
		if n <= members/2 {
			continue
		}
		for member, other := range votes {
			if other != v {
				wrong = append(wrong, member)
			}
		}
		return v, wrong
	}
	return "", []uint64{0}
}

// others returns the ids of the other members.
func (s *Server) others() (ids []uint64) {
	for _, m := range (backend{s}).Members() {
		if m.ID != s.identity.MemberID {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// poll asks members and returns their answers; of those that have none, or do
// not answer, nothing.
func (s *Server) poll(ctx context.Context, members []uint64, method byte, question []byte) map[uint64]string {
	var mu sync.Mutex // protects votes
	votes := make(map[uint64]string)
	var wg sync.WaitGroup
	for _, id := range members {
		wg.Go(func() {
			answer, err := s.peers.Call(ctx, id, method, question)
			if err != nil || len(answer) == 0 {
				s.log.Debug("a member did not answer a comparison", "member", hex(id), "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			votes[id] = string(answer)
		})
	}
	wg.Wait()
	return votes
}

// serveComparison answers another member.
func (s *Server) serveComparison(ctx context.Context, method byte, body []byte) ([]byte, error) {
	args, err := parseVarints(body, 1)
	if err != nil || len(args) != 1 {
		return nil, errors.Join(err, errors.New("one number is needed"))
	}
	if method == callFingerprint {
		// The entry is committed; this member has it once it has caught up.
		if err := s.confirm(ctx); err != nil {
			return nil, err
		}
		return []byte(s.fingerprint(args[0])), nil
	}
	if args[0] > math.MaxInt64 {
		return nil, state.ErrFutureRevision
	}
	h, err := s.hashKV(ctx, int64(args[0]))
	if err != nil {
		return nil, err
	}
	return []byte(encodeHash(h)), nil
}

// fingerprint returns what the entry at index asked for, empty if that is not
// remembered.
func (s *Server) fingerprint(index uint64) (sum string) {
	s.store.with(func(m *state.Machine) {
		if f, ok := m.Fingerprint(index); ok {
			sum = string(f.Sum[:])
		}
	})
	return sum
}

func encodeHash(h checkpoint.KVHash) string {
	b := protowire.AppendVarint(nil, uint64(h.Compact+1))
	return string(protowire.AppendVarint(b, uint64(h.Hash)))
}

// sameCompact reports whether two hashes are of the same stretch of history.
func sameCompact(a, b string) bool {
	x, n := protowire.ConsumeVarint([]byte(a))
	y, k := protowire.ConsumeVarint([]byte(b))
	return n > 0 && k > 0 && x == y
}

// answerAccusation ends this member if the log says that its data is wrong. It
// is called by the applier when there is an accusation or the alarms change, and
// once by join: until then the alarms are those of a log that is being read
// again, and checkInitially deals with them. What it found in order is pardoned,
// until the next accusation.
func (s *Server) answerAccusation() {
	select {
	case <-s.ready:
	default:
		return
	}
	if s.accused() && s.accusations.Load() != s.pardoned.Load() && !s.acquitted() {
		s.fail(ErrDiverged)
	}
}

// accused reports whether an alarm that members raised names this member.
func (s *Server) accused() bool {
	for _, a := range s.alarms() {
		if a.Type == pb.AlarmType_CORRUPT && a.Raised && a.Member == s.identity.MemberID {
			return true
		}
	}
	return false
}

func (s *Server) acquitted() (ok bool) {
	s.store.with(func(m *state.Machine) { ok = m.Acquitted(s.identity.MemberID) })
	return ok
}

// checkInitially compares this member's data with that of the others if it is
// to, or if it was found to differ before it was stopped and the log that it has
// just read again does not say that all is well. It is called when the member
// has joined.
func (s *Server) checkInitially() error {
	accusations := s.accusations.Load()
	suspect := s.accused() && !s.acquitted()
	if suspect || s.cfg.Checks.InitialCorrupt {
		agreed, err := s.agrees()
		if err != nil || suspect && !agreed {
			return errors.Join(ErrDiverged, err)
		}
	}
	s.pardoned.Store(accusations)
	close(s.checked)
	return nil
}

// agrees compares hashes with the other members, and waits for their answers,
// though not long: they may all be starting. It returns an error if some differ,
// and whether a majority is known to have the same.
func (s *Server) agrees() (bool, error) {
	ctx, cancel := context.WithTimeout(s.stopped, initialCheckWait)
	defer cancel()
	others := s.others()
	for {
		h, err := s.hashKV(ctx, 0)
		if err != nil {
			return false, nil // the member stops, or its checkpoint fails: others report that
		}
		mine, same := encodeHash(h), 1
		for member, vote := range s.poll(ctx, others, callHashKV, protowire.AppendVarint(nil, uint64(h.Revision))) {
			if vote == mine {
				same++
			} else if sameCompact(vote, mine) {
				return false, fmt.Errorf("at revision %d it does not have what %s has", h.Revision, hex(member))
			}
		}
		if same == len(others)+1 {
			return true, nil
		}
		if !s.pauseUntil(ctx, initialCheckRetry) {
			return same > (len(others)+1)/2, nil
		}
	}
}

// awaitInitialCheck returns once clients may be served, false if the member
// ends before.
func (s *Server) awaitInitialCheck() bool {
	if !s.cfg.Checks.InitialCorrupt && !s.accused() {
		return true
	}
	select {
	case <-s.checked:
		return true
	case <-s.stopped.Done():
		return false
	}
}

// pause waits, unless the member ends before.
func (s *Server) pause(d time.Duration) bool { return s.pauseUntil(s.stopped, d) }

func (s *Server) pauseUntil(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
