package client

import (
	"context"
	"time"
)

// LeaseInfo describes a lease.
type LeaseInfo struct {
	ID LeaseID
	// TTL is what the lease has left, or, from Grant and KeepAliveOnce, the full TTL that it has now. The server counts
	// in whole seconds and may have raised what was asked for.
	TTL time.Duration
	// Granted is the TTL that the lease was granted with. Only from TimeToLive.
	Granted time.Duration
	// Keys are the keys attached to it, of the client's namespace only and without its prefix. Only from TimeToLive.
	Keys []string
}

// Grant makes a lease. The TTL is rounded up to whole seconds; the server may raise it. Nothing renews the lease: use
// [Client.KeepAliveOnce], or a [Session] instead. Grant resolves an uncertain outcome by itself.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (LeaseInfo, error) { panic("not yet") }

// Revoke ends a lease and deletes the keys attached to it. [ErrLeaseNotFound] when there is no such lease.
func (c *Client) Revoke(ctx context.Context, id LeaseID) error { panic("not yet") }

// TimeToLive tells what a lease has left and which keys are attached to it. [ErrLeaseNotFound] when it is gone.
func (c *Client) TimeToLive(ctx context.Context, id LeaseID) (LeaseInfo, error) { panic("not yet") }

// KeepAliveOnce renews a lease: its TTL starts anew. [ErrLeaseNotFound] when it is gone.
func (c *Client) KeepAliveOnce(ctx context.Context, id LeaseID) (LeaseInfo, error) { panic("not yet") }

// Leases lists the ids of all leases.
func (c *Client) Leases(ctx context.Context) ([]LeaseID, error) { panic("not yet") }
