package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/rpc"
)

// Config describes one member. Its zero value is a single member with its data
// in default.latchkey and its clients on 127.0.0.1:2379.
type Config struct {
	// Name is the member's human-readable name, unique in the cluster.
	// Default "default".
	Name string
	// DataDir holds everything the member keeps. Default "<Name>.latchkey".
	DataDir string

	// ListenClientURLs and ListenPeerURLs are the addresses to listen on, such
	// as "http://127.0.0.1:2379"; port 0 takes a free one. Defaults
	// http://127.0.0.1:2379 and http://127.0.0.1:2380.
	ListenClientURLs, ListenPeerURLs []string
	// AdvertiseClientURLs and AdvertisePeerURLs are what others are told to
	// connect to. Default: what the member listens on.
	AdvertiseClientURLs, AdvertisePeerURLs []string

	// InitialCluster lists the members of a new cluster as
	// "name=peer-url,name=peer-url"; a member with two peer URLs is listed
	// twice. Default: this member alone. It is read only when the data
	// directory is empty, and must then be the same on every member.
	InitialCluster string
	// InitialClusterState is "new" or "existing". Default "new".
	InitialClusterState string
	// InitialClusterToken keeps clusters that are created from the same URLs
	// apart. Default "latchkey-cluster".
	InitialClusterToken string

	// HeartbeatInterval is the time between a leader's heartbeats. Default 40ms.
	HeartbeatInterval time.Duration
	// ElectionTimeout is how long a follower waits for a leader before it
	// campaigns; each wait is drawn between once and twice this. Default 200ms;
	// at least five times HeartbeatInterval, at most 50s.
	ElectionTimeout time.Duration

	// QuotaBytes bounds keys and values, each key counted with 256 bytes more,
	// and the history that is not compacted. Beyond it a NOSPACE alarm is raised:
	// writes are refused with "database space exceeded", deletes still pass,
	// history is cut, and the alarm goes, after 5s at the earliest, once less
	// than 80 % are in use. Default 2 GiB; negative: no bound.
	QuotaBytes int64
	// MaxRequestBytes bounds one request. Default 1.5 MiB.
	MaxRequestBytes int
	// MaxTxnOps bounds each list of a transaction. Default 128.
	MaxTxnOps int

	// AutoCompactionMode is "periodic" or "revision"; AutoCompactionRetention
	// is then how much history stays: a duration, or a number of revisions.
	// Defaults "periodic" and one hour; with "revision", no bound of this kind.
	// Whatever they say, history is cut when
	// it takes more than HistoryBytes.
	AutoCompactionMode string
	// AutoCompactionRetention is explained at AutoCompactionMode. "0" leaves
	// only the HistoryBytes bound.
	AutoCompactionRetention string
	// HistoryBytes bounds what the versions that are not current take in
	// memory. Default 64 MiB.
	HistoryBytes int64

	// WatchProgressInterval is how often a watcher that asked for progress is
	// told how far it is while it has no events; up to a tenth is added. Default
	// 10 minutes; anything below 100ms counts as 100ms.
	WatchProgressInterval time.Duration

	// ClientTLS and PeerTLS secure the connections of clients and of members;
	// they are used by the URLs that begin with https.
	ClientTLS, PeerTLS TLS
	// Auth, Audit, Limits, Web, Membership and Checks are explained at their types.
	Auth       Auth
	Audit      Audit
	Limits     Limits
	Web        Web
	Membership Membership
	Checks     Checks

	// Logger takes the member's log. Default: nothing is logged.
	Logger *slog.Logger

	// Sockets that are set are used instead of listening on the URLs: tests
	// hand over sockets that are bound already.
	Sockets Sockets

	files disk.FS // of the log; the operating system's but in tests of failures
}

// Sockets are listeners that are bound ahead of Start, which closes them.
type Sockets struct{ Client, Peer net.Listener }

// Defaults of Config, where they are not in its comments' own words.
const (
	defaultName              = "default"
	defaultClientURL         = "http://127.0.0.1:2379"
	defaultPeerURL           = "http://127.0.0.1:2380"
	defaultToken             = "latchkey-cluster"
	defaultHeartbeatInterval = 40 * time.Millisecond
	defaultElectionTimeout   = 200 * time.Millisecond
	electionTimeoutMax       = 50 * time.Second
	electionHeartbeatsMin    = 5
	defaultQuotaBytes        = 2 << 30
	defaultHistoryBytes      = 64 << 20
	defaultRetention         = "1h"
)

// withDefaults returns the configuration with every zero field filled in.
func (c Config) withDefaults() Config {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.Name, defaultName)
	set(&c.DataDir, c.Name+".latchkey")
	set(&c.InitialClusterState, "new")
	set(&c.InitialClusterToken, defaultToken)
	set(&c.AutoCompactionMode, "periodic")
	if c.AutoCompactionMode == "revision" {
		set(&c.AutoCompactionRetention, "0")
	}
	set(&c.AutoCompactionRetention, defaultRetention)
	if len(c.ListenClientURLs) == 0 {
		c.ListenClientURLs = []string{defaultClientURL}
	}
	if len(c.ListenPeerURLs) == 0 {
		c.ListenPeerURLs = []string{defaultPeerURL}
	}
	if c.HeartbeatInterval == 0 {
		c.HeartbeatInterval = defaultHeartbeatInterval
	}
	if c.ElectionTimeout == 0 {
		c.ElectionTimeout = max(defaultElectionTimeout, electionHeartbeatsMin*c.HeartbeatInterval)
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = defaultQuotaBytes
	}
	if c.HistoryBytes == 0 {
		c.HistoryBytes = defaultHistoryBytes
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = rpc.DefaultRequestBytes
	}
	if c.MaxTxnOps == 0 {
		c.MaxTxnOps = rpc.DefaultTxnOps
	}
	if c.WatchProgressInterval == 0 {
		c.WatchProgressInterval = rpc.DefaultWatchProgressInterval
	}
	if c.Membership.MaxLearners == 0 {
		c.Membership.MaxLearners = defaultMaxLearners
	}
	c.Auth = c.Auth.withDefaults()
	c = c.withCareDefaults()
	c.Limits = c.Limits.withDefaults()
	if c.files == nil {
		c.files = disk.OS()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports the first field whose value can not be used, in one line
// that says what to change. Start calls it.
func (c Config) Validate() error {
	c = c.withDefaults()
	for _, list := range []struct {
		field string
		urls  []string
	}{
		{"listen-peer-urls", c.ListenPeerURLs},
		{"initial-advertise-peer-urls", c.AdvertisePeerURLs},
	} {
		for _, u := range list.urls {
			if err := checkURL(u); err != nil {
				return fmt.Errorf("%s: %w", list.field, err)
			}
		}
	}
	if err := c.checkClientURLs(); err != nil {
		return err
	}
	if len(c.ListenClientURLs) > listenersMax || len(c.ListenPeerURLs) > listenersMax {
		return fmt.Errorf("listen-client-urls and listen-peer-urls take at most %d addresses each", listenersMax)
	}
	if c.HeartbeatInterval < time.Millisecond {
		return fmt.Errorf("heartbeat-interval %s is below 1ms", c.HeartbeatInterval)
	}
	if c.ElectionTimeout < electionHeartbeatsMin*c.HeartbeatInterval {
		return fmt.Errorf("election-timeout %s must be at least %d times heartbeat-interval %s",
			c.ElectionTimeout, electionHeartbeatsMin, c.HeartbeatInterval)
	}
	if c.ElectionTimeout > electionTimeoutMax {
		return fmt.Errorf("election-timeout %s is above %s", c.ElectionTimeout, electionTimeoutMax)
	}
	if c.MaxRequestBytes < 0 || c.MaxTxnOps < 0 {
		return errors.New("max-request-bytes and max-txn-ops must not be negative")
	}
	if c.WatchProgressInterval < 0 {
		return errors.New("watch-progress-notify-interval must not be negative")
	}
	if c.MaxRequestBytes > requestBytesMax {
		return fmt.Errorf("max-request-bytes %d is above %d", c.MaxRequestBytes, requestBytesMax)
	}
	if c.Membership.MaxLearners < 0 {
		return errors.New("max-learners must not be negative")
	}
	if err := errors.Join(c.Auth.validate(), c.Membership.validate(c.InitialCluster)); err != nil {
		return err
	}
	if c.Audit.Reads && c.Audit.File == "" {
		return errors.New("audit-log-reads is set without audit-log")
	}
	switch c.InitialClusterState {
	case "new":
	case "existing":
	default:
		return fmt.Errorf("initial-cluster-state %q is neither \"new\" nor \"existing\"", c.InitialClusterState)
	}
	if _, err := parseRetention(c.AutoCompactionMode, c.AutoCompactionRetention); err != nil {
		return err
	}
	if err := c.checkSafety(); err != nil {
		return err
	}
	return c.validateCare()
}

// listenersMax bounds the addresses of one kind; requestBytesMax the largest
// request that may be configured: it must fit a log entry and a peer's message.
const (
	listenersMax    = 16
	requestBytesMax = 64 << 20
)

func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a URL such as http://127.0.0.1:2379", raw)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q: only http:// and https:// URLs are supported", raw)
	case u.Host == "" || u.Port() == "":
		return fmt.Errorf("%q needs a host and a port, as in http://127.0.0.1:2379", raw)
	case u.Path != "" && u.Path != "/":
		return fmt.Errorf("%q must not have a path", raw)
	}
	return nil
}

// parseCluster reads "name=url,name=url".
func parseCluster(s string) (map[string][]string, error) {
	cluster := make(map[string][]string)
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, u, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("initial-cluster: %q is not name=peer-url", part)
		}
		if err := checkURL(u); err != nil {
			return nil, fmt.Errorf("initial-cluster: %w", err)
		}
		cluster[name] = append(cluster[name], u)
	}
	if len(cluster) == 0 {
		return nil, errors.New("initial-cluster names no member")
	}
	return cluster, nil
}
