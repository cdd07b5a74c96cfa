package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// Conditions to test for with errors.Is. See "Outcomes" in the package's documentation.
var (
	// ErrUncertain: the request may have been executed, now or later, or not at all. Only calls that change something
	// return it.
	ErrUncertain = errors.New("outcome is uncertain")
	// ErrUnavailable: no member could be reached in time, or the one that was asked was lost. A change that was asked for
	// was not executed, unless the error is ErrUncertain as well.
	ErrUnavailable = errors.New("unavailable")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("client is closed")

	// ErrLimit: a bound of the client itself is reached, such as the number of its watches.
	ErrLimit = errors.New("limit of the client is reached")

	// ErrNotFound: the key that was asked for does not exist.
	ErrNotFound = errors.New("key does not exist")
	// ErrExists: the key that was to be created exists.
	ErrExists = errors.New("key exists already")
	// ErrConflict: somebody else changed the key, or was faster in every attempt of an Update.
	ErrConflict = errors.New("conflicting change")
	// ErrGuardFailed: the guard of a transaction does not hold; nothing was executed.
	ErrGuardFailed = errors.New("guard does not hold")

	// ErrCompacted: the revision's history has been compacted. A watch returns a [*CompactedError].
	ErrCompacted = errors.New("revision has been compacted")
	// ErrFutureRevision: the revision has not been reached yet.
	ErrFutureRevision = errors.New("revision is in the future")
	// ErrKeyNotFound: KeepValue or KeepLease on a key that does not exist.
	ErrKeyNotFound = errors.New("key to keep a value or lease of does not exist")
	// ErrEmptyKey: a key is empty where none may be.
	ErrEmptyKey = errors.New("key is empty")
	// ErrDuplicateKey: a transaction writes a key twice.
	ErrDuplicateKey = errors.New("transaction writes a key twice")
	// ErrTooManyOps: a transaction has more compares or operations than the server allows.
	ErrTooManyOps = errors.New("transaction has too many operations")
	// ErrTooLarge: the request is larger than the server allows.
	ErrTooLarge = errors.New("request is too large")
	// ErrInvalid: the server finds the request malformed in another way.
	ErrInvalid = errors.New("request is invalid")
	// ErrLeaseNotFound: the lease does not exist, or no longer.
	ErrLeaseNotFound = errors.New("lease does not exist")
	// ErrLeaseExists: a lease with that id exists.
	ErrLeaseExists = errors.New("lease exists already")
	// ErrLeaseTTLTooLarge: the server does not grant a TTL that long.
	ErrLeaseTTLTooLarge = errors.New("lease TTL is too large")
	// ErrNoLeader: the member knows no leader.
	ErrNoLeader = errors.New("member has no leader")
	// ErrNoSpace: the store is full; only reads and deletes are accepted.
	ErrNoSpace = errors.New("store is full")
	// ErrOverloaded: every member that could be asked had too many requests waiting until the time was up.
	ErrOverloaded = errors.New("server is overloaded")
	// ErrPermissionDenied: the user may not do that.
	ErrPermissionDenied = errors.New("permission denied")
	// ErrUnauthenticated: the server does not accept the credentials, or wants some.
	ErrUnauthenticated = errors.New("not authenticated")
	// ErrNotSupported: the server does not know the request, or not in its present state.
	ErrNotSupported = errors.New("refused by the server")
	// ErrCorrupt: the server has found that its data is damaged and accepts nothing.
	ErrCorrupt = errors.New("cluster is corrupt")

	// ErrSessionLost: the session was lost without having been closed.
	ErrSessionLost = errors.New("session is lost")
	// ErrSessionExpired is a reason of a loss: the trust deadline passed without an acknowledged renewal.
	ErrSessionExpired = errors.New("no renewal was acknowledged in time")
	// ErrSessionRevoked is a reason of a loss: the server said that the lease is gone.
	ErrSessionRevoked = errors.New("lease was revoked or expired on the server")
	// ErrSessionClosed: the session was closed.
	ErrSessionClosed = errors.New("session is closed")
)

// Error is what a call to the server returns when it fails. Test for the conditions above with errors.Is; the context's
// error and its cause, when they ended the call, are found by errors.Is as well.
type Error struct {
	// Op is what was called: "put", "txn", ...
	Op string
	// Endpoint is the member that was asked last; empty when none could be.
	Endpoint string
	// Uncertain is true when the request may have been executed: the error is ErrUncertain.
	Uncertain bool
	// Kind is the condition, one of this package's variables, or nil when there is none for it.
	Kind error
	// Code and Message are what gRPC said, about an answer or for want of one.
	Code    codes.Code
	Message string

	causes []error // further errors to be found: those of contexts and dials
	again  bool    // another attempt is allowed, and may help
}

// Error tells what was asked of whom, and what came of it.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Endpoint != "" {
		b.WriteString(" at " + e.Endpoint)
	}
	if e.Uncertain {
		b.WriteString(": " + ErrUncertain.Error())
	}
	if e.Kind != nil && !strings.HasSuffix(e.Message, e.Kind.Error()) {
		b.WriteString(": " + e.Kind.Error())
	}
	for _, err := range e.causes {
		b.WriteString(": " + err.Error())
	}
	switch {
	case e.Message == "":
	case e.Kind == nil:
		fmt.Fprintf(&b, ": %v: %s", e.Code, e.Message)
	default: // which says what the code does
		b.WriteString(": " + e.Message)
	}
	return b.String()
}

// Unwrap returns the conditions that hold and what caused them.
func (e *Error) Unwrap() []error {
	errs := make([]error, 0, 2+len(e.causes))
	if e.Uncertain {
		errs = append(errs, ErrUncertain)
	}
	if e.Kind != nil {
		errs = append(errs, e.Kind)
	}
	return append(errs, e.causes...)
}

// join adds a cause.
func (e *Error) join(err error) { e.causes = append(e.causes, err) }

// CompactedError ends a watch whose next events have been compacted away. It is [ErrCompacted].
type CompactedError struct {
	// Wanted is the first revision that the watch has not seen.
	Wanted Revision
	// Revision is the oldest one that the server can still serve.
	Revision Revision
}

// Error tells both revisions.
func (e *CompactedError) Error() string {
	return fmt.Sprintf("watch from revision %d: compacted up to revision %d", e.Wanted, e.Revision)
}

// Is makes the error ErrCompacted.
func (e *CompactedError) Is(target error) bool { return target == ErrCompacted }

// SessionError is the cause with which a session's context ends.
type SessionError struct {
	ID LeaseID
	// Reason is ErrSessionExpired, ErrSessionRevoked, ErrSessionClosed or ErrClosed.
	Reason error
	// Renewed is when the last renewal that was acknowledged had been sent.
	Renewed time.Time
}

// Error tells the lease and the reason.
func (e *SessionError) Error() string { return fmt.Sprintf("session %s: %v", e.ID, e.Reason) }

// Is makes the error ErrSessionLost, unless the session was closed.
func (e *SessionError) Is(target error) bool {
	lost := e.Reason == ErrSessionExpired || e.Reason == ErrSessionRevoked
	return target == ErrSessionLost && lost
}

// Unwrap returns the reason.
func (e *SessionError) Unwrap() error { return e.Reason }

// DecodeError: the bytes under a key are not a value of the type.
type DecodeError struct {
	Key string // without the prefix
	Err error
}

// Error tells the key and what the codec said.
func (e *DecodeError) Error() string { return fmt.Sprintf("decode value of key %q: %v", e.Key, e.Err) }

// Unwrap returns the codec's error.
func (e *DecodeError) Unwrap() error { return e.Err }
