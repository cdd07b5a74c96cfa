package audit

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// reportInterval is the time between two lines of the member's log about lines that could not be written here.
const reportInterval = 10 * time.Second

// Config configures a Log.
type Config struct {
	// File is appended to, and made with mode 0600 if it does not exist.
	File string
	// Reads has requests written that only read, too.
	Reads bool
	// Who returns the name of the user who makes a call, "" if he does not say or is not believed.
	Who Identify
	// Logger may be nil.
	Logger *slog.Logger
}

// Log is an audit log. It is safe for concurrent use.
type Log struct {
	reads  bool
	who    Identify
	logger *slog.Logger
	failed atomic.Int64

	mu       sync.Mutex // protects the rest
	file     *os.File
	line     []byte
	reported time.Time
}

// Open opens the file.
func Open(cfg Config) (*Log, error) {
	f, err := os.OpenFile(cfg.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Log{file: f, reads: cfg.Reads, who: cfg.Who, logger: cfg.Logger}, nil
}

// Close closes the file; what is recorded afterwards fails.
func (l *Log) Close() error { return l.file.Close() }

// Failed returns how many lines could not be written.
func (l *Log) Failed() int64 { return l.failed.Load() }

// entry is one line.
type entry struct {
	Time     time.Time `json:"time"`
	From     string    `json:"from,omitempty"`
	User     string    `json:"user,omitempty"`
	Method   string    `json:"method"`
	About    string    `json:"about,omitempty"`
	Keys     []keys    `json:"keys,omitempty"`
	MoreKeys int       `json:"more-keys,omitempty"`
	Outcome  string    `json:"outcome"`
	Error    string    `json:"error,omitempty"`
	Revision int64     `json:"revision,omitempty"`
}

// keys is a range of keys, and what was to be done with it.
type keys struct {
	Right string `json:"right"`
	Key   string `json:"key"`
	End   string `json:"end,omitempty"`
}

// write appends a line by one write, so that lines of several processes do not mix.
func (l *Log) write(e entry) {
	b, err := json.Marshal(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.line = append(append(l.line[:0], b...), '\n')
		_, err = l.file.Write(l.line)
	}
	if err == nil {
		return
	}
	l.failed.Add(1)
	if now := time.Now(); now.Sub(l.reported) > reportInterval {
		l.reported = now
		l.logger.Error("the audit log has not taken a line", "lines", l.failed.Load(), "err", err)
	}
}
