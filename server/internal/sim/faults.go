package sim

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// How soon the members do without a leader whose connections broke: each forgets it after the first number of ticks, and
// they stand for election one after the other, the second number apart. The server has the same.
const (
	forgetTicks   = 1
	campaignTicks = 3
)

// startFaults makes each kind of fault happen at random times, as often as the options say.
func (s *sim) startFaults() {
	s.every(s.Partitions, s.partition)
	s.every(s.Crashes, func() { s.crash(s.pick(), s.Outage) })
	s.every(s.LeaderKills, func() { s.killLeader(50) })
	s.every(s.Pauses, s.pause)
	s.every(s.Stalls, s.stall)
	s.every(s.Isolations, s.isolate)
	s.every(s.Rivals, s.rivals)
	s.every(s.Rot, s.rot)
	s.every(s.SlowDisks, s.slowDisk)
	s.every(s.SyncFailures, func() { s.pick().failSync = true })
	s.every(s.Reconfigs, s.reconfigure)
	s.every(s.LateApplies, func() {
		n := s.pick()
		n.late = time.Duration(100 + s.rng.IntN(3000))
		s.after(s.around(s.Outage), func() { n.late = 1 })
	})
	s.every(s.Transfers, func() {
		if n := s.leader(); n != nil {
			s.counts.Transfers++
			n.rep.TransferLeader(s.pick().id)
			n.pump()
		}
	})
	s.every(s.Campaigns, func() {
		if n := s.pick(); n.up {
			n.rep.ForgetLeader()
			n.rep.Campaign()
			n.pump()
		}
	})
}

func (s *sim) every(mean time.Duration, fn func()) {
	if mean == 0 {
		return
	}
	s.after(s.around(mean), func() {
		if s.faulty {
			fn()
			s.every(mean, fn)
		}
	})
}

// crash ends a process, with or without the power, and starts it again some time later.
func (s *sim) crash(n *node, outage time.Duration) {
	if !n.up {
		return
	}
	s.counts.Crashes++
	if s.chance(s.PowerCuts) {
		n.powerCut()
	} else {
		n.kill()
	}
	s.note("crash", n.id)
	s.after(s.around(outage), func() {
		if !n.up {
			n.restart()
		}
	})
}

// voted may crash a member right after it gave its vote, so that it is asked again in the same term.
func (s *sim) voted(n *node, m *raftpb.Message) {
	if s.faulty && m.GetType() == raftpb.MsgVoteResp && !m.GetReject() && s.chance(s.VoteCrashes) {
		s.counts.VoteCrashes++
		s.afterOn(n, 1, func() { s.crash(n, s.Delay) })
	}
}

// killLeader crashes a leader at a time when it has writes under way.
func (s *sim) killLeader(tries int) {
	n := s.leader()
	switch {
	case n != nil && n.rep.Status().Pending > 0:
		s.counts.LeaderKills++
		s.crash(n, s.Outage)
	case tries > 0:
		s.after(time.Millisecond, func() {
			if s.faulty {
				s.killLeader(tries - 1)
			}
		})
	}
}

// pause stops a process without its knowledge. Its messages and timers wait.
func (s *sim) pause() {
	n := s.pick()
	if s.chance(0.5) && s.leader() != nil {
		n = s.leader()
	}
	if n.up {
		s.counts.Pauses++
		n.pausedUntil = min(s.now+s.around(3*s.Outage/2), s.Active)
	}
}

// stall pauses a leader's host: its connections break, and clients find it again before the other members do. For that
// while it believes that it leads.
func (s *sim) stall() {
	n := s.leader()
	if n == nil {
		return
	}
	s.counts.Stalls++
	n.pausedUntil = min(s.now+s.Outage+s.around(4*s.Outage), s.Active)
	s.cutOff(n, n.pausedUntil-s.now+s.around(s.Outage))
}

// isolate breaks the connections of a leader to the members, not to the clients. The others forget it, as the server's
// do when a connection breaks, and elect another before it has missed them: for that while two believe that they lead.
// It lasts longer than a lease, so that the new leader ends those which only the old one is asked to renew. Those that
// have no vote may stay with it.
func (s *sim) isolate() {
	n := s.leader()
	if n == nil || s.isolated {
		return
	}
	s.isolated = true
	s.counts.Isolations++
	lasts := time.Duration(s.TTL)*time.Second + s.around(s.Outage)
	var company []uint64
	if _, learners := n.mach.Voters(); len(learners) > 0 && s.chance(0.5) {
		company = learners
	}
	s.cutOff(n, lasts, company...)
	s.after(lasts, func() { s.isolated = false })
	rank := 0
	for _, other := range s.nodes {
		if other == n || !other.up || slices.Contains(company, other.id) {
			continue
		}
		s.afterOn(other, forgetTicks*tickEvery, func() {
			if other.lead == n.id {
				other.rep.ForgetLeader()
				other.pump()
			}
		})
		s.afterOn(other, time.Duration(forgetTicks+1+rank*campaignTicks)*tickEvery, func() {
			if other.lead == 0 {
				other.rep.Campaign()
				other.pump()
			}
		})
		rank++
	}
}

// cutOff cuts all links of a member for a while, but those to some.
func (s *sim) cutOff(n *node, d time.Duration, but ...uint64) {
	others := slices.DeleteFunc(slices.Clone(s.nodes), func(other *node) bool { return slices.Contains(but, other.id) })
	for _, other := range others {
		s.net.cut(n.id, other.id)
		s.net.cut(other.id, n.id)
	}
	s.after(d, func() {
		for _, other := range others {
			s.net.join(n.id, other.id)
			s.net.join(other.id, n.id)
		}
	})
}

// rivals restarts the leader's process, makes all others forget it, and two of them stand for election at once: the
// voters are asked twice in one term, and of three members one decides alone.
func (s *sim) rivals() {
	n := s.leader()
	if n == nil {
		return
	}
	first := s.rng.IntN(len(s.nodes) - 1)
	second := (first + 1 + s.rng.IntN(len(s.nodes)-2)) % (len(s.nodes) - 1)
	n.kill()
	n.restart()
	var others []*node
	for _, other := range s.nodes {
		if other != n {
			others = append(others, other)
		}
	}
	if !others[first].up || !others[second].up {
		return
	}
	s.counts.Rivals++
	for _, other := range others {
		if other.up {
			other.rep.ForgetLeader()
			other.pump()
		}
	}
	for _, i := range []int{first, second} {
		others[i].rep.Campaign()
		others[i].pump()
	}
}

func (s *sim) slowDisk() {
	n := s.pick()
	s.counts.SlowDisks++
	n.slow = time.Duration(10 + s.rng.IntN(200))
	s.after(s.around(2*s.Outage), func() { n.slow = 1 })
}

// partition cuts links: around one member, between two halves, one way only, or so that who hears whom is not
// transitive.
func (s *sim) partition() {
	s.counts.Partitions++
	var links [][2]uint64
	one := s.pick()
	if l := s.leader(); l != nil && s.chance(0.4) {
		one = l
	}
	kind := s.rng.IntN(5)
	side := s.rng.Uint64()
	for _, a := range s.nodes {
		for _, b := range s.nodes {
			if a == b {
				continue
			}
			cut := false
			switch kind {
			case 0: // one alone
				cut = a == one || b == one
			case 1: // it hears nobody
				cut = b == one
			case 2: // nobody hears it
				cut = a == one
			case 3: // two sides
				cut = side>>a.id&1 != side>>b.id&1
			case 4: // a ring: each hears only its neighbours
				d := int(a.id) - int(b.id)
				cut = d != 1 && d != -1
			}
			if cut {
				links = append(links, [2]uint64{a.id, b.id})
			}
		}
	}
	for _, l := range links {
		s.net.cut(l[0], l[1])
	}
	s.after(s.around(2*s.Outage), func() {
		for _, l := range links {
			s.net.join(l[0], l[1])
		}
	})
}
