package server

import (
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	// quotaClearPercent of the quota is what the data must be below for a
	// NOSPACE alarm that a member raised to go by itself. The gap keeps the
	// alarm from coming and going with every delete.
	quotaClearPercent = 80
	// historyQuotaShare bounds the history to this part of the quota, if that is
	// less than HistoryBytes, but to no less than historyFloorBytes.
	historyQuotaShare = 4
	historyFloorBytes = 1 << 20
	// pressedInterval is the time between two looks for space while a member has
	// run out of it.
	pressedInterval = 100 * time.Millisecond
	// quotaHold is the least time that a raised NOSPACE alarm is on: who is told
	// that there is no space, or watches over the cluster, finds it.
	quotaHold = 5 * time.Second
)

// verdict is what becomes of a command before it enters the log.
type verdict int

const (
	admitted verdict = iota
	full             // over the quota: the alarm takes the command's place
)

// admit checks a command against the alarms and the quota. What passes may
// still be refused when it is applied, since an alarm may be ahead of it in the
// log: that alone is what all members agree on, this spares the log the rest.
func (s *Server) admit(c *state.Command) (verdict, error) {
	if err := barredBy(s.alarms(), c); err != nil {
		s.meters.care.refusals.Add(1)
		return admitted, err
	}
	cost := state.Cost(c)
	if cost == 0 || s.cfg.QuotaBytes < 0 || s.usedBytes()+cost <= s.cfg.QuotaBytes {
		return admitted, nil
	}
	s.meters.care.refusals.Add(1)
	return full, nil
}

// usedBytes is what the quota counts: live keys and values, and the history
// that is not compacted. Free pages of the checkpoint do not count.
func (s *Server) usedBytes() int64 { return s.liveBytes.Load() + s.historyBytes.Load() }

// historyBound is what history may take before it is cut whatever the retention.
func historyBound(c Config) int64 {
	if c.QuotaBytes < 0 {
		return c.HistoryBytes
	}
	return min(c.HistoryBytes, max(c.QuotaBytes/historyQuotaShare, historyFloorBytes))
}

// alarms returns the alarms that were on after the last batch was applied.
func (s *Server) alarms() []state.Alarm {
	if list := s.alarmsOn.Load(); list != nil {
		return *list
	}
	return nil
}

// followAlarms keeps what was applied, on the applier's goroutine.
func (s *Server) followAlarms(b batchInfo) {
	if s.accusations.Swap(b.accusations) == b.accusations && slices.Equal(s.alarms(), b.alarms) {
		return
	}
	alarms := b.alarms
	s.alarmsOn.Store(&alarms)
	for _, a := range alarms {
		s.log.Warn("alarm is on", "alarm", a.Type.String(), "about", hex(a.Member), "raised", a.Raised)
	}
	if len(alarms) == 0 {
		s.log.Info("no alarm is on")
	}
	s.answerAccusation()
}

func barredBy(alarms []state.Alarm, c *state.Command) error {
	if len(alarms) == 0 {
		return nil
	}
	return state.Barred(alarms, c)
}

// fullAlarm is the command that says that this member is over its quota.
func (s *Server) fullAlarm() state.Command {
	return state.Command{Kind: state.KindRaise, Request: &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: s.identity.MemberID, Alarm: pb.AlarmType_NOSPACE,
	}}
}

// refusal answers a call that was over the quota once the alarm is on: whoever
// was refused finds the alarm when he asks.
type refusal struct{ rpc.Completion }

func (r refusal) Done(_ proto.Message, _ error, b *front.Batch) {
	r.Completion.Done(nil, rpc.ErrNoSpace, b)
}

// relieve ends, on the leader, the alarms about space that members raised once
// there is enough again, and they were on long enough to be seen. It does not
// wait, and returns when to look again.
func (k *keeper) relieve(now time.Time) time.Duration {
	s := k.s
	if !s.pressed() {
		k.pressed = time.Time{}
		return keepInterval
	}
	if k.pressed.IsZero() {
		k.pressed = now
	}
	s.store.with(func(m *state.Machine) { // what was swept since the last batch
		size := m.Size()
		s.liveBytes.Store(size.Live)
		s.historyBytes.Store(size.History)
	})
	if !s.crowded() && now.Sub(k.pressed) >= s.cfg.Checks.hold {
		for _, a := range s.alarms() {
			if a.Type == pb.AlarmType_NOSPACE && a.Raised {
				s.lower(a)
			}
		}
	}
	return pressedInterval
}

// crowded reports whether too much of the quota is in use for the alarm to go.
func (s *Server) crowded() bool {
	return s.cfg.QuotaBytes >= 0 && s.usedBytes() >= s.cfg.QuotaBytes/100*quotaClearPercent
}

// lower proposes, on the leader, to end an alarm that a member raised.
func (s *Server) lower(a state.Alarm) {
	if !s.leading() {
		return
	}
	_ = s.proposeOnce(state.Command{Kind: state.KindRaise, Request: &pb.AlarmRequest{
		Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.Member, Alarm: a.Type,
	}})
}

// proposeOnce proposes a decision of the leader's and does not wait: who needs
// it looks again, and decides again.
func (s *Server) proposeOnce(c state.Command) error {
	data, err := c.AppendTo(nil)
	if err != nil {
		return err
	}
	w := newWaiter(c, data, nil)
	w.once = true
	return s.loop.propose(w)
}

// pressed reports whether a member ran out of space.
func (s *Server) pressed() bool {
	return slices.ContainsFunc(s.alarms(), func(a state.Alarm) bool {
		return a.Type == pb.AlarmType_NOSPACE && a.Raised
	})
}
