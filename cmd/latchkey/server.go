package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/server"
)

// gcPercent trades a few percent of processor time for memory: a member's heap
// is mostly live keys, and with Go's default of 100 their size counts twice. The
// environment variable GOGC overrides it.
const gcPercent = 50

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

// runServer runs a member until a signal or a fatal error ends it.
func (a *app) runServer(ctx context.Context, args []string) error {
	o, err := parseServer(args, a.environ)
	switch {
	case err != nil:
		return err
	case o.help:
		return writeServerHelp(a.out)
	case o.version:
		return printVersion(a.out)
	}
	log := a.newLogger(o)
	for _, w := range o.warnings {
		log.Warn(w)
	}
	o.config.Logger = log
	if a.getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	s, err := server.Start(ctx, o.config)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	select {
	case <-s.Ready():
		announce(ctx, log, "ready to serve client requests", slog.String("version", version))
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
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := s.Stop(stopping); err != nil {
		return exitCode{exitError, fmt.Errorf("stop: %w", err)}
	}
	return nil
}

func (a *app) newLogger(o serverOptions) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.logLevel}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.errOut, options))
	}
	return slog.New(slog.NewTextHandler(a.errOut, options))
}

// announce logs at any level that is set: whoever starts a member waits for
// this line. A handler's Handle does not look at the level, Enabled does.
func announce(ctx context.Context, log *slog.Logger, message string, attrs ...slog.Attr) {
	record := slog.NewRecord(time.Now(), slog.LevelInfo, message, 0)
	record.AddAttrs(attrs...)
	// A log that can not be written is no reason to stop serving.
	_ = log.Handler().Handle(ctx, record)
}
