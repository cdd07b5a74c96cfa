package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/latchkey-go/latchkey/client"
)

// ErrDiscovery: the discovery service has no place for this member.
var ErrDiscovery = errors.New("discovery failed")

const (
	// discoveryRoot is where a discovery service keeps the clusters to be. Below it,
	// "<token>/_config/size" is how many members a cluster shall have, and
	// "<token>/members/<id>" one that has come, as "name=peer-url,...".
	discoveryRoot = "/_etcd/registry"
	// discoveryMembersMax bounds the members that are read, the first ones first.
	discoveryMembersMax = 1000
	// The pause before the service is asked again after a failure.
	discoveryRetryMin = 100 * time.Millisecond
	discoveryRetryMax = 10 * time.Second
	// What holds for a Discovery that does not say, as in etcd.
	discoveryDialTimeout    = 2 * time.Second
	discoveryRequestTimeout = 5 * time.Second
)

// Discovery lets the members of a new cluster find each other through another
// cluster, of Latchkey or etcd, instead of by InitialCluster. It counts for a
// member without data only. Its zero value is no discovery.
type Discovery struct {
	// Token names the cluster that is to be. Whoever wants it writes its size,
	// as a decimal, under /_etcd/registry/<Token>/_config/size before. It takes
	// the place of InitialClusterToken, and must not be used for two clusters.
	Token string
	// Endpoints are client addresses of the other cluster.
	Endpoints []string
	// DialTimeout bounds one attempt to connect, and RequestTimeout one request;
	// what fails is tried again until the start is given up. Defaults 2s and 5s.
	DialTimeout, RequestTimeout time.Duration
	// KeepAliveTime and KeepAliveTimeout are when a silent connection is pinged,
	// and when it counts as lost then. Default: the client's own.
	KeepAliveTime, KeepAliveTimeout time.Duration
	// UseTLS is for endpoints without a scheme; TLS has the files for these, and
	// for those that begin with https. Its CA or Cert implies UseTLS.
	UseTLS bool
	TLS    client.TLSFiles
	// Username and Password are for a cluster that asks for them.
	Username, Password string
}

func (d Discovery) wanted() bool { return len(d.Endpoints) > 0 }

// validate has etcd's words.
func (d Discovery) validate() error {
	if (d.Token != "") != d.wanted() {
		return errors.New("both --discovery-token and --discovery-endpoints must be set")
	}
	if slices.ContainsFunc(d.Endpoints, func(e string) bool { return strings.TrimSpace(e) == "" }) {
		return errors.New("--discovery-endpoints must not contain empty endpoints")
	}
	if d.Username != "" && d.Password == "" {
		return errors.New("--discovery-user needs a password, after a colon or by --discovery-password")
	}
	return nil
}

// client returns a client of the service.
func (d Discovery) client(log *slog.Logger) (*client.Client, error) {
	cfg := client.Config{
		Endpoints: d.Endpoints, Username: d.Username, Password: d.Password, Logger: log,
		DialTimeout: d.DialTimeout, RequestTimeout: d.RequestTimeout,
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = discoveryDialTimeout
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = discoveryRequestTimeout
	}
	if d.KeepAliveTime > 0 {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: d.KeepAliveTime, Timeout: d.KeepAliveTimeout,
		}))
	}
	if d.UseTLS || d.TLS != (client.TLSFiles{}) {
		var err error
		if cfg.TLS, err = d.TLS.Load(); err != nil {
			return nil, err
		}
	}
	return client.New(cfg)
}

// discover registers this member and waits until as many have come as the cluster
// shall have. It returns the configuration with what was found. known says that the
// service knew the member already: it may have run before.
func (s *Server) discover(ctx context.Context, advertised []string) (cfg Config, known bool, err error) {
	cfg, d := s.cfg, s.cfg.Membership.Discovery
	c, err := d.client(s.log)
	if err != nil {
		return cfg, false, fmt.Errorf("discovery: %w", err)
	}
	defer c.Close()
	parts := make([]string, len(advertised))
	for i, u := range advertised {
		parts[i] = cfg.Name + "=" + u
	}
	r := &registry{
		client: c, log: s.log.With("discovery-token", d.Token), root: path.Join(discoveryRoot, d.Token),
		self: hex(memberID(advertised, d.Token)), value: strings.Join(parts, ","),
	}
	spec, known, err := r.join(ctx)
	if err != nil {
		return cfg, known, fmt.Errorf("discovery of %q at %s: %w", d.Token, strings.Join(d.Endpoints, ","), err)
	}
	s.log.Info("discovery has found the members", "initial-cluster", spec)
	cfg.InitialCluster, cfg.InitialClusterToken = spec, d.Token
	return cfg, known, nil
}

// registry is a token's part of a discovery service, as one member uses it.
type registry struct {
	client *client.Client
	log    *slog.Logger
	root   string
	self   string // the member's id
	value  string // what it registers
}

// arrivals are what a registry has at one revision.
type arrivals struct {
	size    int
	members []client.KV // the oldest first
	rev     client.Revision
}

// join is etcd's protocol: whoever finds the cluster full goes away; others register
// and wait; the first ones to have come, by the create revisions of their keys, are
// the cluster.
func (r *registry) join(ctx context.Context) (spec string, known bool, err error) {
	before, err := r.look(ctx)
	if err != nil {
		return "", false, err
	}
	if known, err = r.place(before); err != nil {
		return "", known, err
	}
	if err := r.retry(ctx, "register", func() error {
		_, err := r.client.Put(ctx, r.key(r.self), []byte(r.value))
		return err
	}); err != nil {
		return "", known, err
	}
	for {
		now, err := r.look(ctx)
		if err != nil {
			return "", known, err
		}
		if _, err := r.place(now); err != nil {
			return "", known, err
		}
		if len(now.members) >= now.size {
			return now.spec(), known, nil
		}
		r.log.Info("waiting for members to come to the discovery service", "size", now.size, "found", len(now.members))
		// Whatever happens, or if the watch ends: look again.
		for _, err := range r.client.Watch(ctx, r.key(""), client.Prefix(), client.FromRevision(now.rev+1)) {
			if err != nil {
				sleep(ctx, discoveryRetryMin)
			}
			break
		}
	}
}

func (r *registry) key(id string) string { return path.Join(r.root, "members") + "/" + id }

// look reads the size and the members.
func (r *registry) look(ctx context.Context) (found arrivals, err error) {
	err = r.retry(ctx, "read", func() error {
		size, err := r.client.GetOne(ctx, path.Join(r.root, "_config/size"))
		if errors.Is(err, client.ErrNotFound) {
			return fmt.Errorf("%w: size key not found: put the number of members under %s", ErrDiscovery, path.Join(r.root, "_config/size"))
		} else if err != nil {
			return err
		}
		if found.size, err = strconv.Atoi(string(size.Value)); err != nil || found.size <= 0 || found.size > discoveryMembersMax {
			return fmt.Errorf("%w: size key is bad: %q", ErrDiscovery, size.Value)
		}
		res, err := r.client.Get(ctx, r.key(""), client.Prefix(),
			client.Ascending(client.ByCreateRevision), client.Limit(discoveryMembersMax))
		if err != nil {
			return err
		}
		found.rev, found.members = res.Revision, nil
		for _, kv := range res.KVs {
			if strings.Contains(string(kv.Value), "=") {
				found.members = append(found.members, kv)
				continue
			}
			r.log.Warn("the discovery service has something that is no member", "key", kv.Key)
		}
		return nil
	})
	return found, err
}

// place says whether this member is among those who have come, and fails when it
// is not and there is no place left.
func (r *registry) place(found arrivals) (known bool, err error) {
	i := slices.IndexFunc(found.members, func(kv client.KV) bool { return kv.Key == r.key(r.self) })
	if i < 0 && len(found.members) >= found.size || i >= found.size {
		return i >= 0, fmt.Errorf("%w: cluster is full: it shall have %d members, and others came first", ErrDiscovery, found.size)
	}
	return i >= 0, nil
}

// spec returns the members as Config.InitialCluster has them.
func (found arrivals) spec() string {
	parts := make([]string, found.size)
	for i := range parts {
		parts[i] = strings.TrimSpace(string(found.members[i].Value))
	}
	return strings.Join(parts, ",")
}

// retry calls f until it succeeds, or fails in a way that time does not mend.
func (r *registry) retry(ctx context.Context, what string, f func() error) error {
	for pause := discoveryRetryMin; ; pause = min(2*pause, discoveryRetryMax) {
		err := f()
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrDiscovery) || errors.Is(err, client.ErrPermissionDenied) ||
			errors.Is(err, client.ErrUnauthenticated) || errors.Is(err, client.ErrInvalid) {
			return err
		}
		r.log.Warn("the discovery service does not answer; it is asked again", "what", what, "pause", pause, "err", err)
		sleep(ctx, pause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
