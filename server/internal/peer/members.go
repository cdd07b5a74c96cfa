package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"time"
)

// describeTimeout bounds how long a member thinks about who the members are.
const describeTimeout = time.Second

var (
	// errExpelled: the other side says that this member was removed from the cluster.
	errExpelled = errors.New("this member was removed from the cluster")
	errAnswered = errors.New("a stranger was told who the members are")
)

// Standing is about who belongs to the cluster, for those who come and those who had to go. All may be nil.
type Standing struct {
	// Describe returns what [Inquire] is told, at most 1 MiB.
	Describe func(ctx context.Context) ([]byte, error)
	// Expelled is called when member by says that this member was removed. It must not block; it may be called often.
	Expelled func(by uint64)
	// Stranger is called when one of the same cluster connects that SetPeers did not name: this member may be behind. It
	// must not block, and is called again and again.
	Stranger func(id uint64)
}

// standing is a Transport's Standing, and the members that were removed.
type standing struct {
	Standing
	removed atomic.Pointer[map[uint64]bool] // immutable map
}

// SetRemoved tells which ids are those of former members. They are refused with a reason that makes them stop.
func (t *Transport) SetRemoved(ids []uint64) {
	removed := make(map[uint64]bool, len(ids))
	for _, id := range ids {
		removed[id] = true
	}
	t.standing.removed.Store(&removed)
	t.mu.Lock()
	defer t.mu.Unlock()
	for in := range t.doors.accepted {
		if in.kind != 0 && removed[in.from] {
			_ = in.Close() // it comes again, and is told why not
		}
	}
}

func (t *Transport) expelled(id uint64) bool {
	removed := t.standing.removed.Load()
	return removed != nil && (*removed)[id]
}

// describe answers a stranger who asks for the members. The connection ends with it.
func (t *Transport) describe(ctx context.Context, in *inbound) error {
	body, err := []byte(nil), errors.New("this member does not tell who the members are")
	if t.standing.Describe != nil {
		ctx, cancel := context.WithTimeout(ctx, describeTimeout)
		defer cancel()
		body, err = t.standing.Describe(ctx)
	}
	if err == nil && len(body) > maxCallBytes {
		err = errCallTooLarge
	}
	if err != nil {
		_, _ = in.top.Write(append([]byte(greeting+"\n"), refusal(err)...))
		return err
	}
	answer := append(hello{cluster: t.cluster, from: t.id, kind: kindInquiry}.encode(), sealed(frameMembers, body)...)
	if _, err := in.top.Write(answer); err != nil {
		return err
	}
	return errAnswered
}

// Inquire asks the member at a peer URL who the members of its cluster are, without being one. It returns the cluster's
// id and what Standing.Describe of that member says. ctx bounds it, as do two seconds.
func Inquire(ctx context.Context, peerURL string, secure Secure) (cluster uint64, body []byte, err error) {
	u, err := url.Parse(peerURL)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Second, errOpenTimeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return 0, nil, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	c := newConnection(raw)
	if u.Scheme == "https" {
		if secure.Client == nil {
			return 0, nil, fmt.Errorf("%s needs TLS, which is not configured", peerURL)
		}
		top, err := secure.Client(ctx, c.link, u.Hostname())
		if err != nil {
			return 0, nil, fmt.Errorf("secure connection: %w", err)
		}
		c.use(top)
	}
	if _, err = c.top.Write(hello{kind: kindInquiry}.encode()); err != nil {
		return 0, nil, err
	}
	h, err := c.readHello()
	if err != nil {
		return 0, nil, errors.Join(err, context.Cause(ctx))
	}
	c.in.limit = frameMaxBytes
	kind, body, err := c.in.next()
	if err == nil && kind != frameMembers {
		err = errFraming
	}
	return h.cluster, body, err
}
