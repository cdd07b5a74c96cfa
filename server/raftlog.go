package server

import (
	"fmt"
	"log/slog"
	"strings"
)

// raftLogger writes what raft says to the member's log. Raft is talkative: its
// information is our debugging, and its warnings are kept.
type raftLogger struct{ log *slog.Logger }

func newRaftLogger(log *slog.Logger) raftLogger {
	return raftLogger{log.With("component", "raft")}
}

func line(v []any) string { return strings.TrimSuffix(fmt.Sprintln(v...), "\n") }

func (l raftLogger) Debug(v ...any)                 {}
func (l raftLogger) Debugf(format string, v ...any) {}
func (l raftLogger) Info(v ...any)                  { l.log.Debug(line(v)) }
func (l raftLogger) Infof(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l raftLogger) Warning(v ...any)               { l.log.Warn(line(v)) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.log.Warn(fmt.Sprintf(format, v...))
}
func (l raftLogger) Error(v ...any)                 { l.log.Error(line(v)) }
func (l raftLogger) Errorf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }

// Fatal and Panic are raft's word for a broken invariant: the state can not be
// trusted, so the process ends with the values in hand.
func (l raftLogger) Fatal(v ...any)                 { panic(line(v)) }
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic(line(v)) }
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
