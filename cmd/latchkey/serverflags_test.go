package main

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server"
)

// TestParseServer gives flags and variables, and compares the whole result.
func TestParseServer(t *testing.T) {
	options := func(change func(*serverOptions)) serverOptions {
		o := serverOptions{logFormat: "text", logOutput: []string{"stderr"}}
		change(&o)
		return o
	}
	tests := []struct {
		name string
		args []string
		env  []string
		want serverOptions
	}{
		{"nothing at all", nil, []string{"HOME=/root", "PATH=/bin"},
			options(func(o *serverOptions) {})},
		{"one dash, two dashes, = and space", []string{"-name", "a", "--data-dir=/d", "-max-txn-ops=7", "--max-request-bytes", "9"}, nil,
			options(func(o *serverOptions) {
				o.config = server.Config{Name: "a", DataDir: "/d", MaxTxnOps: 7, MaxRequestBytes: 9}
			})},
		{"every flag", []string{
			"--name=n", "--data-dir=d", "--listen-client-urls=http://127.0.0.1:1,http://127.0.0.1:2",
			"--advertise-client-urls=http://h:1", "--listen-peer-urls=http://127.0.0.1:3", "--initial-advertise-peer-urls=http://h:3",
			"--initial-cluster=n=http://h:3", "--initial-cluster-state=existing", "--initial-cluster-token=t",
			"--heartbeat-interval=100", "--election-timeout=1000", "--quota-backend-bytes=-1", "--max-request-bytes=10",
			"--max-txn-ops=11", "--auto-compaction-mode=revision", "--auto-compaction-retention=12", "--log-level=warn", "--log-format=json",
			"--watch-progress-notify-interval=90s",
		}, nil, options(func(o *serverOptions) {
			o.logLevel, o.logFormat = slog.LevelWarn, "json"
			o.config = server.Config{
				Name: "n", DataDir: "d",
				ListenClientURLs:    []string{"http://127.0.0.1:1", "http://127.0.0.1:2"},
				AdvertiseClientURLs: []string{"http://h:1"},
				ListenPeerURLs:      []string{"http://127.0.0.1:3"},
				AdvertisePeerURLs:   []string{"http://h:3"},
				InitialCluster:      "n=http://h:3", InitialClusterState: "existing", InitialClusterToken: "t",
				HeartbeatInterval: 100 * time.Millisecond, ElectionTimeout: time.Second,
				QuotaBytes: -1, MaxRequestBytes: 10, MaxTxnOps: 11,
				AutoCompactionMode: "revision", AutoCompactionRetention: "12",
				WatchProgressInterval: 90 * time.Second,
			}
		})},
		{"the last one wins, lists as a whole", []string{"--name=a", "--listen-peer-urls=http://a:1,http://b:1", "--name=b", "--listen-peer-urls=http://127.0.0.1:3"}, nil,
			options(func(o *serverOptions) {
				o.config.Name, o.config.ListenPeerURLs = "b", []string{"http://127.0.0.1:3"}
			})},
		{"flag over LATCHKEY over ETCD", []string{"--name=flag"},
			[]string{"LATCHKEY_NAME=mine", "ETCD_NAME=theirs", "ETCD_DATA_DIR=/e", "LATCHKEY_DATA_DIR=/l", "ETCD_MAX_TXN_OPS=5"},
			options(func(o *serverOptions) {
				o.config = server.Config{Name: "flag", DataDir: "/l", MaxTxnOps: 5}
			})},
		{"the order of the environment does not matter", nil, []string{"LATCHKEY_NAME=mine", "ETCD_NAME=theirs"},
			options(func(o *serverOptions) { o.config.Name = "mine" })},
		{"an empty variable is not set", nil, []string{"LATCHKEY_NAME=", "ETCD_NAME=theirs"},
			options(func(o *serverOptions) { o.config.Name = "theirs" })},
		{"a wrong value that another one hides", []string{"--max-txn-ops=1"}, []string{"ETCD_MAX_TXN_OPS=many"},
			options(func(o *serverOptions) { o.config.MaxTxnOps = 1 })},
		{"a duration with a unit", []string{"--heartbeat-interval=15ms", "--election-timeout=0.3s"}, nil,
			options(func(o *serverOptions) {
				o.config = server.Config{HeartbeatInterval: 15 * time.Millisecond, ElectionTimeout: 300 * time.Millisecond}
			})},
		{"etcd's words for the log", []string{"--log-level=panic", "--log-format=console"}, nil,
			options(func(o *serverOptions) { o.logLevel = slog.LevelError })},
		{"help and version ask nothing of the rest", []string{"-h", "--version", "--election-timeout=1"}, nil,
			options(func(o *serverOptions) {
				o.help, o.version, o.config.ElectionTimeout = true, true, time.Millisecond
			})},
		{"a switch that is off", []string{"--help=false"}, nil,
			options(func(o *serverOptions) {})},
		{"a variable with a slip", nil, []string{"ETCD_DATADIR=/d", "ETCD_PORT_2379_TCP=x", "ETCD_UNSUPPORTED_ARCH=x", "LATCHKEY_ENDPOINTS=x", "LATCHKEY_CERT=x", "LATCHKEY_CACERT=x", "LATCHKEY_PASSWORD=x", "LATCHKEY_PORT=x"},
			options(func(o *serverOptions) {
				o.warnings = []string{
					"ETCD_DATADIR is no setting and has no effect, did you mean ETCD_DATA_DIR?",
					"ETCD_PORT_2379_TCP is no setting and has no effect",
				}
			})},
		{"every address, and none told", []string{"--listen-client-urls=http://0.0.0.0:2379"}, nil,
			options(func(o *serverOptions) {
				o.config.ListenClientURLs = []string{"http://0.0.0.0:2379"}
				o.warnings = []string{
					"listen-client-urls http://0.0.0.0:2379 is not an address that others can connect to: set --advertise-client-urls",
					"listen-client-urls http://0.0.0.0:2379 has no TLS: whoever is on that network can read, and without users also change, all data",
				}
			})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseServer(tt.args, tt.env)
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestParseServerErrors(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  []string
		want string // the whole line
	}{
		{"unknown, near", []string{"--nmae=a"}, nil, "unknown flag --nmae, did you mean --name?"},
		{"unknown, underscores", []string{"-data_dir", "x"}, nil, "unknown flag --data_dir, did you mean --data-dir?"},
		{"unknown, far", []string{"--color=red"}, nil, "unknown flag --color: latchkey server --help lists the flags"},
		{"a client's flag", []string{"--endpoints=a:1", "get", "k"}, nil, "--endpoints belongs behind a client command, as in: latchkey get --endpoints=... KEY"},
		{"no value", []string{"--name"}, nil, "--name needs a value: --name=NAME"},
		{"an argument", []string{"--name", "a", "b"}, nil, `unexpected argument "b": latchkey server takes flags only`},
		{"a dash alone", []string{"-"}, nil, `unexpected argument "-": latchkey server takes flags only`},
		{"not a number", []string{"--max-txn-ops=many"}, nil, `--max-txn-ops "many": is not a whole number above 0`},
		{"zero", []string{"--max-request-bytes=0"}, nil, `--max-request-bytes "0": is not a whole number above 0`},
		{"too large", []string{"--quota-backend-bytes=99999999999999999999"}, nil, `--quota-backend-bytes "99999999999999999999": is not a whole number`},
		{"a negative time", []string{"--heartbeat-interval=-5"}, nil, `--heartbeat-interval "-5": is not a number of milliseconds, nor a duration such as 100ms`},
		{"not a duration", []string{"--watch-progress-notify-interval=10"}, nil, `--watch-progress-notify-interval "10": is not a duration such as 10m`},
		{"level", []string{"--log-level=loud"}, nil, `--log-level "loud": is not debug, info, warn or error`},
		{"format", []string{"--log-format=xml"}, nil, `--log-format "xml": is not text or json`},
		{"switch", []string{"--help=maybe"}, nil, `--help "maybe": is not true or false`},
		{"a variable is named", nil, []string{"ETCD_ELECTION_TIMEOUT=soon"}, `ETCD_ELECTION_TIMEOUT "soon": is not a number of milliseconds, nor a duration such as 100ms`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseServer(tt.args, tt.env)
			require.EqualError(t, err, tt.want)
			require.Equal(t, exitUsage, codeOf(err))
		})
	}
}

// What the server itself refuses is a wrong use too, in one line.
func TestParseServerRefusesWhatTheServerRefuses(t *testing.T) {
	for _, args := range [][]string{
		{"--listen-client-urls=127.0.0.1:2379"},
		{"--listen-peer-urls=ftp://127.0.0.1:1"},
		{"--heartbeat-interval=100", "--election-timeout=100"},
		{"--election-timeout=90000"},
		{"--initial-cluster-state=old"},
		{"--auto-compaction-mode=sometimes"},
		{"--auto-compaction-mode=revision", "--auto-compaction-retention=1h"},
	} {
		_, err := parseServer(args, nil)
		require.Errorf(t, err, "%v", args)
		require.Equal(t, exitUsage, codeOf(err))
		require.NotContains(t, err.Error(), "\n")
	}
}

// The few that one needs come first, every line fits, and every flag is there.
func TestServerHelpNamesEveryFlag(t *testing.T) {
	var help bytes.Buffer
	require.NoError(t, writeServerHelp(&help))
	words := strings.FieldsFunc(help.String(), func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	for _, f := range allFlags() {
		require.Contains(t, words, "--"+f.name)
		require.NotEmpty(t, f.usage, f.name)
	}
	for line := range strings.SplitSeq(help.String(), "\n") {
		require.LessOrEqual(t, len(line), helpWidth, line)
	}
	golden(t, filepath.Join("testdata", "server-help.txt"), help.Bytes())
}

func TestNearest(t *testing.T) {
	names := []string{"name", "data-dir", "heartbeat-interval", "max-txn-ops"}
	tests := []struct{ word, want string }{
		{"name", "name"},
		{"nam", "name"},
		{"datadir", "data-dir"},
		{"heartbeat-intervall", "heartbeat-interval"},
		{"hearbeat-intrval", "heartbeat-interval"},
		{"max-txn-op", "max-txn-ops"},
		{"colour", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got, ok := nearest(tt.word, names)
		require.Equal(t, tt.want, got, tt.word)
		require.Equal(t, tt.want != "", ok, tt.word)
	}
}

// FuzzScanFlags: whatever is typed gives settings that exist, or one line.
func FuzzScanFlags(f *testing.F) {
	f.Add("--name\x00a\x00-data-dir=x")
	f.Add("---x")
	f.Add("--=\x00-=")
	f.Fuzz(func(t *testing.T, joined string) {
		given, err := scanFlags(strings.Split(joined, "\x00"))
		if err != nil {
			require.Equal(t, exitUsage, codeOf(err))
			return
		}
		for name := range given {
			_, ok := findFlag(name)
			require.True(t, ok, name)
		}
	})
}
