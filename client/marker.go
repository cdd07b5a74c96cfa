package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// markerPrefix is where the keys of ExactlyOnce stand in the client's namespace.
const markerPrefix = "latchkey.tx/"

// The values of a marker: who wrote it last.
const (
	markerCommit = "committed"
	markerVoid   = "void"
)

// marker is a key that tells whether a transaction was executed. It belongs to this process alone, by its session's
// lease in its name, and to one transaction at a time, so nobody else ever writes it: a transaction that has the marker's
// ModRevision as a condition, and writes it, can be executed at most once and leaves a trace.
//
// After an uncertain outcome, a second transaction with the same condition writes the marker too. One of the two comes
// first, and the other can never be executed any more. Which one it was, the marker's value tells.
type marker struct {
	session *Session
	ns      string
	key     string // with the namespace
	rev     Revision
}

func (m *marker) compare() *pb.Compare { return ModRevision(m.key).Equal(m.rev).wire("") }

func (m *marker) write(value string) *pb.RequestOp {
	put := &pb.PutRequest{Key: []byte(m.key), Value: []byte(value), Lease: int64(m.session.ID())}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
}

// markers keeps the markers of a client that are not in use. There are as many as there were transactions at once.
type markers struct {
	mu   sync.Mutex // protects what follows
	free []*marker
	made int
}

// take returns a marker of the client's live session and namespace.
func (ms *markers) take(ctx context.Context, c *Client) (*marker, error) {
	s, err := c.Session(ctx)
	if err != nil {
		return nil, err
	}
	ms.mu.Lock()
	defer ms.mu.Unlock()
	keep := ms.free[:0]
	var found *marker
	for _, m := range ms.free {
		switch {
		case m.session != s: // the key has ended with its session
		case found == nil && m.ns == c.ns:
			found = m
		default:
			keep = append(keep, m)
		}
	}
	clear(ms.free[len(keep):])
	ms.free = keep
	if found == nil {
		ms.made++
		key := fmt.Sprintf("%s%s%s/%d", c.ns, markerPrefix, s.ID(), ms.made)
		found = &marker{session: s, ns: c.ns, key: key}
	}
	return found, nil
}

// put gives a marker back whose rev is known.
func (ms *markers) put(m *marker) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	ms.free = append(ms.free, m)
}

// resolve finds out what became of a transaction whose outcome is uncertain, by making sure that it is not executed from
// now on. It returns the transaction's revision, zero if it was not executed, or the uncertain error.
func (ms *markers) resolve(ctx context.Context, co *core, m *marker, uncertain error) (Revision, error) {
	read := &pb.RangeRequest{Key: []byte(m.key)}
	req := &pb.TxnRequest{
		Compare: []*pb.Compare{m.compare()},
		Success: []*pb.RequestOp{m.write(markerVoid)},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: read}}},
	}
	for attempt := 0; ; attempt++ {
		var resp pb.TxnResponse
		err := co.call(ctx, methodTxn, req, &resp)
		if errors.Is(err, ErrUncertain) && ctx.Err() == nil && co.pause(ctx, attempt) {
			continue // void may have been written now; then the next attempt reads it
		}
		if err != nil {
			return 0, uncertain
		}
		if resp.Succeeded {
			m.rev = revisionOf(resp.Header)
			ms.put(m)
			return 0, nil
		}
		kvs := resp.Responses[0].GetResponseRange().GetKvs()
		if len(kvs) == 0 {
			return 0, uncertain // somebody has deleted the marker, or its lease has ended
		}
		m.rev = Revision(kvs[0].ModRevision)
		ms.put(m)
		if string(kvs[0].Value) == markerVoid {
			return 0, nil
		}
		return m.rev, nil
	}
}
