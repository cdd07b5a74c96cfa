package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/latchkey-go/latchkey/server/internal/gate"
)

// Defaults of Limits, where they are not those of the packages that keep them.
const (
	defaultStreamsPerConnection = 1024
	defaultWatchesPerStream     = 10_000
	defaultWatches              = 1_000_000
	defaultLeases               = 1_000_000
	defaultKeepAliveMinTime     = time.Second
	// reservedFiles is how many of the files that the process may open are not
	// for connections of clients: log, checkpoint, members, sockets to listen.
	reservedFiles = 256
	// monitorsMax bounds the connections for metrics and health alone.
	monitorsMax = 128
)

// withDefaults fills in the zero fields.
func (l Limits) withDefaults() Limits {
	for _, each := range []struct {
		field *int
		value int
	}{
		{&l.Connections, gate.DefaultConnections}, {&l.ConnectionsPerHost, gate.DefaultPerHost},
		{&l.StreamsPerConnection, defaultStreamsPerConnection},
		{&l.WatchesPerStream, defaultWatchesPerStream}, {&l.Watches, defaultWatches},
		{&l.Leases, defaultLeases},
	} {
		if *each.field == 0 {
			*each.field = each.value
		}
	}
	if l.HandshakeTimeout == 0 {
		l.HandshakeTimeout = gate.DefaultHandshakeTimeout
	}
	if l.KeepAliveMinTime == 0 {
		l.KeepAliveMinTime = defaultKeepAliveMinTime
	}
	return l
}

// check reports the first field that can not be used.
func (l Limits) check() error {
	for _, each := range []struct {
		name  string
		value int64
	}{
		{"the limit of connections", int64(l.Connections)},
		{"the limit of connections per host", int64(l.ConnectionsPerHost)},
		{"max-concurrent-streams", int64(l.StreamsPerConnection)},
		{"the limit of watches per stream", int64(l.WatchesPerStream)},
		{"the limit of watches", int64(l.Watches)},
		{"the limit of leases", int64(l.Leases)},
		{"the timeout of handshakes", int64(l.HandshakeTimeout)},
		{"grpc-keepalive-min-time", int64(l.KeepAliveMinTime)},
	} {
		if each.value < 0 {
			return fmt.Errorf("%s must not be negative", each.name)
		}
	}
	return nil
}

// newGate makes the bounds of the clients' connections. The process may have
// fewer files than that: a member that runs out of them can not even write its
// log.
func (s *Server) newGate() *gate.Gate {
	l := s.cfg.Limits
	connections := l.Connections
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil && files.Cur < uint64(connections)+reservedFiles {
		connections = max(int(files.Cur)-reservedFiles, 1)
		level := slog.LevelWarn
		if l.Connections == gate.DefaultConnections { // nobody asked for so many
			level = slog.LevelDebug
		}
		s.log.Log(context.Background(), level, "fewer connections of clients are accepted than configured: raise the limit of open files (ulimit -n)",
			"configured", l.Connections, "accepted", connections, "open files", files.Cur)
	}
	return gate.New(gate.Bounds{
		Connections: connections, PerHost: l.ConnectionsPerHost, HandshakeTimeout: l.HandshakeTimeout,
	}, s.log)
}

func (s *Server) newMonitorsGate() *gate.Gate {
	return gate.New(gate.Bounds{Connections: monitorsMax, HandshakeTimeout: s.cfg.Limits.HandshakeTimeout}, s.log)
}
