package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/latchkey-go/latchkey/server"
)

// serverOptions is what the command line and the environment say about a member.
type serverOptions struct {
	config    server.Config // without Logger
	logLevel  slog.Level
	logFormat string // "text" or "json"
	help      bool
	version   bool
	warnings  []string // one line each
}

// serverFlag is one setting of `latchkey server`: a flag, and a variable in
// the environment for each of envPrefixes.
type serverFlag struct {
	name     string
	value    string // what the help calls its value; empty for a switch
	fallback string // what holds when it is not set, for the help
	usage    string
	set      func(o *serverOptions, value string) error
}

// envPrefixes begin the names of environment variables, the strongest first.
var envPrefixes = []string{"LATCHKEY_", "ETCD_"}

// serverFlags has the names of etcd's flags, in the order of the help.
var serverFlags = []serverFlag{
	{"name", "NAME", "default", "name of this member, unique in the cluster",
		func(o *serverOptions, v string) error { return setText(&o.config.Name, v) }},
	{"data-dir", "DIR", "NAME.latchkey", "folder for everything that the member keeps",
		func(o *serverOptions, v string) error { return setText(&o.config.DataDir, v) }},
	{"listen-client-urls", "URL,...", "http://127.0.0.1:2379", "where to listen for clients",
		func(o *serverOptions, v string) error { return setURLs(&o.config.ListenClientURLs, v) }},
	{"advertise-client-urls", "URL,...", "listen-client-urls", "where clients are told to connect",
		func(o *serverOptions, v string) error { return setURLs(&o.config.AdvertiseClientURLs, v) }},
	{"listen-peer-urls", "URL,...", "http://127.0.0.1:2380", "where to listen for the other members",
		func(o *serverOptions, v string) error { return setURLs(&o.config.ListenPeerURLs, v) }},
	{"initial-advertise-peer-urls", "URL,...", "listen-peer-urls", "where the other members are told to connect",
		func(o *serverOptions, v string) error { return setURLs(&o.config.AdvertisePeerURLs, v) }},
	{"initial-cluster", "NAME=URL,...", "this member alone", "all members of a new cluster and their peer URLs",
		func(o *serverOptions, v string) error { return setText(&o.config.InitialCluster, v) }},
	{"initial-cluster-state", "new|existing", "new", "whether the cluster is new, or this member joins one",
		func(o *serverOptions, v string) error { return setText(&o.config.InitialClusterState, v) }},
	{"initial-cluster-token", "TEXT", "latchkey-cluster", "keeps clusters with the same URLs apart",
		func(o *serverOptions, v string) error { return setText(&o.config.InitialClusterToken, v) }},
	{"heartbeat-interval", "MS", "40", "time between a leader's heartbeats",
		func(o *serverOptions, v string) error { return setMilliseconds(&o.config.HeartbeatInterval, v) }},
	{"election-timeout", "MS", "200", "silence of the leader before others campaign",
		func(o *serverOptions, v string) error { return setMilliseconds(&o.config.ElectionTimeout, v) }},
	{"quota-backend-bytes", "BYTES", "2147483648", "live data beyond which puts are refused; negative for no bound",
		func(o *serverOptions, v string) error { return setInteger(&o.config.QuotaBytes, v) }},
	{"max-request-bytes", "BYTES", "1572864", "largest request",
		func(o *serverOptions, v string) error { return setPositive(&o.config.MaxRequestBytes, v) }},
	{"max-txn-ops", "N", "128", "most operations in one transaction",
		func(o *serverOptions, v string) error { return setPositive(&o.config.MaxTxnOps, v) }},
	{"auto-compaction-mode", "periodic|revision", "periodic", "how auto-compaction-retention is read",
		func(o *serverOptions, v string) error { return setText(&o.config.AutoCompactionMode, v) }},
	{"auto-compaction-retention", "TEXT", "1h", "history to keep: hours or a duration such as 30m, or revisions",
		func(o *serverOptions, v string) error { return setText(&o.config.AutoCompactionRetention, v) }},
	{"watch-progress-notify-interval", "DURATION", "10m", "time between progress reports to idle watchers that asked for them",
		func(o *serverOptions, v string) error { return setDuration(&o.config.WatchProgressInterval, v) }},
	{"log-level", "LEVEL", "info", "debug, info, warn or error",
		func(o *serverOptions, v string) error { return setLevel(&o.logLevel, v) }},
	{"log-format", "FORMAT", "text", "text or json",
		func(o *serverOptions, v string) error { return setFormat(&o.logFormat, v) }},
	{"version", "", "", "print the version and exit",
		func(o *serverOptions, v string) error { return setSwitch(&o.version, v) }},
	{"help", "", "", "print this and exit",
		func(o *serverOptions, v string) error { return setSwitch(&o.help, v) }},
}

// parseServer reads flags in the syntax of Go's flag package (-f and --f, the
// value behind = or a space, the last one wins) and, for what they do not set,
// the environment, given as "NAME=value". Every error is a usageError of one
// line that says what to change.
func parseServer(args, environ []string) (serverOptions, error) {
	o := serverOptions{logFormat: "text"}
	fromFlags, err := scanFlags(args)
	if err != nil {
		return o, err
	}
	fromEnv, warnings := scanEnvironment(environ)
	o.warnings = warnings
	for _, f := range serverFlags {
		given, ok := fromFlags[f.name]
		if !ok {
			given, ok = fromEnv[f.name]
		}
		if !ok {
			continue
		}
		if err := f.set(&o, given.value); err != nil {
			return o, usageErrorf("%s %q: %w", given.source, given.value, err)
		}
	}
	if o.help || o.version {
		return o, nil
	}
	if err := o.config.Validate(); err != nil {
		return o, usageError{err}
	}
	o.warnings = append(o.warnings, warnUnreachable(o.config)...)
	return o, nil
}

// setting is a value and the flag or variable that it came from.
type setting struct{ source, value string }

// scanFlags collects the raw values of args by the name of their flag.
func scanFlags(args []string) (map[string]setting, error) {
	given := make(map[string]setting)
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, dashed := strings.CutPrefix(arg, "-")
		if !dashed || name == "" {
			return nil, usageErrorf("unexpected argument %q: latchkey server takes flags only", arg)
		}
		name = strings.TrimPrefix(name, "-")
		name, value, hasValue := strings.Cut(name, "=")
		if name == "h" {
			name = "help"
		}
		f, ok := findFlag(name)
		switch {
		case !ok:
			return nil, unknownFlag(name)
		case hasValue:
		case f.value == "":
			value = "true"
		case len(args) == 0:
			return nil, usageErrorf("--%s needs a value: --%s=%s", name, name, f.value)
		default:
			value, args = args[0], args[1:]
		}
		given[name] = setting{"--" + name, value}
	}
	return given, nil
}

func findFlag(name string) (serverFlag, bool) {
	for _, f := range serverFlags {
		if f.name == name {
			return f, true
		}
	}
	return serverFlag{}, false
}

func unknownFlag(name string) error {
	if name == "endpoints" || name == "output" || name == "timeout" {
		return usageErrorf("--%s belongs behind a client command, as in: latchkey get --%s=... KEY", name, name)
	}
	var names []string
	for _, f := range serverFlags {
		names = append(names, f.name)
	}
	if near, ok := nearest(strings.ReplaceAll(strings.ToLower(name), "_", "-"), names); ok {
		return usageErrorf("unknown flag --%s, did you mean --%s?", name, near)
	}
	return usageErrorf("unknown flag --%s: latchkey server --help lists the flags", name)
}

// scanEnvironment collects the values of environ by the name of their flag.
// Empty ones count as not set. A variable that is nearly the name of a setting
// is worth a warning; others with these prefixes are common and not ours.
func scanEnvironment(environ []string) (map[string]setting, []string) {
	given := make(map[string]setting)
	strength := make(map[string]int)
	known := make(map[string]string)
	for _, f := range serverFlags {
		if f.value != "" { // --help and --version are for the command line
			known[strings.ToUpper(strings.ReplaceAll(f.name, "-", "_"))] = f.name
		}
	}
	var suffixes, warnings []string
	for suffix := range known {
		suffixes = append(suffixes, suffix)
	}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		for i, prefix := range envPrefixes {
			suffix, ours := strings.CutPrefix(variable, prefix)
			if !ours || value == "" {
				continue
			}
			name, ok := known[suffix]
			if !ok {
				if near, ok := nearest(suffix, suffixes); ok {
					warnings = append(warnings, fmt.Sprintf("%s is no setting and has no effect, did you mean %s?", variable, prefix+near))
				}
				continue
			}
			if s, ok := strength[name]; !ok || i < s {
				given[name] = setting{variable, value}
				strength[name] = i
			}
		}
	}
	return given, warnings
}

// warnUnreachable tells when others would be told an address that means
// "every address of this machine" to the listener and nothing to them.
func warnUnreachable(c server.Config) []string {
	var warnings []string
	check := func(flag, listen string, advertised, listened []string) {
		if len(advertised) > 0 {
			return
		}
		for _, u := range listened {
			if strings.Contains(u, "//0.0.0.0:") || strings.Contains(u, "//[::]:") {
				warnings = append(warnings, fmt.Sprintf("%s %s is not an address that others can connect to: set --%s", listen, u, flag))
			}
		}
	}
	check("advertise-client-urls", "listen-client-urls", c.AdvertiseClientURLs, c.ListenClientURLs)
	check("initial-advertise-peer-urls", "listen-peer-urls", c.AdvertisePeerURLs, c.ListenPeerURLs)
	return warnings
}

// writeServerHelp lists the flags.
func writeServerHelp(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, serverHelp)
	for _, f := range serverFlags {
		flag := "--" + f.name
		if f.value != "" {
			flag += "=" + f.value
		}
		fmt.Fprintf(t, "  %s\t%s", flag, f.usage)
		if f.fallback != "" {
			fmt.Fprintf(t, " (%s)", f.fallback)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

const serverHelp = `Run a member.

Without any flag it is a cluster of one, for clients on this machine.

  latchkey server
  latchkey server --name=a --data-dir=/var/lib/latchkey
  latchkey server --name=a --initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380 \
    --listen-peer-urls=http://10.0.0.1:2380 --listen-client-urls=http://10.0.0.1:2379

Each flag can be set in the environment as well: --max-txn-ops is LATCHKEY_MAX_TXN_OPS or ETCD_MAX_TXN_OPS. A flag wins
over LATCHKEY_..., which wins over ETCD_... . The word "server" may be left out if a flag comes first.

Exit codes: 0 stopped by a signal, 1 could not start or had to stop, 2 a flag or variable is wrong.

Flags, with what holds without them:
`

var (
	errNotInteger      = errors.New("is not a whole number")
	errNotPositive     = errors.New("is not a whole number above 0")
	errNotMilliseconds = errors.New("is not a number of milliseconds, nor a duration such as 100ms")
	errNotDuration     = errors.New("is not a duration such as 10m")
	errNotLevel        = errors.New("is not debug, info, warn or error")
	errNotFormat       = errors.New("is not text or json")
	errNotSwitch       = errors.New("is not true or false")
)

func setText(field *string, v string) error {
	*field = v
	return nil
}

func setURLs(field *[]string, v string) error {
	*field = nil
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*field = append(*field, part)
		}
	}
	return nil
}

func setMilliseconds(field *time.Duration, v string) error {
	if ms, err := strconv.ParseUint(v, 10, 31); err == nil {
		*field = time.Duration(ms) * time.Millisecond
		return nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return errNotMilliseconds
	}
	*field = d
	return nil
}

func setDuration(field *time.Duration, v string) error {
	d, err := time.ParseDuration(v)
	if err != nil || d <= 0 {
		return errNotDuration
	}
	*field = d
	return nil
}

func setInteger(field *int64, v string) error {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return errNotInteger
	}
	*field = n
	return nil
}

func setPositive(field *int, v string) error {
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil || n == 0 {
		return errNotPositive
	}
	*field = int(n)
	return nil
}

// setLevel also takes etcd's levels above error, which mean the same here.
func setLevel(field *slog.Level, v string) error {
	switch v {
	case "debug":
		*field = slog.LevelDebug
	case "info":
		*field = slog.LevelInfo
	case "warn":
		*field = slog.LevelWarn
	case "error", "dpanic", "panic", "fatal":
		*field = slog.LevelError
	default:
		return errNotLevel
	}
	return nil
}

// setFormat also takes etcd's word for text.
func setFormat(field *string, v string) error {
	switch v {
	case "text", "console":
		*field = "text"
	case "json":
		*field = "json"
	default:
		return errNotFormat
	}
	return nil
}

func setSwitch(field *bool, v string) error {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return errNotSwitch
	}
	*field = b
	return nil
}
