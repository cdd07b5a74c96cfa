package sim

import "fmt"

// Counts say how much happened in one run or, added up, in many.
type Counts struct {
	Runs, Events                              int
	Entries, Commands, Acked, Uncertain       int
	NotApplied, Retried, Repeated             int
	Reads, LocalReads, OldReads               int
	Elections                                 int
	Checkpoints, Snapshots, LogResets         int
	Compactions, Renewals, Expiries           int
	Locks, LocksLost, GuardedWrites, Watched  int
	WatchesMoved, WatchesCompacted            int
	Digests, Histories, HistoryOps, Undecided int
	FaultCounts
}

// FaultCounts say how many faults there were.
type FaultCounts struct {
	Crashes, PowerCuts, LeaderKills, Restarts int
	TornWrites, VoteCrashes, SyncFailures     int
	Rotted, RotRefused                        int
	Partitions, Isolations, Rivals            int
	Pauses, Stalls, SlowDisks, Transfers      int
	Reconfigurations, Joined, Promoted        int
	Removed                                   int
}

// Add adds c to the sum.
func (sum *Counts) Add(c Counts) {
	a, b := sum.fields(), c.fields()
	for i := range a {
		*a[i].n += *b[i].n
	}
}

// String lists the counts that are not 0.
func (c Counts) String() string {
	out := ""
	for _, f := range c.fields() {
		if *f.n != 0 {
			out += fmt.Sprintf("%s %d, ", f.name, *f.n)
		}
	}
	return out[:max(0, len(out)-2)]
}

type countField struct {
	name string
	n    *int
}

func (c *Counts) fields() []countField {
	return []countField{
		{"runs", &c.Runs},
		{"events", &c.Events},
		{"entries", &c.Entries},
		{"commands", &c.Commands},
		{"acknowledged", &c.Acked},
		{"uncertain", &c.Uncertain},
		{"not applied", &c.NotApplied},
		{"retried", &c.Retried},
		{"repeated messages", &c.Repeated},
		{"reads", &c.Reads},
		{"local reads", &c.LocalReads},
		{"reads of old revisions", &c.OldReads},
		{"elections", &c.Elections},
		{"crashes", &c.Crashes},
		{"power cuts", &c.PowerCuts},
		{"leader crashes during writes", &c.LeaderKills},
		{"crashes after a vote", &c.VoteCrashes},
		{"crashes during a log write", &c.TornWrites},
		{"damaged logs", &c.Rotted},
		{"damaged logs refused", &c.RotRefused},
		{"failed syncs", &c.SyncFailures},
		{"restarts", &c.Restarts},
		{"partitions", &c.Partitions},
		{"pauses", &c.Pauses},
		{"stalls", &c.Stalls},
		{"leaders isolated", &c.Isolations},
		{"rival candidates", &c.Rivals},
		{"slow disks", &c.SlowDisks},
		{"transfers", &c.Transfers},
		{"changes of members", &c.Reconfigurations},
		{"members joined", &c.Joined},
		{"learners promoted", &c.Promoted},
		{"members removed", &c.Removed},
		{"checkpoints", &c.Checkpoints},
		{"snapshots installed", &c.Snapshots},
		{"logs restarted at recovery", &c.LogResets},
		{"compactions", &c.Compactions},
		{"renewals", &c.Renewals},
		{"lease expiries", &c.Expiries},
		{"locks", &c.Locks},
		{"locks lost", &c.LocksLost},
		{"guarded writes", &c.GuardedWrites},
		{"events watched", &c.Watched},
		{"watches moved", &c.WatchesMoved},
		{"watches compacted", &c.WatchesCompacted},
		{"digests compared", &c.Digests},
		{"histories checked", &c.Histories},
		{"history operations", &c.HistoryOps},
		{"histories undecided", &c.Undecided},
	}
}
