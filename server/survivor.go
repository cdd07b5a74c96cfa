package server

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/replica"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

// survive makes this member the only one of its cluster, with all that its log
// has: a part of it may not be committed, but the part that others acknowledged
// is in it, and nobody is left who could say which. What it makes is a new point
// of the log, in the checkpoint first. After a crash in between the log is taken
// for one that ends below its checkpoint, which it does.
func (s *Server) survive(rec *recovered) error {
	m, at := rec.machine, rec.replica
	index, term := m.Applied()
	for _, raw := range at.Entries {
		if raw.GetIndex() <= index {
			continue
		}
		e, err := replica.Decode(raw)
		if err != nil {
			return fmt.Errorf("entry %d: %w", raw.GetIndex(), err)
		}
		commands, err := decode(&replica.Apply{Entries: []replica.Entry{e}})
		if err != nil {
			return err
		}
		m.Apply(e.Index, e.Term, commands[0])
		index, term = e.Index, e.Term
	}
	index, term = index+1, max(term, at.HardState.GetTerm())
	m.Apply(index, term, []state.Command{{
		Kind: state.KindMemberReset, Request: &state.MemberChange{ID: rec.identity.MemberID},
	}})
	conf := replica.ConfState(m.Voters())
	changes := m.TakeChanges()
	if err := rec.checkpoint.Save(changes, conf); err != nil {
		return err
	}
	m.Archived(changes.Revision)
	hs := &raftpb.HardState{Term: &term, Vote: new(uint64(0)), Commit: &index}
	base := wal.Base{Index: index, Term: term}
	if err := rec.log.Append(wal.Batch{Reset: &base, HardState: hs}, true); err != nil {
		return fmt.Errorf("restart log at %d: %w", index, err)
	}
	rec.applied = index
	rec.replica = replica.Recovered{
		Snapshot:  replica.Snapshot{Index: index, Term: term, ConfState: conf},
		BaseIndex: index, BaseTerm: term, HardState: hs,
	}
	s.log.Warn("this member is now the only one of its cluster; remove force-new-cluster before the next start", "members removed", len(m.RemovedMembers()))
	return nil
}

// settle looks at what was recovered before anything runs on it.
func (s *Server) settle(rec *recovered) error {
	if s.cfg.Membership.ForceNewCluster {
		if err := s.survive(rec); err != nil {
			return fmt.Errorf("force new cluster: %w", err)
		}
	}
	for _, id := range rec.machine.RemovedMembers() {
		if id == rec.identity.MemberID {
			return fmt.Errorf("%w: start it with an empty data-dir after `latchkey member add`", ErrRemoved)
		}
	}
	return nil
}

// close ends what was opened.
func (rec *recovered) close() error {
	return errors.Join(rec.log.Close(), rec.checkpoint.Close())
}
