package main

import (
	"time"

	"github.com/latchkey-go/latchkey/server"
)

// The names are etcd's, and so is the meaning of their values. What etcd does
// not have stands behind what it has. The first group is what one needs.

var memberFlags = []flagGroup{
	{"The first ones to set", []serverFlag{
		{"name", "NAME", "default", "name of this member, unique in the cluster",
			into(parseText, func(c *server.Config) *string { return &c.Name })},
		{"data-dir", "DIR", "NAME.latchkey", "folder for everything that the member keeps",
			into(parseText, func(c *server.Config) *string { return &c.DataDir })},
		{"listen-client-urls", "URL,...", "http://127.0.0.1:2379", "where to listen for clients",
			into(parseList, func(c *server.Config) *[]string { return &c.ListenClientURLs })},
		{"advertise-client-urls", "URL,...", "listen-client-urls", "where clients are told to connect",
			into(parseList, func(c *server.Config) *[]string { return &c.AdvertiseClientURLs })},
		{"listen-peer-urls", "URL,...", "http://127.0.0.1:2380", "where to listen for the other members",
			into(parseList, func(c *server.Config) *[]string { return &c.ListenPeerURLs })},
		{"initial-advertise-peer-urls", "URL,...", "listen-peer-urls", "where the other members are told to connect",
			into(parseList, func(c *server.Config) *[]string { return &c.AdvertisePeerURLs })},
		{"initial-cluster", "NAME=URL,...", "this member alone", "all members of a new cluster and their peer URLs",
			into(parseText, func(c *server.Config) *string { return &c.InitialCluster })},
		{"initial-cluster-state", "new|existing", "new", "whether the cluster is new, or this member joins one",
			into(parseText, func(c *server.Config) *string { return &c.InitialClusterState })},
		{"initial-cluster-token", "TEXT", "latchkey-cluster", "keeps clusters with the same URLs apart",
			into(parseText, func(c *server.Config) *string { return &c.InitialClusterToken })},
		{"config-file", "FILE", "", "YAML or JSON with these names as keys; if given, it is all that counts", setNothing},
		{"version", "", "", "print the version and exit",
			func(o *serverOptions, v string) (err error) { o.version, err = parseSwitch(v); return err }},
		{"help", "", "", "print this and exit",
			func(o *serverOptions, v string) (err error) { o.help, err = parseSwitch(v); return err }},
	}},
	{"Consensus and membership", []serverFlag{
		{"heartbeat-interval", "MS", "40", "time between a leader's heartbeats",
			into(parseMilliseconds, func(c *server.Config) *time.Duration { return &c.HeartbeatInterval })},
		{"election-timeout", "MS", "200", "silence of the leader before others campaign",
			into(parseMilliseconds, func(c *server.Config) *time.Duration { return &c.ElectionTimeout })},
		{"strict-reconfig-check", "", "true", "refuse changes of the membership that could cost the quorum",
			into(parseInverted, func(c *server.Config) *bool { return &c.Membership.LooseReconfigCheck })},
		{"max-learners", "N", "1", "most learners in the cluster",
			into(parsePositive, func(c *server.Config) *int { return &c.Membership.MaxLearners })},
		{"force-new-cluster", "", "false", "make this member the only one, keeping its data: when a majority is lost for good",
			into(parseSwitch, func(c *server.Config) *bool { return &c.Membership.ForceNewCluster })},
	}},
}

var operationFlags = []flagGroup{
	{"History and space", []serverFlag{
		{"quota-backend-bytes", "BYTES", "2147483648", "live data beyond which puts are refused; negative for no bound",
			into(parseInteger, func(c *server.Config) *int64 { return &c.QuotaBytes })},
		{"auto-compaction-mode", "periodic|revision", "periodic", "how auto-compaction-retention is read",
			into(parseText, func(c *server.Config) *string { return &c.AutoCompactionMode })},
		{"auto-compaction-retention", "TEXT", "1h", "history to keep: hours or a duration such as 30m, or revisions",
			into(parseText, func(c *server.Config) *string { return &c.AutoCompactionRetention })},
		{"history-bytes", "BYTES", "67108864", "history to keep in memory at most, whatever the retention",
			into(parseInteger, func(c *server.Config) *int64 { return &c.HistoryBytes })},
	}},
	{"Limits for clients", []serverFlag{
		{"max-request-bytes", "BYTES", "1572864", "largest request",
			into(parsePositive, func(c *server.Config) *int { return &c.MaxRequestBytes })},
		{"max-txn-ops", "N", "128", "most operations in one transaction",
			into(parsePositive, func(c *server.Config) *int { return &c.MaxTxnOps })},
		{"max-concurrent-streams", "N", "1024", "most calls under way on a connection",
			into(parseStreams, func(c *server.Config) *int { return &c.Limits.StreamsPerConnection })},
		{"grpc-keepalive-min-time", "DURATION", "1s", "least time between a client's pings",
			into(parseDuration, func(c *server.Config) *time.Duration { return &c.Limits.KeepAliveMinTime })},
		{"watch-progress-notify-interval", "DURATION", "10m", "time between progress reports to idle watchers that asked for them",
			into(parseDuration, func(c *server.Config) *time.Duration { return &c.WatchProgressInterval })},
		{"max-connections", "N", "20000", "most connections of clients",
			into(parsePositive, func(c *server.Config) *int { return &c.Limits.Connections })},
		{"max-connections-per-host", "N", "2000", "most connections from one address that is not loopback",
			into(parsePositive, func(c *server.Config) *int { return &c.Limits.ConnectionsPerHost })},
		{"max-watches", "N", "1000000", "most watchers of the member",
			into(parsePositive, func(c *server.Config) *int { return &c.Limits.Watches })},
		{"max-watches-per-stream", "N", "10000", "most watchers of a stream",
			into(parsePositive, func(c *server.Config) *int { return &c.Limits.WatchesPerStream })},
		{"max-leases", "N", "1000000", "most leases of the cluster that this member adds to",
			into(parsePositive, func(c *server.Config) *int { return &c.Limits.Leases })},
		{"handshake-timeout", "DURATION", "10s", "time for a connection's TLS handshake and first bytes",
			into(parseDuration, func(c *server.Config) *time.Duration { return &c.Limits.HandshakeTimeout })},
	}},
	{"HTTP and metrics", []serverFlag{
		{"listen-metrics-urls", "URL,...", "", "more addresses for /metrics and health",
			into(parseList, func(c *server.Config) *[]string { return &c.Web.ListenMetricsURLs })},
		{"listen-client-http-urls", "URL,...", "", "addresses for plain HTTP, which listen-client-urls then do not serve",
			into(parseList, func(c *server.Config) *[]string { return &c.Web.ListenClientHTTPURLs })},
		{"enable-grpc-gateway", "", "true", "serve the JSON gateway under /v3",
			into(parseInverted, func(c *server.Config) *bool { return &c.Web.DisableGateway })},
		{"cors", "ORIGIN,...", "none", "origins whose pages may call the gateway; * for all",
			into(parseList, func(c *server.Config) *[]string { return &c.Web.CORS })},
		{"host-whitelist", "HOST,...", "*", "host names by which plain HTTP may be asked where there is no TLS",
			into(parseList, func(c *server.Config) *[]string { return &c.Web.HostWhitelist })},
		{"metrics", "basic|extensive", "basic", "extensive adds histograms for each gRPC method",
			into(parseMetrics, func(c *server.Config) *bool { return &c.Web.ExtensiveMetrics })},
		{"enable-pprof", "", "false", "serve Go's profiles under /debug/pprof",
			into(parseSwitch, func(c *server.Config) *bool { return &c.Web.Pprof })},
	}},
	{"Checks", []serverFlag{
		{"corrupt-check-time", "DURATION", "0s", "time between comparisons of the members' data by HashKV; 0 for none",
			into(parseAnyDuration, func(c *server.Config) *time.Duration { return &c.Checks.CorruptInterval })},
		{"disk-stall-timeout", "DURATION", "30s", "time that one sync of the log may take before the member ends",
			into(parseDuration, func(c *server.Config) *time.Duration { return &c.Checks.StallTimeout })},
		{"feature-gates", "GATE=BOOL,...", "", "etcd's switches; InitialCorruptCheck compares the data before serving", setFeatureGates},
	}},
	{"Logging", []serverFlag{
		{"log-level", "LEVEL", "info", "debug, info, warn or error", setLevel},
		{"log-format", "FORMAT", "text", "text or json", setFormat},
		{"log-outputs", "OUTPUT,...", "stderr", "stderr, stdout or files to append to", setOutputs},
		{"logger", "NAME", "zap", "zap, as etcd has no other any more", setLogger},
		{"audit-log", "FILE", "", "append a line to this file for each change, and each refusal for want of rights",
			into(parseText, func(c *server.Config) *string { return &c.Audit.File })},
		{"audit-log-reads", "", "false", "and for all other requests",
			into(parseSwitch, func(c *server.Config) *bool { return &c.Audit.Reads })},
	}},
}

// setNothing is for what was dealt with already.
func setNothing(*serverOptions, string) error { return nil }
