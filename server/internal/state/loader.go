package state

// Loader rebuilds a machine from a checkpoint.
type Loader struct{ m *Machine }

// NewLoader returns a loader of an empty store.
func NewLoader(c Config) *Loader { return &Loader{m: New(c)} }

// Version adds a version; they come in revision order.
func (l *Loader) Version(v *Version) error { return nil }

// Lease adds a lease.
func (l *Loader) Lease(info LeaseInfo) error { return nil }

// Member adds a member, or replaces one of the Config.
func (l *Loader) Member(member Member) error { return nil }

// Finish checks that all fits together and returns the machine.
func (l *Loader) Finish(index, term uint64, revision, compact int64) (*Machine, error) {
	return l.m, nil
}
