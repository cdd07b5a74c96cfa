package main

// noOldDiscovery is why flags that only etcd's help still has are refused, as they
// are by etcd: a member that ignored them would found a cluster of its own.
const noOldDiscovery = "etcd has dropped discovery by its v2 API: use discovery-token and discovery-endpoints"

const (
	sinceCheckpoint = "no request waits for the checkpoint, which is written in the background"
	sinceNoTracing  = "no tracing is built in"
	sinceRotation   = "let the journal or logrotate (with copytruncate) rotate it"
	sinceOld        = "etcd ignores it as well"
)

// inertFlags are etcd's flags that do nothing here.
var inertFlags = []flagGroup{
	{"Refused", []serverFlag{
		{"discovery", "URL", "", noOldDiscovery, refused(noOldDiscovery)},
		{"discovery-proxy", "URL", "", noOldDiscovery, refused(noOldDiscovery)},
	}},
	{"Known, but without effect", []serverFlag{
		{"wal-dir", "DIR", "", "the log is in data-dir, which can be on the fast disk as a whole", nil},
		{"snapshot-count", "N", "", "a checkpoint is written every second, whatever the number of entries", nil},
		{"snapshot-catchup-entries", "N", "", "entries are kept for followers by bytes, not by number", nil},
		{"max-snapshots", "N", "", "there is one checkpoint, and no other files of this kind", nil},
		{"max-wals", "N", "", "segments of the log go when the checkpoint has what they hold", nil},
		{"backend-bbolt-freelist-type", "TEXT", "", sinceCheckpoint, nil},
		{"backend-batch-interval", "DURATION", "", sinceCheckpoint, nil},
		{"backend-batch-limit", "N", "", sinceCheckpoint, nil},
		{"bootstrap-defrag-threshold-megabytes", "N", "0", "space is used again without defragmentation", nil},
		{"memory-mlock", "", "false", "forbid swap for its cgroup instead, as MemorySwapMax=0 does", nil},
		{"compaction-batch-limit", "N", "", "compaction works in short slices by itself", nil},
		{"compaction-sleep-interval", "DURATION", "", "compaction works in short slices by itself", nil},
		{"compact-hash-check-time", "DURATION", "", "members always compare a hash of their whole state", nil},
		{"downgrade-check-time", "DURATION", "", "the data has had one format so far", nil},
		{"initial-election-tick-advance", "", "", "elections are short, none is hurried", nil},
		{"pre-vote", "", "true", "a pre-vote always comes first", nil},
		{"raft-read-timeout", "DURATION", "", "connections between members have their own deadlines", nil},
		{"raft-write-timeout", "DURATION", "", "connections between members have their own deadlines", nil},
		{"grpc-keepalive-interval", "DURATION", "", "TCP's own keep-alive finds dead connections", nil},
		{"grpc-keepalive-timeout", "DURATION", "", "TCP's own keep-alive finds dead connections", nil},
		{"socket-reuse-address", "", "true", "the option is always set", nil},
		{"socket-reuse-port", "", "false", "an address has one listener", nil},
		{"unsafe-no-fsync", "", "false", "the log is always synced before a write is acknowledged", nil},
		{"v2-deprecation", "TEXT", "", "there is no v2 store", nil},
		{"warning-apply-duration", "DURATION", "", "slow requests are in the metrics, not in the log", nil},
		{"warning-unary-request-duration", "DURATION", "", "slow requests are in the metrics, not in the log", nil},
		{"enable-log-rotation", "", "false", sinceRotation, nil},
		{"log-rotation-config-json", "JSON", "", sinceRotation, nil},
		{"enable-distributed-tracing", "", "false", sinceNoTracing, nil},
		{"distributed-tracing-address", "HOST:PORT", "", sinceNoTracing, nil},
		{"distributed-tracing-service-name", "TEXT", "", sinceNoTracing, nil},
		{"distributed-tracing-instance-id", "TEXT", "", sinceNoTracing, nil},
		{"distributed-tracing-sampling-rate", "N", "0", sinceNoTracing, nil},
	}},
	{"Of the very first releases", []serverFlag{
		{"cluster-active-size", "", "", sinceOld, nil},
		{"cluster-remove-delay", "", "", sinceOld, nil},
		{"cluster-sync-interval", "", "", sinceOld, nil},
		{"config", "", "", sinceOld + "; config-file is what reads a file", nil},
		{"force", "", "", sinceOld, nil},
		{"max-result-buffer", "", "", sinceOld, nil},
		{"max-retry-attempts", "", "", sinceOld, nil},
		{"peer-heartbeat-interval", "", "", sinceOld, nil},
		{"peer-election-timeout", "", "", sinceOld, nil},
		{"retry-interval", "", "", sinceOld, nil},
		{"snapshot", "", "", sinceOld, nil},
		{"v", "", "", sinceOld, nil},
		{"vv", "", "", sinceOld, nil},
	}},
}
