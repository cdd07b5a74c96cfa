package state

import "errors"

// Conditions that a command or a read can meet. They are results like any other: every member that applies the same
// entry finds the same one. The caller maps them to etcd's texts.
var (
	// ErrCompacted: the revision asked for is below the compact revision.
	ErrCompacted = errors.New("revision is compacted")
	// ErrFutureRevision: the revision asked for is above the current one.
	ErrFutureRevision = errors.New("revision is in the future")
	// ErrLeaseNotFound: no such lease is granted.
	ErrLeaseNotFound = errors.New("lease not found")
	// ErrLeaseExists: a lease with this id is already granted.
	ErrLeaseExists = errors.New("lease exists")
	// ErrLeaseTTLTooLarge: the TTL exceeds MaxLeaseTTL.
	ErrLeaseTTLTooLarge = errors.New("lease TTL is too large")
	// ErrKeyNotFound: ignore_value or ignore_lease was set for a key that does not exist.
	ErrKeyNotFound = errors.New("key not found")
	// ErrMemberNotFound: the command names a member that the cluster does not have.
	ErrMemberNotFound = errors.New("member not found")
	// ErrMemberRemoved: the command names a former member, whose id is never used again.
	ErrMemberRemoved = errors.New("member was removed")
	// ErrMemberExists: there is a member of this id.
	ErrMemberExists = errors.New("member exists")
	// ErrPeerURLExists: another member has one of the peer URLs.
	ErrPeerURLExists = errors.New("peer URL exists")
	// ErrMemberNotLearner: only a learner can be promoted.
	ErrMemberNotLearner = errors.New("member is not a learner")
	// ErrTooManyLearners: the cluster has as many learners as it may have.
	ErrTooManyLearners = errors.New("too many learners")
	// ErrLastVoter: without this member nobody would vote.
	ErrLastVoter = errors.New("the last voter can not be removed")
	// ErrNotReadOnly: the transaction given to View.Txn holds a write.
	ErrNotReadOnly = errors.New("transaction is not read-only")
	// ErrNoSpace: a NOSPACE alarm is on, and the command may add data.
	ErrNoSpace = errors.New("database space exceeded")
	// ErrCorrupt: a CORRUPT alarm is on.
	ErrCorrupt = errors.New("corrupt cluster")
	// ErrDowngrading: a downgrade is announced already.
	ErrDowngrading = errors.New("cluster has a downgrade job in progress")
	// ErrMemory: a value in memory is not what was written.
	ErrMemory = errors.New("memory does not hold what was written to it")
	// ErrCommand: the bytes or the value are not a command of this version.
	ErrCommand = errors.New("not a command")
	// ErrArchive: the archive failed, or did not hold what was written. State itself is unharmed, but the member can
	// not answer; the server stops on it.
	ErrArchive = errors.New("archive")
)
