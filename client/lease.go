package client

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// LeaseInfo describes a lease.
type LeaseInfo struct {
	ID LeaseID
	// TTL is what the lease has left, or, from Grant and KeepAliveOnce, the full TTL that it has now. The server counts
	// in whole seconds and may have raised what was asked for.
	TTL time.Duration
	// Granted is the TTL that the lease was granted with. Only from TimeToLive.
	Granted time.Duration
	// Keys are the keys attached to it in order, of the client's namespace only and without its prefix. Only from
	// TimeToLive.
	Keys []string
}

// Grant makes a lease. The TTL is rounded up to whole seconds; the server may raise it. Nothing renews the lease: use
// [Client.KeepAliveOnce], or a [Session] instead. An uncertain outcome is resolved by asking again for the same lease;
// only when ctx ends meanwhile is it returned, and the lease, if there is one, ends by itself.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (LeaseInfo, error) {
	g, err := c.core.grant(ctx, ttl)
	return LeaseInfo{ID: g.id, TTL: g.ttl}, err
}

// Revoke ends a lease and deletes the keys attached to it. Revoking twice does no harm, so an uncertain outcome is
// resolved by asking again. [ErrLeaseNotFound] when there is no such lease.
func (c *Client) Revoke(ctx context.Context, id LeaseID) error { return c.core.revoke(ctx, id) }

// TimeToLive tells what a lease has left and which keys are attached to it. [ErrLeaseNotFound] when it is gone.
func (c *Client) TimeToLive(ctx context.Context, id LeaseID) (LeaseInfo, error) {
	var resp pb.LeaseTimeToLiveResponse
	req := &pb.LeaseTimeToLiveRequest{ID: int64(id), Keys: true}
	if err := c.core.call(ctx, methodTimeToLive, req, &resp); err != nil {
		return LeaseInfo{}, err
	}
	if resp.TTL < 0 || resp.GrantedTTL == 0 {
		return LeaseInfo{}, &Error{Op: methodTimeToLive.name, Kind: ErrLeaseNotFound}
	}
	info := LeaseInfo{ID: id, TTL: seconds(resp.TTL), Granted: seconds(resp.GrantedTTL)}
	for _, key := range resp.Keys {
		if rest, ok := strings.CutPrefix(string(key), c.ns); ok {
			info.Keys = append(info.Keys, rest)
		}
	}
	slices.Sort(info.Keys)
	return info, nil
}

// KeepAliveOnce renews a lease: its TTL starts anew. [ErrLeaseNotFound] when it is gone.
func (c *Client) KeepAliveOnce(ctx context.Context, id LeaseID) (LeaseInfo, error) {
	g, err := c.core.keepAliveOnce(ctx, id)
	return LeaseInfo{ID: g.id, TTL: g.ttl}, err
}

// Leases lists the ids of all leases, whatever the namespace.
func (c *Client) Leases(ctx context.Context) ([]LeaseID, error) {
	var resp pb.LeaseLeasesResponse
	if err := c.core.call(ctx, methodLeases, &pb.LeaseLeasesRequest{}, &resp); err != nil {
		return nil, err
	}
	ids := make([]LeaseID, len(resp.Leases))
	for i, l := range resp.Leases {
		ids[i] = LeaseID(l.ID)
	}
	return ids, nil
}

// granted is a lease that a server has just granted or renewed.
type granted struct {
	id     LeaseID
	ttl    time.Duration
	sentAt instant // before the request left: the server's count began later
}

// grant makes a lease with an id of our choice, so that a request whose outcome is uncertain can be repeated: that the
// lease exists already is then the answer that it was granted.
func (co *core) grant(ctx context.Context, ttl time.Duration) (granted, error) {
	ctx, cancel := co.bounded(ctx)
	defer cancel()
	g := granted{id: LeaseID(1 + rand.Int64N(math.MaxInt64)), sentAt: co.clock.now()}
	req := &pb.LeaseGrantRequest{ID: int64(g.id), TTL: wholeSeconds(ttl)}
	var resp pb.LeaseGrantResponse
	if err := co.callRepeatable(ctx, methodGrant, req, &resp, ErrLeaseExists); err != nil {
		return granted{}, err
	}
	if resp.TTL == 0 {
		// The answer with the TTL was lost. A renewal tells it, and counts from its own start.
		return co.keepAliveOnce(ctx, g.id)
	}
	g.ttl = seconds(resp.TTL)
	return g, nil
}

func (co *core) revoke(ctx context.Context, id LeaseID) error {
	var resp pb.LeaseRevokeResponse
	return co.callRepeatable(ctx, methodRevoke, &pb.LeaseRevokeRequest{ID: int64(id)}, &resp, ErrLeaseNotFound)
}

// keepAliveOnce renews a lease over a stream of its own.
func (co *core) keepAliveOnce(ctx context.Context, id LeaseID) (granted, error) {
	ctx, cancel := co.bounded(ctx)
	defer cancel()
	var last *Error
	for attempt := 0; ; attempt++ {
		ep, err := co.pool.pick(ctx)
		if err != nil {
			return granted{}, unavailable(methodKeepAlive, err, last)
		}
		g := granted{id: id, sentAt: co.clock.now()}
		resp, err := co.keepAliveAt(ctx, ep, id)
		if err == nil {
			if g.ttl = seconds(resp.TTL); g.ttl <= 0 {
				return granted{}, &Error{Op: methodKeepAlive.name, Endpoint: ep.name, Kind: ErrLeaseNotFound}
			}
			return g, nil
		}
		last = judge(methodKeepAlive, ep.name, true, err)
		if ctx.Err() != nil {
			last.endedBy(ctx)
		}
		co.pool.leave(ep)
		if !last.again || ctx.Err() != nil || !co.pause(ctx, attempt) {
			return granted{}, last
		}
	}
}

func (co *core) keepAliveAt(ctx context.Context, ep *endpoint, id LeaseID) (*pb.LeaseKeepAliveResponse, error) {
	ctx, cancel := context.WithCancel(requireLeader(ctx))
	defer cancel()
	ep.streams.Add(1)
	defer ep.streams.Add(-1)
	stream, err := co.transport.stream(ctx, ep, streamKeepAlive, methodKeepAlive.full)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return nil, streamError(stream, cancel, err)
	}
	var resp pb.LeaseKeepAliveResponse
	if err := stream.RecvMsg(&resp); err != nil {
		return nil, err
	}
	ep.heard(co.clock.now())
	return &resp, nil
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// wholeSeconds rounds up, as the server counts in seconds and no lease may end early.
func wholeSeconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}
