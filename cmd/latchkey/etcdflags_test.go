package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
)

// Every flag of etcd 3.7.3 is here, and may stand without a value if it may
// there. The list is compared with etcd's own in interop/.
func TestEveryFlagOfEtcdIsKnown(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("testdata", "etcd-flags.txt"))
	require.NoError(t, err)
	n := 0
	for line := range strings.Lines(string(list)) {
		name, kind, ok := strings.Cut(strings.TrimSpace(line), " ")
		require.True(t, ok, line)
		f, ok := findFlag(name)
		require.True(t, ok, name)
		require.Equal(t, kind == "switch", f.value == "", name)
		n++
	}
	require.Equal(t, 115, n)

	seen := make(map[string]bool)
	for _, f := range allFlags() {
		require.False(t, seen[f.name], "%s is there twice", f.name)
		seen[f.name] = true
	}
}

// A flag that has no effect says so, once and with the reason, unless it asks
// for what is done anyway.
func TestFlagsWithoutEffect(t *testing.T) {
	tests := []struct {
		args []string
		want []string // warnings
	}{
		{[]string{"--snapshot-count=10000"}, []string{"--snapshot-count has no effect: a checkpoint is written every second, whatever the number of entries"}},
		{[]string{"--snapshot-count=1", "--snapshot-count=2"}, []string{"--snapshot-count has no effect: a checkpoint is written every second, whatever the number of entries"}},
		{[]string{"--pre-vote"}, nil},
		{[]string{"--pre-vote=false"}, []string{"--pre-vote has no effect: a pre-vote always comes first"}},
		{[]string{"--unsafe-no-fsync=0", "--wal-dir=", "--memory-mlock=false"}, nil},
		{[]string{"--unsafe-no-fsync"}, []string{"--unsafe-no-fsync has no effect: the log is always synced before a write is acknowledged"}},
		{[]string{"--raft-read-timeout=5s"}, []string{"--raft-read-timeout has no effect: connections between members have their own deadlines"}},
		{[]string{"-v", "--force=whatever"}, []string{"--force has no effect: etcd ignores it as well", "--v has no effect: etcd ignores it as well"}},
		{[]string{"--discovery-endpoints=", "--discovery-fallback=exit"}, nil},
		{[]string{"--feature-gates=InitialCorruptCheck=false,CompactHashCheck=true,AllBeta=true"}, nil},
		{[]string{"--feature-gates=LeaseCheckpoint=true"}, []string{"feature gate LeaseCheckpoint=true has no effect: a new leader gives each lease its full time"}},
		{[]string{"--logger=zap"}, nil},
	}
	for _, tt := range tests {
		o, err := parseServer(tt.args, nil)
		require.NoError(t, err)
		require.Equal(t, tt.want, o.warnings, "%v", tt.args)
		require.Equal(t, server.Config{}, o.config)
	}
	o, err := parseServer(nil, []string{"ETCD_MAX_WALS=5", "LATCHKEY_WAL_DIR=/w"})
	require.NoError(t, err)
	require.Equal(t, []string{
		"LATCHKEY_WAL_DIR has no effect: the log is in data-dir, which can be on the fast disk as a whole",
		"ETCD_MAX_WALS has no effect: segments of the log go when the checkpoint has what they hold",
	}, o.warnings)
}

func TestFlagsThatAreRefused(t *testing.T) {
	tests := []struct{ arg, want string }{
		{"--discovery=http://x/token", "--discovery is not supported: etcd has dropped discovery by its v2 API: use discovery-token and discovery-endpoints"},
		{"--discovery-proxy=http://x", "--discovery-proxy is not supported: etcd has dropped discovery by its v2 API: use discovery-token and discovery-endpoints"},
		{"--discovery-srv-name=x", "discovery-srv-name is set without discovery-srv"},
		{"--discovery-fallback=proxy", `--discovery-fallback "proxy": can only be exit, as there is no proxy any more`},
		{"--snapshot-count=many", `--snapshot-count "many": is not a whole number`},
		{"--raft-read-timeout=5", `--raft-read-timeout "5": is not a duration such as 10m`},
		{"--pre-vote=perhaps", `--pre-vote "perhaps": is not true or false`},
		{"--feature-gates=Cold=true", `--feature-gates "Cold=true": unrecognized feature gate: Cold`},
		{"--feature-gates=AllAlpha", `--feature-gates "AllAlpha": missing bool value for AllAlpha`},
		{"--feature-gates=AllAlpha=on", `--feature-gates "AllAlpha=on": invalid value of AllAlpha=on, is not true or false`},
		{"--feature-gates=LeaseCheckpointPersist=true", `--feature-gates "LeaseCheckpointPersist=true": enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint`},
		{"--logger=capnslog", `--logger "capnslog": is not zap, the only logger that etcd still has`},
		{"--log-outputs=,", `--log-outputs ",": names no file, stderr or stdout`},
		{"--metrics=all", `--metrics "all": is not basic or extensive`},
		{"--tls-min-version=1.2", `--tls-min-version "1.2": is not TLS1.2 or TLS1.3`},
		{"--auth-token-ttl=-1", `--auth-token-ttl "-1": is not a number of seconds, nor a duration such as 5m`},
		{"--max-concurrent-streams=0", `--max-concurrent-streams "0": is not a whole number above 0`},
		{"--experimental-corrupt-check-time=1s", "unknown flag --experimental-corrupt-check-time, did you mean --corrupt-check-time?"},
	}
	for _, tt := range tests {
		_, err := parseServer([]string{tt.arg}, nil)
		require.EqualError(t, err, tt.want)
		require.Equal(t, exitUsage, codeOf(err))
	}
}

// The flags of TLS, users, limits and the rest each reach their own field.
func TestFlagsReachTheirFields(t *testing.T) {
	args := strings.Fields(`--cert-file c1 --key-file c2 --trusted-ca-file c3 --client-cert-auth --client-crl-file c4
		--client-cert-allowed-cn=c7 --client-cert-file=c8 --client-key-file=c9 --auto-tls
		--peer-cert-file p1 --peer-key-file p2 --peer-trusted-ca-file p3 --peer-client-cert-auth --peer-crl-file p4
		--peer-cert-allowed-hostname=p5,p6 --peer-cert-allowed-uri=spiffe://a/b,spiffe://c/ --peer-client-cert-file=p8 --peer-client-key-file=p9
		--peer-skip-client-san-verification --peer-auto-tls=true
		--tls-min-version=TLS1.2 --tls-max-version=TLS1.3 --cipher-suites TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 --self-signed-cert-validity=2
		--auth-token=jwt,sign-method=RS256 --auth-token-ttl=7 --audit-log=a1 --audit-log-reads --bcrypt-cost=4 --history-bytes=8
		--max-concurrent-streams=9 --grpc-keepalive-min-time=10s --max-connections=11 --max-connections-per-host=12
		--max-watches=13 --max-watches-per-stream=14 --handshake-timeout=15s --max-leases=19
		--listen-metrics-urls=http://127.0.0.1:1 --listen-client-http-urls=http://127.0.0.1:2 --enable-grpc-gateway=false --cors=a,b
		--host-whitelist=h --metrics=extensive --enable-pprof --corrupt-check-time=16s --disk-stall-timeout=17s
		--feature-gates=InitialCorruptCheck=true --strict-reconfig-check=false --max-learners=18 --force-new-cluster
		--discovery-token=d1 --discovery-endpoints=d2,d3 --discovery-dial-timeout=4s --discovery-request-timeout=5s --discovery-keepalive-time=6s
		--discovery-keepalive-timeout=7s --discovery-insecure-transport=false --discovery-insecure-skip-tls-verify --discovery-cert=d8
		--discovery-key=d9 --discovery-cacert=d10 --discovery-password=d11 --discovery-user=d12 --discovery-fallback=exit
		--log-outputs=stdout,/l --listen-client-urls=http://127.0.0.1:3`)
	o, err := parseServer(args, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"stdout", "/l"}, o.logOutput)
	want := server.Config{
		ListenClientURLs: []string{"http://127.0.0.1:3"}, HistoryBytes: 8,
		ClientTLS: server.TLS{
			CertFile: "c1", KeyFile: "c2", TrustedCAFile: "c3", ClientCertAuth: true, CRLFile: "c4",
			AllowedCN: []string{"c7"}, ClientCertFile: "c8", ClientKeyFile: "c9", Auto: true,
		},
		PeerTLS: server.TLS{
			CertFile: "p1", KeyFile: "p2", TrustedCAFile: "p3", ClientCertAuth: true, CRLFile: "p4",
			AllowedHostnames: []string{"p5", "p6"}, AllowedURIs: []string{"spiffe://a/b", "spiffe://c/"}, ClientCertFile: "p8", ClientKeyFile: "p9", Auto: true,
			SkipClientSANVerification: true,
		},
		Auth:  server.Auth{Token: "jwt,sign-method=RS256", TokenTTL: 7 * time.Second, BcryptCost: 4},
		Audit: server.Audit{File: "a1", Reads: true},
		Limits: server.Limits{
			StreamsPerConnection: 9, KeepAliveMinTime: 10 * time.Second, Connections: 11, ConnectionsPerHost: 12,
			Watches: 13, WatchesPerStream: 14, HandshakeTimeout: 15 * time.Second, Leases: 19,
		},
		Web: server.Web{
			ListenMetricsURLs: []string{"http://127.0.0.1:1"}, ListenClientHTTPURLs: []string{"http://127.0.0.1:2"},
			DisableGateway: true, CORS: []string{"a", "b"}, HostWhitelist: []string{"h"}, ExtensiveMetrics: true, Pprof: true,
		},
		Checks: server.Checks{CorruptInterval: 16 * time.Second, StallTimeout: 17 * time.Second, InitialCorrupt: true},
		Membership: server.Membership{LooseReconfigCheck: true, MaxLearners: 18, ForceNewCluster: true, Discovery: server.Discovery{
			Token: "d1", Endpoints: []string{"d2", "d3"}, DialTimeout: 4 * time.Second, RequestTimeout: 5 * time.Second,
			KeepAliveTime: 6 * time.Second, KeepAliveTimeout: 7 * time.Second, UseTLS: true,
			TLS:      client.TLSFiles{Cert: "d8", Key: "d9", CA: "d10", InsecureSkipVerify: true},
			Username: "d12", Password: "d11",
		}},
	}
	for _, t := range []*server.TLS{&want.ClientTLS, &want.PeerTLS} {
		t.MinVersion, t.MaxVersion, t.CipherSuites, t.SelfSignedYears = "TLS1.2", "TLS1.3", []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"}, 2
	}
	require.Equal(t, want, o.config)

	o, err = parseServer([]string{"--discovery-srv=example.com", "--discovery-srv-name=x"}, nil)
	require.NoError(t, err)
	require.Empty(t, o.warnings)
	require.Equal(t, server.DNS{Domain: "example.com", Service: "x"}, o.config.Membership.DNS)
	_, err = parseServer([]string{"--discovery-srv=example.com", "--initial-cluster=a=http://h:1"}, nil)
	require.EqualError(t, err, `multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`)
	o, err = parseServer([]string{"--discovery-user=name:pass:word"}, nil)
	require.NoError(t, err)
	require.Equal(t, server.Discovery{Username: "name", Password: "pass:word"}, o.config.Membership.Discovery)
}

// What etcd's test framework passes, down to its own default for "no bound".
func TestFlagsOfEtcdsTests(t *testing.T) {
	o, err := parseServer(strings.Fields(`--name=T-test-0 --listen-client-urls=http://localhost:20000
		--advertise-client-urls=http://localhost:20000 --listen-peer-urls=http://localhost:20001
		--initial-advertise-peer-urls=http://localhost:20001 --initial-cluster-token=new --data-dir=/tmp/d --snapshot-count=10000
		--strict-reconfig-check=false --enable-distributed-tracing --distributed-tracing-address=localhost:1
		--initial-cluster-token=new --max-concurrent-streams=4294967295 --grpc-keepalive-interval=2h0m0s --log-level=debug
		--initial-cluster=T-test-0=http://localhost:20001 --initial-cluster-state=new`), nil)
	require.NoError(t, err)
	require.Len(t, o.warnings, 4)
	require.Zero(t, o.config.Limits.StreamsPerConnection)
}

// What the network could do is said when the member starts. The table has the
// words of the warnings.
func TestWarnOpen(t *testing.T) {
	open := []string{"listen-client-urls http://10.0.0.1:1 has no TLS: whoever is on that network can read, and without users also change, all data"}
	tests := []struct {
		config server.Config
		want   []string
	}{
		{server.Config{}, nil},
		{server.Config{ListenClientURLs: []string{"http://localhost:1", "http://127.0.0.2:1", "http://[::1]:1", "unix://127.0.0.1:1"}}, nil},
		{server.Config{ListenClientURLs: []string{"http://10.0.0.1:1"}}, open},
		{server.Config{ListenClientURLs: []string{"https://10.0.0.1:1"}}, nil},
		{server.Config{ListenClientURLs: []string{"http://127.0.0.1:1"}, ClientTLS: server.TLS{CertFile: "c"}},
			[]string{"cert-file or auto-tls is set, but no address for clients begins with https: they are served without TLS"}},
		{server.Config{ListenPeerURLs: []string{"http://peer:1"}}, []string{"listen-peer-urls http://peer:1 has no TLS: whoever reaches it can act as a member"}},
		{server.Config{ListenPeerURLs: []string{"https://peer:1"}, PeerTLS: server.TLS{Auto: true}},
			[]string{"listen-peer-urls https://peer:1 asks for no certificate, so whoever reaches it can act as a member: set --peer-trusted-ca-file"}},
		{server.Config{ListenPeerURLs: []string{"https://peer:1"}, PeerTLS: server.TLS{CertFile: "c", TrustedCAFile: "a"}}, nil},
		{server.Config{ListenPeerURLs: []string{"http://127.0.0.1:1"}, PeerTLS: server.TLS{Auto: true}},
			[]string{"peer-cert-file or peer-auto-tls is set, but no listen-peer-urls begin with https: members talk without TLS"}},
	}
	for _, tt := range tests {
		require.Equal(t, tt.want, warnOpen(tt.config))
	}
}
