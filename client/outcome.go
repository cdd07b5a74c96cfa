package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fate is what an error says about a request that changes something.
type fate uint8

const (
	unknown     fate = iota // it may have been executed
	refused                 // it was not and will not be, and it would not be anywhere else either
	misdirected             // it was not and will not be, but another member, or the same one later, may execute it
)

// answer is a text that a server gives, with its meaning. Texts are etcd's; the code of some depends on the version.
type answer struct {
	text string
	fate fate
	kind error
}

// answers are the texts whose meaning is not that of their code alone. Those that a server gives only before it
// proposes the request to the others are refused or misdirected; "request timed out", "leader changed" and "server
// stopped" come after that and stay unknown.
var answers = []answer{
	{"etcdserver: key is not provided", refused, ErrEmptyKey},
	{"etcdserver: key not found", refused, ErrKeyNotFound},
	{"etcdserver: too many operations in txn request", refused, ErrTooManyOps},
	{"etcdserver: duplicate key given in txn request", refused, ErrDuplicateKey},
	{"etcdserver: request is too large", refused, ErrTooLarge},
	{"etcdserver: mvcc: required revision has been compacted", refused, ErrCompacted},
	{"etcdserver: mvcc: required revision is a future revision", refused, ErrFutureRevision},
	{"etcdserver: mvcc: database space exceeded", refused, ErrNoSpace},
	{"etcdserver: requested lease not found", refused, ErrLeaseNotFound},
	{"etcdserver: lease already exists", refused, ErrLeaseExists},
	{"etcdserver: too large lease TTL", refused, ErrLeaseTTLTooLarge},
	{"etcdserver: permission denied", refused, ErrPermissionDenied},
	{textInvalidToken, refused, ErrUnauthenticated},
	{textOldRevision, refused, ErrUnauthenticated},
	{textUserEmpty, refused, ErrUnauthenticated},
	{"etcdserver: authentication failed", refused, ErrUnauthenticated},
	{"auth: authentication failed", refused, ErrUnauthenticated},
	{"etcdserver: corrupt cluster", refused, ErrCorrupt},
	{"etcdserver: unhealthy cluster", refused, ErrUnavailable},
	{"etcdserver: re-configuration failed due to not enough started members", refused, ErrUnavailable},
	{"etcdserver: no leader", misdirected, ErrNoLeader},
	{"etcdserver: not leader", misdirected, ErrNoLeader},
	{"etcdserver: rpc not supported for learner", misdirected, ErrNotSupported},
	{"etcdserver: not capable", misdirected, ErrNotSupported},
	{"raft proposal dropped", misdirected, ErrNoLeader},
	{"etcdserver: too many requests", misdirected, ErrOverloaded}, // for this member, which may be behind the others
	// The rest may come at any time: what it says about a change is nothing.
	{"etcdserver: leader changed", unknown, ErrNoLeader},
	{"etcdserver: server stopped", unknown, ErrUnavailable},
	{"etcdserver: request timed out", unknown, ErrUnavailable}, // and all that begin like it
	{"grpc: the client connection is closing", unknown, ErrUnavailable},
	{"not a primary lessor", misdirected, ErrNoLeader}, // to a renewal
}

// judge makes an error of an attempt that failed. It is uncertain when the request may have been executed, and again
// when it may be tried once more.
func judge(m method, endpoint string, sent bool, err error) *Error {
	st := status.Convert(err)
	e := &Error{Op: m.name, Endpoint: endpoint, Code: st.Code(), Message: st.Message()}
	if e.Code == codes.DeadlineExceeded {
		// The server's clock, which gRPC sets to ours, may run out a moment before ours does.
		e.join(context.DeadlineExceeded)
		e.Message = ""
	}
	what, kind := fateOf(e.Code, e.Message)
	e.Kind = kind
	if !sent && what == unknown {
		what = misdirected
	}
	if m.read {
		// Reading twice does no harm, so an unknown fate is as good as none.
		e.again = what == misdirected || (what == unknown && e.Code != codes.Unknown)
		return e
	}
	e.Uncertain = what == unknown
	e.again = what == misdirected
	return e
}

// fateOf tells what an error means, by its text if that is known, else by its code.
func fateOf(code codes.Code, message string) (fate, error) {
	if a, ok := answered(message); ok {
		return a.fate, a.kind
	}
	return judgeCode(code, message)
}

// answered finds the server's text in the tables.
func answered(message string) (answer, bool) {
	for _, table := range [...][]answer{answers, userAnswers} {
		for _, a := range table {
			if strings.HasPrefix(message, a.text) {
				return a, true
			}
		}
	}
	return answer{}, false
}

// judgeCode tells the meaning of an error that is known by its code only.
func judgeCode(code codes.Code, message string) (fate, error) {
	switch code {
	case codes.InvalidArgument, codes.OutOfRange, codes.AlreadyExists:
		return refused, ErrInvalid
	case codes.FailedPrecondition, codes.Unimplemented:
		return refused, ErrNotSupported
	case codes.NotFound:
		return refused, ErrInvalid
	case codes.PermissionDenied:
		return refused, ErrPermissionDenied
	case codes.Unauthenticated:
		return refused, ErrUnauthenticated
	case codes.ResourceExhausted:
		return judgeSize(message)
	case codes.Unavailable:
		return unknown, ErrUnavailable
	}
	return unknown, nil
}

// judgeSize tells a request that was too large, for us to send or for the server to receive, from an answer that was too
// large for us to receive, in which case the request was executed.
func judgeSize(message string) (fate, error) {
	if strings.Contains(message, fmt.Sprintf("vs. %d)", responseBytesMax)) {
		return unknown, ErrTooLarge
	}
	if strings.Contains(message, "larger than max") {
		return refused, ErrTooLarge
	}
	return refused, ErrOverloaded
}

// unavailable makes an error of a call for which no endpoint was found in time. What an earlier attempt said explains it
// best; such an attempt was not executed, or there would not have been another.
func unavailable(m method, err error, last *Error) *Error {
	e := &Error{Op: m.name, Kind: ErrUnavailable}
	if errors.Is(err, ErrClosed) {
		e.Kind = ErrClosed
		return e
	}
	if last != nil {
		e.Endpoint, e.Code, e.Message = last.Endpoint, last.Code, last.Message
	}
	e.join(err)
	return e
}

// endedBy notes that the call failed because ctx is done, which then needs no words of gRPC's.
func (e *Error) endedBy(ctx context.Context) {
	e.causes = []error{ctxError(ctx)}
	if e.Code == codes.DeadlineExceeded || e.Code == codes.Canceled {
		e.Message = ""
	}
}
