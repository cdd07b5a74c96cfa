package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	startTimeout  = 60 * time.Second
	statusTimeout = 500 * time.Millisecond
	leaderRetry   = 10 * time.Millisecond
)

// ports is shared by all clusters of the process: two of them must not be
// given one address.
var ports = newPortPool()

// Config says what to start.
type Config struct {
	Kind    Kind
	Members int      // 1 when zero
	Flags   []string // further flags, the same for every member
	Env     []string // further environment, "KEY=value"
	Dir     string   // parent of the data directories; a fresh temporary one when empty
	// Founding are the flags by which the members find each other. When empty,
	// each is told who they are.
	Founding []string
	// Network puts a network between the members from which they can be cut off, see [Member.CutOff]. Linux only.
	Network bool
}

// Cluster is a set of running members of one kind.
type Cluster struct {
	Kind    Kind
	Members []*Member

	network *network // nil without Config.Network
	dir     string   // removed by Close when owned
	ownsDir bool
	close   sync.Once
	err     error
}

// Start builds the server, runs cfg.Members of it and returns when all of them
// serve clients and agree on a leader.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := prepare(ctx, cfg) // builds, which takes what it takes
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Kind, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.boot(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", cfg.Kind, err), c.Close())
	}
	return c, nil
}

func prepare(ctx context.Context, cfg Config) (*Cluster, error) {
	n := max(cfg.Members, 1)
	tool := ToolEtcd
	if cfg.Kind == Latchkey {
		tool = ToolLatchkey
	}
	binary, err := Build(ctx, tool)
	if err != nil {
		return nil, err
	}
	addrs, err := ports.take(3 * n)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Kind: cfg.Kind, dir: cfg.Dir}
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "interop-"+string(cfg.Kind)+"-"); err != nil {
			return nil, err
		}
		c.ownsDir = true
	}
	var initial []string
	for i := range n {
		m := &Member{
			Name:      fmt.Sprintf("m%d", i),
			ClientURL: "http://" + addrs[2*i],
			PeerURL:   "http://" + addrs[2*i+1],
			listenURL: "http://" + addrs[2*i+1],
			binary:    binary,
			env:       append(os.Environ(), cfg.Env...),
		}
		if cfg.Network {
			m.listenURL = "http://" + addrs[2*n+i]
		}
		m.DataDir = filepath.Join(c.dir, m.Name)
		initial = append(initial, m.Name+"="+m.PeerURL)
		c.Members = append(c.Members, m)
	}
	for _, m := range c.Members {
		if cfg.Kind == Latchkey {
			m.args = append(m.args, "server")
		}
		m.args = append(m.args,
			"--name="+m.Name,
			"--data-dir="+m.DataDir,
			"--listen-client-urls="+m.ClientURL,
			"--advertise-client-urls="+m.ClientURL,
			"--listen-peer-urls="+m.listenURL,
			"--initial-advertise-peer-urls="+m.PeerURL,
			"--initial-cluster-state=new",
		)
		if len(cfg.Founding) == 0 {
			m.args = append(m.args, "--initial-cluster="+strings.Join(initial, ","), "--initial-cluster-token=interop")
		}
		m.args = append(m.args, cfg.Founding...)
		m.args = append(m.args, cfg.Flags...)
	}
	if cfg.Network {
		if err := c.connect(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// connect opens the network between the members.
func (c *Cluster) connect() (err error) {
	var doors []string
	for _, m := range c.Members {
		doors = append(doors, strings.TrimPrefix(m.PeerURL, "http://"))
	}
	if c.network, err = openNetwork(c.Members, doors); err != nil {
		return err
	}
	for _, m := range c.Members {
		m.network = c.network
	}
	return nil
}

// boot starts the members together: none of three is ready before a second
// one runs.
func (c *Cluster) boot(ctx context.Context) error {
	running := make([]*process, len(c.Members))
	for i, m := range c.Members {
		p, err := m.spawn()
		if err != nil {
			return fmt.Errorf("start %s: %w", m.Name, err)
		}
		running[i] = p
	}
	for i, m := range c.Members {
		if err := m.awaitReady(ctx, running[i]); err != nil {
			return err
		}
	}
	_, err := c.Leader(ctx)
	return err
}

// Close kills every member, waits for its end and removes the cluster's data.
// Later calls return the first one's error.
func (c *Cluster) Close() error {
	c.close.Do(func() {
		var errs []error
		for _, m := range c.Members {
			errs = append(errs, m.Kill())
		}
		if c.network != nil {
			c.network.close()
		}
		if c.ownsDir {
			errs = append(errs, os.RemoveAll(c.dir))
		}
		c.err = errors.Join(errs...)
	})
	return c.err
}

// Endpoints returns the client URLs of all members, running or not.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.Members {
		out = append(out, m.ClientURL)
	}
	return out
}

// Client returns an official etcd client of the given endpoints, or of the
// whole cluster when none is given.
func (c *Cluster) Client(endpoints ...string) (*clientv3.Client, error) {
	if len(endpoints) == 0 {
		endpoints = c.Endpoints()
	}
	return clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: 10 * time.Second,
		Logger:      zap.NewNop(),
	})
}

// Usage returns the sum over the members, and each one's.
func (c *Cluster) Usage() (total Usage, each []Usage, err error) {
	for _, m := range c.Members {
		u, err := m.Usage()
		if err != nil {
			return total, nil, err
		}
		each = append(each, u)
		total.CPU += u.CPU
		total.RSS += u.RSS
		total.PeakRSS += u.PeakRSS
		total.ReadOps += u.ReadOps
		total.WriteOps += u.WriteOps
	}
	return total, each, nil
}

// Leader returns the index of the member that every running member names as
// the leader, asking until they agree or ctx ends.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	conns := make(map[*Member]*grpc.ClientConn)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for {
		leader, err := c.agreedLeader(ctx, conns)
		if err == nil {
			return leader, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("find the leader: %w (last: %w)", context.Cause(ctx), err)
		case <-time.After(leaderRetry):
		}
	}
}

// agreedLeader asks every running member once. One connection a member serves
// all attempts; it is dialled afresh by gRPC when the member restarts.
func (c *Cluster) agreedLeader(ctx context.Context, conns map[*Member]*grpc.ClientConn) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	ids := make(map[uint64]int)
	var named uint64
	for i, m := range c.Members {
		if !m.Running() {
			continue
		}
		conn := conns[m]
		if conn == nil {
			var err error
			conn, err = grpc.NewClient("passthrough:///"+strings.TrimPrefix(m.ClientURL, "http://"),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return 0, err
			}
			conns[m] = conn
		}
		st, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return 0, fmt.Errorf("%s: %w", m.Name, err)
		}
		if st.Leader == 0 || named != 0 && st.Leader != named {
			return 0, fmt.Errorf("%s names %x as the leader, another %x", m.Name, st.Leader, named)
		}
		named = st.Leader
		ids[st.Header.MemberId] = i
	}
	i, ok := ids[named]
	if !ok {
		return 0, fmt.Errorf("the leader %x is not among the running members", named)
	}
	return i, nil
}
