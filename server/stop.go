package server

import (
	"context"
	"errors"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/replica"
)

// drainTimeout bounds how long a graceful stop waits for requests under way.
const drainTimeout = time.Second

// Ready is closed once the member has joined its cluster: there is a leader,
// and the member's addresses are published.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Done is closed when nothing of the member runs any more; if its end is
// ErrStalled, at once, since what waits for a disk that does not answer can not
// be ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns nil while the member runs, then the reason of its end:
// ErrStopped, ErrKilled, or the failure that ended it.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return context.Cause(s.stopped)
	default:
		return nil
	}
}

// Stop ends the member in order: a leader hands over to the follower that is
// furthest, streams are ended so that clients move on, requests under way are
// answered, the state is written to the checkpoint. It returns when all of it
// is over; ctx bounds the wait for the hand-over and for requests. Stopping
// twice is harmless.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		s.handOver(ctx)
		close(s.stopping)
		s.front.leave(ctx)
		s.graceful.Store(true)
		s.end(ErrStopped)
	})
	<-s.done
	if err := context.Cause(s.stopped); !errors.Is(err, ErrStopped) && !errors.Is(err, ErrKilled) {
		return err
	}
	return nil
}

// Kill ends the member abruptly, as a crash would: no hand-over, no goodbye to
// clients, nothing written that was not already. It is meant for tests and
// demonstrations.
func (s *Server) Kill() {
	s.end(ErrKilled)
	<-s.done
}

// handOver moves leadership to the follower whose log is furthest, and waits
// until another member leads.
func (s *Server) handOver(ctx context.Context) {
	changed := s.leadership.watch()
	asked := make(chan bool, 1)
	s.loop.do(func(r *replica.Replica) {
		to := uint64(0)
		if st := r.Status(); st.Role == replica.Leader {
			to = successor(st.Peers)
		}
		if to != 0 {
			r.TransferLeader(to)
		}
		asked <- to != 0
	})
	select {
	case ok := <-asked:
		if !ok {
			return
		}
	case <-ctx.Done():
		return
	case <-s.stopped.Done():
		return
	}
	deadline := time.NewTimer(2 * s.cfg.ElectionTimeout)
	defer deadline.Stop()
	for s.leading() || !s.HasLeader() {
		select {
		case <-changed:
			changed = s.leadership.watch()
		case <-deadline.C:
			return
		case <-ctx.Done():
			return
		case <-s.stopped.Done():
			return
		}
	}
}

// successor picks the active voter with the most of the log, 0 for none.
func successor(peers []replica.Peer) uint64 {
	best := replica.Peer{}
	for _, p := range peers {
		if p.RecentActive && !p.Learner && (best.ID == 0 || p.Match > best.Match) {
			best = p
		}
	}
	return best.ID
}

// janitor waits for the member's end and then ends its parts, from the outside
// in: nobody can ask any more before those who answer are gone.
func (s *Server) janitor() {
	<-s.stopped.Done()
	if stalled := errors.Is(context.Cause(s.stopped), ErrStalled); stalled {
		close(s.done) // those who wait for the disk may do so for ever
	} else {
		defer close(s.done)
	}
	s.inProcess.close()
	s.front.stop()
	s.peers.Close()
	s.front.watches.Wait()
	s.front.lease.Wait()
	s.leadership.close()
	s.hub.Close()
	s.loop.close()
	close(s.halt)
	<-s.appender.done
	<-s.applier.done
	s.workers.Wait()
	if s.graceful.Load() {
		if err := s.keeper.save(); err != nil {
			s.log.Error("last checkpoint", "err", err)
		}
	}
	if err := s.front.closeAudit(); err != nil {
		s.log.Error("close audit log", "err", err)
	}
	if err := errors.Join(s.appender.log.Close(), s.keeper.store.Close(), s.lock.Close()); err != nil {
		s.log.Error("close data directory", "err", err)
	}
	s.log.Info("stopped", "cause", context.Cause(s.stopped))
}
