package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
)

func newSnapshotCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "snapshot",
		Short: "save, look at and restore copies of the whole data",
		Example: `  latchkey snapshot save backup.db
  latchkey snapshot status backup.db
  latchkey snapshot restore backup.db --data-dir=new`,
		RunE: runGroup,
	}
	c.AddCommand(newSnapshotSaveCommand(a), newSnapshotStatusCommand(a), newSnapshotRestoreCommand(a))
	return c
}

// addOutput gives a command that asks no server the flag for its results.
func (a *app) addOutput(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&a.output, "output", "w", "simple", "how to print results: simple, table or json")
	c.Flags().SortFlags = false
	return c
}

// snapshotSilence is how long a member may send nothing of a snapshot, if
// --timeout is not longer.
const snapshotSilence = 30 * time.Second

func newSnapshotSaveCommand(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "save FILE",
		Short: "save a snapshot of one member's data",
		Long: `Save a snapshot of one member's data in FILE, which is replaced if it exists. The copy is written to FILE.part, read
back and verified, hash and rows; only when all of it is good and on the disk it gets the name FILE. The member goes on
serving meanwhile. It works on etcd too, and etcdutl restores what it saves.`,
		Example: `  latchkey snapshot save backup.db
  latchkey snapshot save backup.db --endpoints=10.0.0.1:2379`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(a.endpoints) != 1 {
				return usageErrorf("a snapshot is of one member: --endpoints has %d", len(a.endpoints))
			}
			return a.withClient(func(cl *client.Client) error { return a.saveSnapshot(c.Context(), cl, args[0]) })
		},
	})
}

var errSilent = errors.New("the member sends nothing any more")

func (a *app) saveSnapshot(ctx context.Context, cl *client.Client, file string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	status, err := cl.Status(ctx, a.endpoints[0])
	if err != nil {
		return err
	}
	silence := max(a.timeout, snapshotSilence)
	silent := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer silent.Stop()
	progress := newProgress(a.errOut, status.Size)
	info, err := server.WriteSnapshot(file, func(w io.Writer) error {
		_, err := cl.Snapshot(ctx, written{w, func(n int) {
			silent.Reset(silence)
			progress.add(n)
		}})
		if err != nil && errors.Is(context.Cause(ctx), errSilent) {
			err = fmt.Errorf("%w: %w", errSilent, err)
		}
		progress.done()
		return err
	})
	if err != nil {
		return err
	}
	return a.print(savedAnswer(file, info))
}

// written tells how much was written.
type written struct {
	w    io.Writer
	tell func(n int)
}

func (w written) Write(b []byte) (int, error) {
	n, err := w.w.Write(b)
	w.tell(n)
	return n, err
}

// progress is a line on a terminal that is written anew; nothing elsewhere.
type progress struct {
	out         *os.File // nil if it is no terminal
	bytes, size int64    // size is the member's word from before
	next        time.Time
	any         bool
}

const progressInterval = 100 * time.Millisecond

func newProgress(w io.Writer, size int64) *progress {
	p := &progress{size: size}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		p.out = f
	}
	return p
}

func (p *progress) add(n int) {
	p.bytes += int64(n)
	if now := time.Now(); p.out != nil && !now.Before(p.next) {
		p.next, p.any = now.Add(progressInterval), true
		fmt.Fprintf(p.out, "\r%s of %s \x1b[K", bytesOf(p.bytes), bytesOf(max(p.size, p.bytes)))
	}
}

// done takes the line away.
func (p *progress) done() {
	if p.any {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func newSnapshotStatusCommand(a *app) *cobra.Command {
	return a.addOutput(&cobra.Command{
		Use:   "status FILE",
		Short: "print what a snapshot holds",
		Long: `Read all of a snapshot, of latchkey or of etcd, and print what it holds: hash, revision, number of keys, size and
storage version, as etcdutl does. A damaged one is an error. A database file without a hash at its end is read too.`,
		Example: `  latchkey snapshot status backup.db --output=table`,
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := server.ReadSnapshot(args[0], true)
			if errors.Is(err, server.ErrSnapshotUnhashed) {
				info, err = server.ReadSnapshot(args[0], false)
			}
			if err != nil {
				return err
			}
			return a.print(snapshotAnswer(info))
		},
	})
}

// snapshotJSON is a snapshot in JSON.
type snapshotJSON struct {
	Hash            uint32 `json:"hash"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compact_revision"`
	Keys            int    `json:"total_keys"`
	Leases          int    `json:"total_leases"`
	Size            int64  `json:"total_size_bytes"`
	Version         string `json:"version"`
	Origin          string `json:"origin"`
	Hashed          bool   `json:"hashed"`
}

func toSnapshotJSON(info server.SnapshotInfo) snapshotJSON {
	return snapshotJSON{
		info.Hash, info.Revision, info.CompactRevision, info.Keys, info.Leases, info.Bytes, info.Version, info.Origin, info.Hashed,
	}
}

func snapshotAnswer(info server.SnapshotInfo) answer {
	t := &table{header: []string{"HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"}}
	t.add(fmt.Sprintf("%x", info.Hash), decimal(info.Revision), decimal(int64(info.Keys)), bytesOf(info.Bytes), info.Version)
	return answer{simple: t.commas, table: t, json: toSnapshotJSON(info)}
}

func savedAnswer(file string, info server.SnapshotInfo) answer {
	object := struct {
		File string `json:"file"`
		snapshotJSON
	}{file, toSnapshotJSON(info)}
	t := &table{header: []string{"FILE", "HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"}}
	t.add(file, fmt.Sprintf("%x", info.Hash), decimal(info.Revision), decimal(int64(info.Keys)), bytesOf(info.Bytes), info.Version)
	return answer{table: t, json: object, simple: lines("Snapshot saved at %s", file)}
}
