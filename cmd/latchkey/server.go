package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/server"
)

// gcPercent trades a few percent of processor time for memory: a member's heap
// is mostly live keys, and with Go's default of 100 their size counts twice. The
// environment variable GOGC overrides it.
const gcPercent = 50

// ballastBytes count as live for the garbage collector and are never touched, so
// that no memory stands behind them. Without them a member with few keys under load
// collects after every 4 MB that it allocates, seven times a second, and between the
// collections the runtime gives pages to the kernel that it needs again at once. With
// them it collects after 8 MB more, whatever the size of its data.
const ballastBytes = 16 << 20

// startGCPercent is that of a start. Nearly all that is allocated then is the data
// itself, which stays: collections would find nothing.
const startGCPercent = 400

// profiledHeapBytes is Go's default of the heap's profile, one sample for so many
// bytes. Its tables take more than a megabyte, so there is one only where it can be
// asked for.
const profiledHeapBytes = 512 << 10

// stopTimeout bounds a graceful stop: handing over leadership takes an
// election at most, and calls that wait longer have clients that retry.
const stopTimeout = 15 * time.Second

func newServerCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:                "server [FLAGS]",
		Short:              "run a member",
		DisableFlagParsing: true, // its flags have the syntax of etcd's
		RunE: func(c *cobra.Command, args []string) error {
			return a.runServer(c.Context(), args)
		},
	}
	c.SetHelpFunc(func(*cobra.Command, []string) {
		// What fails to print help has nowhere to say so.
		_ = writeServerHelp(a.out)
	})
	return c
}

// newProxyCommand is for etcd's two proxies, which are not part of this.
func newProxyCommand(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              "one of etcd's proxies, which latchkey does not have",
		Example:            "  latchkey server",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return usageErrorf("latchkey has no %s: clients connect to the members themselves, or through any TCP load balancer", name)
		},
	}
}

// runServer runs a member until a signal or a fatal error ends it.
func (a *app) runServer(ctx context.Context, args []string) error {
	o, err := parseServer(args, a.environ)
	switch {
	case err != nil:
		return err
	case o.help:
		return writeServerHelp(a.out)
	case o.version:
		return printVersions(a.out)
	}
	log, closeLog, err := a.newLogger(o)
	if err != nil {
		return err
	}
	o.config.Logger = log
	return errors.Join(a.runMember(ctx, log, o), closeLog())
}

// runMember runs a member whose log is there.
func (a *app) runMember(ctx context.Context, log *slog.Logger, o serverOptions) error {
	for _, w := range o.warnings {
		log.Warn(w)
	}
	started := a.tuneRuntime(o.config)
	s, err := server.Start(ctx, o.config)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	started()
	if a.getenv("GOMAXPROCS") == "" {
		go attentive(s.Done())
	}
	go trim(s.Done(), log)
	log.LogAttrs(ctx, slog.LevelInfo, "member started", summary(o.config, s.ID())...)
	select {
	case <-s.Ready():
		announce(ctx, log, "ready to serve client requests", slog.String("version", version))
		if err := a.notify(notifyReady); err != nil {
			log.Warn("systemd does not know that the member is ready", "err", err)
		}
	case <-s.Done():
		return s.Err()
	case <-ctx.Done():
	}
	select {
	case <-s.Done():
		return s.Err()
	case <-ctx.Done():
	}
	log.Info("stopping", "cause", context.Cause(ctx))
	_ = a.notify(notifyStopping) // it asked for that itself, mostly
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := s.Stop(stopping); err != nil {
		return exitCode{exitError, fmt.Errorf("stop: %w", err)}
	}
	return nil
}

// tuneRuntime sets how Go's runtime deals with memory, for the start; the function
// that it returns does so for the time after.
func (a *app) tuneRuntime(c server.Config) (started func()) {
	if c.Web.Pprof {
		runtime.MemProfileRate = profiledHeapBytes
	}
	if limit := containerLimit(os.DirFS("/")); a.getenv("GOMEMLIMIT") == "" && limit != math.MaxInt64 {
		debug.SetMemoryLimit(int64(float64(limit) * memoryShare))
	}
	if a.getenv("GOGC") != "" {
		return func() {}
	}
	ballast.CompareAndSwap(nil, new([ballastBytes]byte))
	debug.SetGCPercent(startGCPercent)
	return func() { debug.SetGCPercent(gcPercent) }
}

// ballast is there once tuneRuntime has run, one however many members a process has.
var ballast atomic.Pointer[[ballastBytes]byte]

// summary is what one wants to see of a member when it starts.
func summary(c server.Config, id uint64) []slog.Attr {
	or := func(given, otherwise string) string {
		if given != "" {
			return given
		}
		return otherwise
	}
	urls := func(given []string, otherwise string) string { return or(strings.Join(given, ","), otherwise) }
	name := or(c.Name, "default")
	return []slog.Attr{
		slog.String("version", version),
		slog.String("name", name),
		slog.String("id", strconv.FormatUint(id, 16)),
		slog.String("data-dir", or(c.DataDir, name+".latchkey")),
		slog.String("clients", urls(c.ListenClientURLs, "http://127.0.0.1:2379")),
		slog.String("peers", urls(c.ListenPeerURLs, "http://127.0.0.1:2380")),
		slog.String("cluster", clusterWord(c)),
		slog.String("client-tls", tlsWord(c.ListenClientURLs, c.ClientTLS)),
		slog.String("peer-tls", tlsWord(c.ListenPeerURLs, c.PeerTLS)),
	}
}

// clusterWord says who the members of a new cluster are, or how that is found out.
func clusterWord(c server.Config) string {
	switch m := c.Membership; {
	case c.InitialCluster != "":
		return c.InitialCluster
	case m.DNS.Domain != "":
		return "by SRV records of " + m.DNS.Domain
	case len(m.Discovery.Endpoints) > 0:
		return "by discovery at " + strings.Join(m.Discovery.Endpoints, ",")
	default:
		return "this member alone"
	}
}

// tlsWord says how the connections to the URLs are secured.
func tlsWord(urls []string, t server.TLS) string {
	switch {
	case !slices.ContainsFunc(urls, isSecure):
		return "off"
	case asksForCertificates(t):
		return "with client certificates"
	default:
		return "on"
	}
}
