package client

import (
	"context"
)

// Member is a member of the cluster.
type Member struct {
	ID         uint64
	Name       string // empty while the member has not started yet
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// Status is what one member tells about itself.
type Status struct {
	Endpoint  string
	ClusterID uint64
	MemberID  uint64
	Leader    uint64 // the member that it takes for the leader; zero for none
	Version   string
	Learner   bool
	Revision  Revision
	Term      uint64 // of raft
	Index     uint64 // last committed entry of its raft log
	Applied   uint64 // last applied entry
	Size      int64  // of its data, bytes
	SizeInUse int64  // of which are not free, bytes
	Errors    []string
}

// Members lists the members of the cluster.
func (c *Client) Members(ctx context.Context) ([]Member, error) { panic("not yet") }

// Status asks one member, named by its endpoint as in Config.Endpoints, and no other.
func (c *Client) Status(ctx context.Context, endpoint string) (Status, error) { panic("not yet") }

// Endpoints returns the endpoints of the client, as configured.
func (c *Client) Endpoints() []string { panic("not yet") }
