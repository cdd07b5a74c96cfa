package lock

import "github.com/latchkey-go/latchkey/client"

// Mode is how somebody has a lock, or wants it.
type Mode uint8

// The modes. A [Lock] knows the first one only.
const (
	ModeWrite       Mode = iota // alone
	ModeRead                    // beside others that read, and one that is upgradeable
	ModeUpgradeable             // as those that read, but one at a time, which may become ModeUpgraded
	ModeUpgraded                // alone, and was upgradeable before
)

// modeNames are what values of keys call the modes.
var modeNames = [...]string{ModeWrite: "write", ModeRead: "read", ModeUpgradeable: "upgradeable", ModeUpgraded: "upgraded"}

// String returns the name that the mode has in the keys' values.
func (m Mode) String() string { return modeNames[m] }

// alone says that the mode lets nobody in beside it.
func (m Mode) alone() bool { return m == ModeWrite || m == ModeUpgraded }

// excludes says that two can not have the lock at the same time.
func (m Mode) excludes(other Mode) bool {
	return m.alone() || other.alone() || m == ModeUpgradeable && other == ModeUpgradeable
}

// place is a contender of a read-write lock, as the rules below see it.
type place struct {
	key     string
	mode    Mode
	created client.Revision // the place in the queue
	changed client.Revision // when it got its mode
}

// blocker returns the newest contender that one of mode m has to wait for, given
// those older than it, the newest first. Whether that one has the lock or waits
// itself makes no difference, which is what makes the lock fair: a reader behind a
// writer who waits does not overtake him. When it leaves, or lets others in, there
// may be another.
func blocker(m Mode, older []place) (place, bool) {
	for _, p := range older {
		if m.excludes(p.mode) {
			return p, true
		}
	}
	return place{}, false
}

// sharers returns those who have the lock beside u, an upgradeable one that has
// it too. all are the contenders at one revision, in any order; that revision
// alone decides, so whoever reads it comes to the same result.
//
// That is needed because the keys do not say who has the lock: a reader that is
// newer than u has it if no writer is between them, but may notice only later
// that one has left. When u becomes exclusive, it waits for the sharers of that
// revision, and a reader who was one of them takes the lock though u is before
// it; all others wait for u.
func sharers(u place, all []place) []place {
	first := client.Revision(0) // the oldest writer besides u
	for _, p := range all {
		if p.mode.alone() && p.key != u.key && (first == 0 || p.created < first) {
			first = p.created
		}
	}
	var out []place
	for _, p := range all {
		if p.mode == ModeRead && (first == 0 || p.created < first) {
			out = append(out, p)
		}
	}
	return out
}
