package server

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/checkpoint"
	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// recovered is what a member finds in its data directory.
type recovered struct {
	identity   wal.Identity
	log        *wal.Log
	checkpoint *checkpoint.Store
	machine    *state.Machine
	replica    replica.Recovered
	applied    uint64
}

// recoverMember opens the log and the checkpoint and brings them together: the
// state is the checkpoint's, the log above it is replayed once its entries are
// known to be committed.
func (s *Server) recoverMember(l layout) (rec recovered, err error) {
	defer func() {
		if err == nil {
			return
		}
		if rec.log != nil {
			_ = rec.log.Close()
		}
		if rec.checkpoint != nil {
			_ = rec.checkpoint.Close()
		}
	}()
	if rec.checkpoint, err = checkpoint.Open(l.db()); err != nil {
		return rec, directoryError(err)
	}
	meta := rec.checkpoint.Meta()
	rec.identity = wal.Identity{ClusterID: meta.ClusterID, MemberID: meta.MemberID}
	if rec.machine, err = rec.checkpoint.Load(s.stateConfig()); err != nil {
		return rec, directoryError(err)
	}
	if err = s.openLog(&rec, l, meta); err != nil {
		return rec, directoryError(err)
	}
	rec.applied = meta.Index
	return rec, nil
}

// openLog opens the write-ahead log and closes the one gap that a crash may
// leave: a received checkpoint is renamed into place before the log is told to
// restart behind it (see appendSnapshot), so a log that does not reach the
// checkpoint is restarted now. Nothing is lost by it: what that log held is
// contained in the checkpoint or was never committed. Its term and vote stay.
func (s *Server) openLog(rec *recovered, l layout, meta checkpoint.Meta) error {
	log, found, err := wal.Open(wal.Config{FS: s.cfg.files, Dir: l.wal(), Identity: rec.identity, Logger: s.log})
	if err != nil {
		return err
	}
	rec.log = log
	if found.Torn != nil {
		s.log.Warn("the last batch of the log was not complete and was never acknowledged; it is set aside",
			"file", found.Torn.File, "offset", found.Torn.Offset, "bytes", found.Torn.Bytes)
	}
	rec.replica = recoveredLog(meta, found)
	if rec.replica.Continues() {
		return nil
	}
	if found.Base.Index > meta.Index {
		return gapError(found.Base.Index, meta.Index)
	}
	hs := &raftpb.HardState{
		Term: new(found.HardState.GetTerm()), Vote: new(found.HardState.GetVote()), Commit: &meta.Index,
	}
	base := wal.Base{Index: meta.Index, Term: meta.Term}
	if err := log.Append(wal.Batch{Reset: &base, HardState: hs}, true); err != nil {
		return fmt.Errorf("restart log behind checkpoint %d: %w", meta.Index, err)
	}
	rec.replica.BaseIndex, rec.replica.BaseTerm = base.Index, base.Term
	rec.replica.Entries, rec.replica.HardState = nil, hs
	return nil
}

func recoveredLog(meta checkpoint.Meta, found wal.Recovery) replica.Recovered {
	return replica.Recovered{
		Snapshot:  replica.Snapshot{Index: meta.Index, Term: meta.Term, ConfState: meta.ConfState},
		BaseIndex: found.Base.Index, BaseTerm: found.Base.Term,
		Entries:   found.Entries,
		HardState: found.HardState,
	}
}

func gapError(base, checkpoint uint64) error {
	return fmt.Errorf("%w: the log begins after index %d, the checkpoint ends at %d; restore the member from the others",
		ErrDamagedDataDir, base, checkpoint)
}

// explained names the command that says what is wrong with a directory.
func explained(l layout, err error) error {
	if errors.Is(err, ErrDamagedDataDir) || errors.Is(err, ErrForeignDataDir) {
		return fmt.Errorf("%w; \"latchkey doctor %s\" explains it", err, l.root)
	}
	return err
}

// directoryError names the kind of an error of the data directory.
func directoryError(err error) error {
	var damage *wal.DamageError
	switch {
	case errors.As(err, &damage), errors.Is(err, checkpoint.ErrDamaged):
		return fmt.Errorf("%w: %w", ErrDamagedDataDir, err)
	case errors.Is(err, wal.ErrForeign), errors.Is(err, checkpoint.ErrForeign):
		return fmt.Errorf("%w: %w", ErrForeignDataDir, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, wal.ErrNotFound):
		return fmt.Errorf("%w: %w; start with an empty data-dir, or with the directory this member wrote", ErrForeignDataDir, err)
	default:
		return err
	}
}
