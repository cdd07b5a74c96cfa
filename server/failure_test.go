package server

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

var errDisk = errors.New("input/output error")

// syncFiles is the operating system's file system, with something before each
// sync of a file, which may fail it.
type syncFiles struct {
	disk.FS
	before func() error
}

func (f syncFiles) Create(name string) (disk.File, error) {
	file, err := f.FS.Create(name)
	return syncFile{file, f.before}, err
}

func (f syncFiles) Open(name string) (disk.File, error) {
	file, err := f.FS.Open(name)
	return syncFile{file, f.before}, err
}

type syncFile struct {
	disk.File
	before func() error
}

func (f syncFile) Sync() error {
	if err := f.before(); err != nil {
		return err
	}
	return f.File.Sync()
}

// After one failed sync the member ends: it acknowledges nothing more, does not
// sync again, and tells why. What it acknowledged before is there on restart.
func TestFailedSyncEndsTheMember(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var broken atomic.Bool
	var failed atomic.Int64
	cfg := Config{
		DataDir:          t.TempDir(),
		ListenClientURLs: []string{"http://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
		files: syncFiles{disk.OS(), func() error {
			if broken.Load() {
				failed.Add(1)
				return errDisk
			}
			return nil
		}},
	}
	m, err := Start(ctx, cfg)
	require.NoError(t, err)
	<-m.Ready()
	put := func(m *Server, key string) error {
		_, err := backend{m}.Propose(ctx, state.Command{
			Kind: state.KindPut, Request: &pb.PutRequest{Key: []byte(key), Value: []byte("v")},
		})
		return err
	}
	for i := range 20 {
		require.NoError(t, put(m, fmt.Sprint("before", i)))
	}

	broken.Store(true)
	acknowledged := make(chan error, 1)
	go func() { acknowledged <- put(m, "after") }()
	select {
	case <-m.Done():
	case <-ctx.Done():
		t.Fatal("the member goes on after a failed sync")
	}
	require.ErrorIs(t, m.Err(), errDisk)
	require.EqualValues(t, 1, failed.Load(), "no sync is tried again")
	select {
	case err := <-acknowledged:
		require.Error(t, err, "a write is acknowledged that may not be on disk")
	default: // it waits for ever: its member is gone, and its caller's context ends it
		cancel()
		require.Error(t, <-acknowledged)
	}

	broken.Store(false)
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err = Start(ctx, cfg)
	require.NoError(t, err)
	defer m.Kill()
	<-m.Ready()
	view, err := backend{m}.Read(ctx)
	require.NoError(t, err)
	for i := range 20 {
		require.NotNil(t, view.Get(fmt.Sprint("before", i)))
	}
}
