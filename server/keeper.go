package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// keeper is the goroutine that keeps the member small: it writes what changed
// to the checkpoint, lets go of the log and of the history that the checkpoint
// covers, packs what is left, and, on the leader, proposes compaction.
type keeper struct {
	s       *Server
	log     *slog.Logger
	compact compactor
	asked   int64     // the last revision proposed for compaction
	pressed time.Time // when the keeper saw that there is no space; zero while there is
	given   givenHashes
	packing packing
	request chan chan error
	unsaved atomic.Int64  // bytes of the commands applied since the last checkpoint, about
	full    chan struct{} // capacity 1: they are many

	mu    sync.Mutex // held while the checkpoint file is written or replaced
	store *checkpoint.Store
}

// keepInterval is the time between two checkpoints. A checkpoint is not what
// makes a write durable (the log is); it bounds what a restart replays.
const keepInterval = time.Second

// keepBytes is how many bytes of commands may be applied before the next
// checkpoint is written early. Until then their entries and events stay in memory,
// which takes about three times as much.
const keepBytes = 2 << 20

// note is told of each applied batch.
func (k *keeper) note(bytes int64) {
	if k.unsaved.Add(bytes) < keepBytes {
		return
	}
	select {
	case k.full <- struct{}{}:
	default:
	}
}

func (k *keeper) run(stop <-chan struct{}) {
	ticker := time.NewTicker(keepInterval)
	defer ticker.Stop()
	for {
		var asked chan error
		regular := false
		select {
		case <-stop:
			return
		case <-ticker.C:
			regular = true
		case <-k.full:
		case asked = <-k.request:
		}
		applied := k.unsaved.Load()
		err := k.save()
		if asked != nil {
			asked <- err
		}
		if err != nil {
			k.s.fail(fmt.Errorf("checkpoint: %w", err))
			return
		}
		if k.packing.due(applied, regular, k.s.store.packSize()) {
			k.pack(stop)
		}
		k.proposeCompaction(time.Now())
		ticker.Reset(k.relieve(time.Now()))
	}
}

// saveNow returns once everything applied before the call is in the checkpoint.
func (k *keeper) saveNow(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case k.request <- answer:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-k.s.stopped.Done():
		return rpc.ErrStopped
	}
	select {
	case err := <-answer:
		return err
	case <-k.s.stopped.Done():
		return rpc.ErrStopped
	}
}

// save writes what changed since the last checkpoint. Only after the commit is
// durable are the machine, the replica and the log told, so whatever they let
// go of can be read from the checkpoint (R12).
func (k *keeper) save() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var changes state.Changes
	var conf *raftpb.ConfState // at the same index
	k.unsaved.Store(0)
	k.s.store.with(func(m *state.Machine) { changes, conf = m.TakeChanges(), replica.ConfState(m.Voters()) })
	if changes.Index <= k.store.Meta().Index {
		k.store.Rest()
		return nil
	}
	began := time.Now()
	if err := k.store.Save(changes, conf); err != nil {
		return err
	}
	k.s.meters.commit.Observe(time.Since(began).Seconds())
	k.s.store.with(func(m *state.Machine) { m.Archived(changes.Revision) })
	at := replica.Snapshot{Index: changes.Index, Term: changes.Term, ConfState: conf}
	k.s.loop.do(func(r *replica.Replica) { r.Checkpointed(at) })
	k.s.appender.release.Store(at.Index)
	return nil
}

// proposeCompaction proposes, on the leader, to cut the history that is past
// its retention. It does not wait: the next turn sees whether it happened.
func (k *keeper) proposeCompaction(now time.Time) {
	s := k.s
	revision, compacted := s.revision.Load(), s.compacted.Load()
	target := k.compact.target(now, revision, compacted, s.historyBytes.Load())
	if s.pressed() && s.crowded() {
		target = max(target, halfway(compacted, revision))
	}
	if target <= compacted || target == k.asked || !s.leading() {
		return
	}
	c := state.Command{Kind: state.KindCompact, Request: &pb.CompactionRequest{Revision: target}}
	if err := s.proposeOnce(c); err == nil {
		k.asked = target
		k.log.Debug("compaction proposed", "revision", target, "current", revision)
	}
}

// install replaces the checkpoint by the received file at path and returns the
// machine that it holds.
func (k *keeper) install(path string, at *raftpb.SnapshotMetadata) (*state.Machine, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.store.Install(path); err != nil {
		return nil, err
	}
	if got := k.store.Meta().Index; got != at.GetIndex() {
		return nil, fmt.Errorf("received checkpoint is of index %d, not %d", got, at.GetIndex())
	}
	return k.store.Load(k.s.stateConfig())
}

// snapshotFor opens the newest checkpoint for a follower that fell behind. A
// checkpoint of a time before the follower was a member is of no use to it.
func (k *keeper) snapshotFor(ctx context.Context, id uint64) (*checkpoint.Snapshot, error) {
	snap, err := k.snapshot()
	if err != nil {
		return nil, err
	}
	if c := snap.Meta().ConfState; slices.Contains(c.GetVoters(), id) || slices.Contains(c.GetLearners(), id) {
		return snap, nil
	}
	if err := errors.Join(snap.Close(), k.saveNow(ctx)); err != nil {
		return nil, err
	}
	return k.snapshot()
}

// snapshot opens the newest checkpoint.
func (k *keeper) snapshot() (*checkpoint.Snapshot, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.store.Snapshot()
}

// size returns the bytes of the checkpoint file and those of it in use.
func (k *keeper) size() (total, inUse int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.store.Size()
}
