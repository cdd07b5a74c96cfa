package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/peer"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// peerHandler is the member as its peers see it.
type peerHandler struct{ s *Server }

var _ peer.Handler = peerHandler{}

// Messages has the reader of entries, and of proposals if there are few, write
// them to the log itself.
func (h peerHandler) Messages(_ uint64, ms []*raftpb.Message, more bool) {
	write := writesNot
	if !more {
		switch ms[len(ms)-1].GetType() {
		case raftpb.MsgApp:
			write = writesAll
		case raftpb.MsgProp:
			write = writesLight
		}
	}
	h.s.loop.step(ms, write)
}

// Unreachable tells the replica that messages to a peer may be lost, so that
// it probes instead of streaming, and that the leader may be gone.
func (h peerHandler) Unreachable(id uint64) {
	broken := !h.s.alive(id)
	h.s.loop.do(func(r *replica.Replica) {
		r.ReportUnreachable(id)
		if broken {
			h.s.loop.suspect.broken(r, id)
		}
	})
}

// alive reports whether a session with the peer is up.
func (s *Server) alive(id uint64) bool {
	_, ok := s.peers.Active(id)
	return ok
}

func (h peerHandler) Connected(id uint64) { h.s.log.Debug("peer connected", "peer", hex(id)) }

func (h peerHandler) SnapshotSent(id uint64, ok bool) {
	h.s.loop.do(func(r *replica.Replica) { r.ReportSnapshot(id, ok) })
}

func (h peerHandler) Call(ctx context.Context, _ uint64, method byte, body []byte) ([]byte, error) {
	if method == callPing {
		return nil, nil
	}
	if method == callPromote {
		return h.s.servePromote(ctx, body)
	}
	if method == callFingerprint || method == callHashKV {
		return h.s.serveComparison(ctx, method, body)
	}
	return h.s.lessor.serveCall(ctx, method, body)
}

// Snapshot receives a whole checkpoint into a file of its own and then hands
// the replica the message that announces it: when raft asks for it to be
// installed, it is here and durable.
func (h peerHandler) Snapshot(from uint64, m *raftpb.Message, r io.Reader) error {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	path, err := h.s.snapshots.receive(index, r)
	if err != nil {
		return fmt.Errorf("receive checkpoint %d from %s: %w", index, hex(from), err)
	}
	h.s.log.Info("checkpoint received", "from", hex(from), "index", index, "path", path)
	h.s.loop.step([]*raftpb.Message{m}, writesNot)
	return nil
}

// snapshots keeps received checkpoints until raft asks for one to be installed;
// those below it are of no use then.
type snapshots struct {
	dir string

	mu   sync.Mutex // protects kept and the files in dir
	kept []uint64   // their indexes, ascending
}

// keptMax bounds the received checkpoints that wait to be installed. Raft asks
// for each soon after it arrived, or never, if entries came first.
const keptMax = 3

// errNoSnapshot: raft asks for a checkpoint that is not here.
var errNoSnapshot = errors.New("the checkpoint was not received")

func (s *snapshots) path(index uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%016x.db", index))
}

// clean removes what an earlier run left behind.
func (s *snapshots) clean() error {
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove old received checkpoints: %w", err)
	}
	return os.MkdirAll(s.dir, 0o700)
}

// receive writes r to a file and returns once it is durable.
func (s *snapshots) receive(index uint64, r io.Reader) (string, error) {
	f, err := os.CreateTemp(s.dir, "receiving-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing of that name
	_, err = io.Copy(f, r)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return "", err
	}
	s.makeRoom()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Rename(f.Name(), s.path(index)); err != nil {
		return "", err
	}
	if err := disk.OS().SyncDir(s.dir); err != nil {
		return "", err
	}
	if !slices.Contains(s.kept, index) {
		s.kept = append(s.kept, index)
		slices.Sort(s.kept)
	}
	return s.path(index), nil
}

// makeRoom forgets the oldest checkpoint when there are too many: raft has had
// what it needs from entries since, or it asks the leader again.
func (s *snapshots) makeRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == keptMax {
		_ = os.Remove(s.path(s.kept[0])) // an orphan is removed at the next start
		s.kept = s.kept[1:]
	}
}

// claim hands over the file of a checkpoint, and forgets those below it.
func (s *snapshots) claim(index uint64) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := slices.BinarySearch(s.kept, index)
	if !ok {
		return "", fmt.Errorf("%w: index %d, kept %v", errNoSnapshot, index, s.kept)
	}
	for _, old := range s.kept[:at] {
		_ = os.Remove(s.path(old))
	}
	s.kept = s.kept[at+1:]
	return s.path(index), nil
}

// openSnapshot opens the newest checkpoint for a follower. It may be newer
// than the one that raft named: the message is changed to say so, which raft
// allows because the follower answers with the index that it really has.
func (s *Server) openSnapshot(m *raftpb.Message) (peer.Snapshot, error) {
	snap, err := s.keeper.snapshotFor(s.stopped, m.GetTo())
	if err != nil {
		return nil, err
	}
	meta := snap.Meta()
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: &meta.Index, Term: &meta.Term, ConfState: meta.ConfState,
	}}
	return snap, nil
}

// install runs on the appender's goroutine. The machine is replaced by the
// applier between two batches, so nothing is applied to the one that goes.
func (s *Server) install(snap *raftpb.Snapshot) error {
	meta := snap.GetMetadata()
	path, err := s.snapshots.claim(meta.GetIndex())
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	s.applier.inbox.put(applyWork{do: func() {
		done <- s.hub.Replace(func() error {
			machine, err := s.keeper.install(path, meta)
			if err == nil {
				s.adopt(machine)
			}
			return err
		})
	}})
	select {
	case err := <-done:
		if err == nil {
			s.installed.Add(1)
			s.log.Info("checkpoint installed", "index", meta.GetIndex())
		}
		return err
	case <-s.stopped.Done():
		return context.Cause(s.stopped)
	}
}

// adopt puts a machine that came from another member in place. Watchers keep
// their next revision and read on from the new history.
func (s *Server) adopt(m *state.Machine) {
	if s.store.auth.current.Load().Revision() != m.Auth().Revision() {
		s.front.tokens.Clear() // what ended them may have been missed
	}
	s.store.replace(m)
	size := m.Size()
	index, term := m.Applied()
	s.published(batchInfo{
		index: index, term: term,
		revision: m.Revision(), compact: m.CompactRevision(),
		live: size.Live, history: size.History, leaseCount: m.LeaseCount(),
		events: m.History(), roster: rosterOf(m),
		alarms: m.Alarms(), accusations: m.Accusations(),
	})
	later := new(completions)
	s.store.release(later)
	later.tell()
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }
