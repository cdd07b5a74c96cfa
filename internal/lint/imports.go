package lint

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the import path that every package of this project starts with.
const Module = "github.com/latchkey-go/latchkey"

// Package is the part of `go list -json` that the import rules read.
type Package struct {
	ImportPath string
	Imports    []string // direct, without those of tests
}

// Rule says what one package may import. The zero Rule allows the standard
// library and nothing else.
type Rule struct {
	// Own lists packages of this module, relative to its root. An entry that
	// ends in /... stands for everything below it.
	Own []string
	// External lists import path prefixes outside of this module and the
	// standard library. A prefix matches whole path elements.
	External []string
	// Pure bans the standard packages that bring in time, chance, other
	// goroutines or the outside world.
	Pure bool
}

// impure are the standard packages, with all below them, that a Pure package
// may not import: its results would no longer follow from its arguments alone.
var impure = []string{
	"context", "crypto/rand", "io/fs", "io/ioutil", "log", "math/rand",
	"net", "os", "sync", "syscall", "testing", "time",
}

const (
	etcdAPI    = "go.etcd.io/etcd/api/v3"
	raft       = "go.etcd.io/raft/v3"
	protobuf   = "google.golang.org/protobuf"
	grpc       = "google.golang.org/grpc"
	genproto   = "google.golang.org/genproto/googleapis/rpc"
	bbolt      = "go.etcd.io/bbolt"
	btree      = "github.com/tidwall/btree"
	uuid       = "github.com/google/uuid"
	cobra      = "github.com/spf13/cobra"
	pflag      = "github.com/spf13/pflag"
	sys        = "golang.org/x/sys"
	xnet       = "golang.org/x/net/http2/hpack"
	gateway    = "github.com/grpc-ecosystem/grpc-gateway/v2"
	prometheus = "github.com/prometheus/client_golang/prometheus"
	checker    = "github.com/anishathalye/porcupine"
	testify    = "github.com/stretchr/testify"
	yaml       = "go.yaml.in/yaml/v3"
	bcrypt     = "golang.org/x/crypto/bcrypt"
	jwt        = "github.com/golang-jwt/jwt/v5"
)

// Rules is the table of the project's packages, by path relative to the
// module. ARCHITECTURE.md tells what each of them is for.
var Rules = map[string]Rule{
	// What is generated, and what generates it.
	"api/v3lockpb":        {External: []string{etcdAPI, protobuf, grpc}},
	"api/v3lockpb/gw":     {Own: []string{"api/v3lockpb"}, External: []string{protobuf, grpc, gateway}},
	"api/v3electionpb":    {External: []string{etcdAPI, protobuf, grpc}},
	"api/v3electionpb/gw": {Own: []string{"api/v3electionpb"}, External: []string{protobuf, grpc, gateway}},
	"api/latchkey/v1":     {External: []string{protobuf, grpc}},
	"api/generate":        {External: []string{etcdAPI, protobuf}},

	// The wire format of the messages that both sides send most.
	"internal/codec":           {Pure: true, External: []string{etcdAPI, protobuf}},
	"internal/codec/codecgrpc": {Own: []string{"internal/codec"}, External: []string{protobuf, grpc}},

	// The core: data structures and decisions, nothing that waits.
	"server/internal/state":   {Pure: true, Own: []string{"internal/codec"}, External: []string{etcdAPI, protobuf, btree}},
	"server/internal/replica": {Pure: true, External: []string{raft, protobuf}},

	// The disk, bottom up.
	"server/internal/disk":       {External: []string{sys}},
	"server/internal/wal":        {Own: []string{"server/internal/disk"}, External: []string{raft, protobuf}},
	"server/internal/checkpoint": {Own: []string{"server/internal/state"}, External: []string{bbolt, etcdAPI, raft, protobuf, sys}},

	// The rest of the server.
	"server/internal/socket": {},
	"server/internal/peer":   {Own: []string{"server/internal/socket"}, External: []string{raft, protobuf, sys}},
	"server/internal/lease":  {},
	"server/internal/watch":  {Own: []string{"server/internal/state"}, External: []string{etcdAPI, protobuf}},
	"server/internal/secure": {},
	"server/internal/gate":   {Own: []string{"server/internal/socket"}},
	"server/internal/front":  {Own: []string{"api/latchkey/v1", "server/internal/socket"}, External: []string{protobuf, grpc, xnet}},
	"server/internal/auth":   {Own: []string{"server/internal/state"}, External: []string{etcdAPI, protobuf, grpc, bcrypt, jwt}},
	"server/internal/audit":  {Own: []string{"server/internal/auth", "server/internal/state"}, External: []string{etcdAPI, protobuf, grpc}},
	"server/internal/rpc": {
		Own:      []string{"api/latchkey/v1", "internal/codec", "internal/codec/codecgrpc", "server/internal/auth", "server/internal/front", "server/internal/state", "server/internal/watch"},
		External: []string{etcdAPI, protobuf, grpc, genproto},
	},
	"server/internal/web": {
		Own:      []string{"api/v3electionpb", "api/v3electionpb/gw", "api/v3lockpb", "api/v3lockpb/gw"},
		External: []string{etcdAPI, protobuf, grpc, gateway, prometheus},
	},
	"server/internal/contention": {
		Own:      []string{"api/v3lockpb", "api/v3electionpb", "server/internal/state", "server/internal/watch"},
		External: []string{etcdAPI, protobuf, grpc},
	},
	"server": {
		Own: []string{
			"api/v3lockpb", "api/v3electionpb", "client", "server/internal/audit", "server/internal/auth", "server/internal/checkpoint",
			"server/internal/contention", "server/internal/disk", "server/internal/front", "server/internal/gate",
			"server/internal/lease", "server/internal/peer", "server/internal/replica", "server/internal/rpc",
			"server/internal/secure", "server/internal/state", "server/internal/wal", "server/internal/watch", "server/internal/web",
		},
		External: []string{etcdAPI, raft, protobuf, grpc, genproto, uuid, sys},
	},
	"server/servertest": {Own: []string{"client", "server"}, External: []string{grpc}},
	"server/internal/sim": {
		Own: []string{
			"server/internal/disk", "server/internal/lease", "server/internal/replica", "server/internal/state",
			"server/internal/wal",
		},
		External: []string{etcdAPI, raft, protobuf, checker},
	},

	// What users import: no server, no raft, no bbolt, no cobra.
	"client":                        {Own: []string{"api/latchkey/v1", "internal/codec", "internal/codec/codecgrpc"}, External: []string{etcdAPI, protobuf, grpc, genproto, uuid}},
	"client/clienttest":             {Own: []string{"client"}, External: []string{etcdAPI, protobuf, grpc, testify}},
	"recipes/fence":                 {},
	"recipes/fence/fencegrpc":       {Own: []string{"recipes/fence"}, External: []string{grpc}},
	"recipes/internal/contender":    {Own: []string{"client", "recipes/internal/retry"}},
	"recipes/lock":                  {Own: []string{"client", "recipes/fence", "recipes/internal/contender", "recipes/internal/retry"}},
	"recipes/lock/locktest":         {Own: []string{"client", "client/clienttest", "recipes/fence", "recipes/lock"}, External: []string{etcdAPI, protobuf, grpc, testify}},
	"recipes/election":              {Own: []string{"client", "recipes/fence", "recipes/internal/contender", "recipes/internal/retry"}},
	"recipes/election/electiontest": {Own: []string{"client", "client/clienttest", "recipes/election", "recipes/fence"}, External: []string{etcdAPI, testify}},
	"recipes/cache":                 {Own: []string{"client", "recipes/internal/retry"}},
	"recipes/cache/cachetest":       {Own: []string{"client", "client/clienttest", "recipes/cache"}, External: []string{etcdAPI, protobuf, grpc, testify}},

	"recipes/barrier":             {Own: []string{"client", "recipes/fence", "recipes/internal/retry"}},
	"recipes/barrier/barriertest": {Own: []string{"client", "client/clienttest", "recipes/barrier", "recipes/fence"}, External: []string{etcdAPI, testify}},
	"recipes/counter":             {Own: []string{"client", "recipes/internal/retry"}},
	"recipes/counter/countertest": {Own: []string{"client", "client/clienttest", "recipes/counter"}, External: []string{etcdAPI, testify}},

	"recipes/internal/presence":         {Own: []string{"client", "recipes/internal/retry"}},
	"recipes/internal/rendezvous":       {},
	"recipes/internal/retry":            {Own: []string{"client"}},
	"recipes/internal/view":             {Own: []string{"client", "recipes/internal/retry"}},
	"recipes/discovery":                 {Own: []string{"client", "recipes/internal/presence", "recipes/internal/rendezvous", "recipes/internal/retry", "recipes/internal/view"}},
	"recipes/discovery/discoverygrpc":   {Own: []string{"client", "recipes/discovery"}, External: []string{grpc}},
	"recipes/discovery/discoverytest":   {Own: []string{"client", "client/clienttest", "recipes/discovery", "recipes/discovery/discoverygrpc"}, External: []string{etcdAPI, grpc, testify}},
	"recipes/membership":                {Own: []string{"client", "recipes/fence", "recipes/internal/presence", "recipes/internal/rendezvous", "recipes/internal/retry", "recipes/internal/view", "recipes/lock"}},
	"recipes/membership/membershiptest": {Own: []string{"client", "client/clienttest", "recipes/fence", "recipes/lock", "recipes/membership"}, External: []string{testify}},
	"recipes/pubsub":                    {Own: []string{"client", "recipes/internal/retry", "recipes/internal/sequence"}},
	"recipes/pubsub/pubsubtest":         {Own: []string{"client", "client/clienttest", "recipes/pubsub"}, External: []string{testify}},
	"recipes/internal/sequence":         {Own: []string{"client", "recipes/internal/retry"}},
	"recipes/queue":                     {Own: []string{"client", "recipes/internal/retry", "recipes/internal/sequence", "recipes/queue/internal/shard"}},
	"recipes/queue/internal/shard":      {Pure: true},
	"recipes/queue/queuetest":           {Own: []string{"client", "recipes/queue"}, External: []string{etcdAPI, protobuf, grpc, testify}},

	// Programs.
	"cmd/latchkey": {
		Own:      []string{"client", "recipes/...", "server"},
		External: []string{etcdAPI, grpc, cobra, pflag, yaml, sys},
	},
	"examples/...":       {Own: []string{"client", "recipes/...", "server", "server/servertest"}},
	"examples/discovery": {Own: []string{"client", "recipes/discovery", "recipes/discovery/discoverygrpc", "server"}, External: []string{grpc}},

	"internal/certtest": {},
	"internal/lint":     {},
}

// CheckImports returns one sentence for each import of p that rules forbid,
// in the order of p.Imports. isStandard tells the standard library's packages.
func CheckImports(p Package, rules map[string]Rule, isStandard func(path string) bool) []string {
	path := relative(p.ImportPath)
	rule, ok := findRule(rules, path)
	if !ok {
		return []string{fmt.Sprintf("%s: not in the table of internal/lint/imports.go; adding a package is a decision", path)}
	}
	var faults []string
	for _, imported := range p.Imports {
		var allowed bool
		switch {
		case imported == "C":
			allowed = false
		case isStandard(imported):
			allowed = !rule.Pure || !matchesPrefix(impure, imported)
		case imported == Module || strings.HasPrefix(imported, Module+"/"):
			allowed = matchesPattern(rule.Own, relative(imported))
		default:
			allowed = matchesPrefix(rule.External, imported)
		}
		if !allowed {
			faults = append(faults, fmt.Sprintf("%s: may not import %s", path, imported))
		}
	}
	return faults
}

// findRule prefers the exact path over a pattern.
func findRule(rules map[string]Rule, path string) (Rule, bool) {
	if rule, ok := rules[path]; ok {
		return rule, true
	}
	for pattern, rule := range rules {
		if matchesPattern([]string{pattern}, path) {
			return rule, true
		}
	}
	return Rule{}, false
}

func relative(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, Module), "/")
}

// matchesPrefix says whether path is one of prefixes or stands below one.
func matchesPrefix(prefixes []string, path string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	})
}

// matchesPattern is like matchesPrefix, but only patterns that end in /...
// reach below themselves.
func matchesPattern(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if below, ok := strings.CutSuffix(pattern, "/..."); ok {
			return strings.HasPrefix(path, below+"/")
		}
		return path == pattern
	})
}
