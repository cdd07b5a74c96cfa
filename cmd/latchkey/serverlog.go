package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// logFileMode lets a group read a log file, and nobody else.
const logFileMode = 0o640

// newLogger returns the member's log, and what closes its files.
func (a *app) newLogger(o serverOptions) (log *slog.Logger, closeFiles func() error, err error) {
	var outputs []io.Writer
	var files []*os.File
	closeFiles = func() error {
		var errs []error
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	for _, name := range o.logOutput {
		switch name {
		case "stderr":
			outputs = append(outputs, a.errOut)
		case "stdout":
			outputs = append(outputs, a.out)
		default:
			f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, logFileMode)
			if err != nil {
				return nil, nil, errors.Join(fmt.Errorf("log-outputs: %w", err), closeFiles())
			}
			files = append(files, f)
			outputs = append(outputs, f)
		}
	}
	out := outputs[0]
	if len(outputs) > 1 {
		out = io.MultiWriter(outputs...)
	}
	options := &slog.HandlerOptions{Level: o.logLevel}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), closeFiles, nil
	}
	return slog.New(slog.NewTextHandler(out, options)), closeFiles, nil
}

// announce logs at any level that is set: whoever starts a member waits for
// this line. A handler's Handle does not look at the level, Enabled does.
func announce(ctx context.Context, log *slog.Logger, message string, attrs ...slog.Attr) {
	record := slog.NewRecord(time.Now(), slog.LevelInfo, message, 0)
	record.AddAttrs(attrs...)
	// A log that can not be written is no reason to stop serving.
	_ = log.Handler().Handle(ctx, record)
}
