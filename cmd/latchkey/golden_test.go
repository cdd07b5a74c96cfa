package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/lock"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files in testdata")

// TestOutput prints one of each answer in each form; testdata has the result.
func TestOutput(t *testing.T) {
	kvs := []client.KV{
		{Key: "config/a", Value: []byte("1"), CreateRevision: 2, ModRevision: 5, Version: 3, Lease: 0x694d77aa9e38260f},
		{Key: "config/bé", Value: []byte("two\nlines"), CreateRevision: 7, ModRevision: 7, Version: 1},
		{Key: "\xff", Value: []byte{0, 0xfe}, CreateRevision: 9, ModRevision: 12, Version: 2},
	}
	get := &client.GetResult{Revision: 12, KVs: kvs, Count: 5, More: true}
	event := func(e client.Event) func(string) answer {
		return func(output string) answer { return eventAnswer(e, output, false) }
	}
	always := func(r answer) func(string) answer { return func(string) answer { return r } }
	txn := &txnRequest{success: make([]txnOp, 3), failure: []txnOp{{get: getFlags{keysOnly: true}}}}
	lease := client.LeaseInfo{ID: 0x12ab, TTL: 41500 * time.Millisecond, Granted: time.Minute, Keys: []string{"a", "b"}}
	tests := []struct {
		name string
		make func(output string) answer
	}{
		{"get", always(getAnswer(get, getFlags{}))},
		{"get-keys-only", always(getAnswer(get, getFlags{keysOnly: true}))},
		{"get-value-only", always(getAnswer(get, getFlags{valueOnly: true}))},
		{"get-nothing", always(getAnswer(&client.GetResult{Revision: 12}, getFlags{}))},
		{"put", always(putAnswer(&client.PutResult{Revision: 13}))},
		{"del", always(deleteAnswer(&client.DeleteResult{Revision: 14, Deleted: 3}))},
		{"txn-success", always(txn.answer(&client.TxnResult{Succeeded: true, Revision: 15, Results: []client.OpResult{
			{Put: &client.PutResult{Revision: 15}}, {Get: get}, {Delete: &client.DeleteResult{Revision: 15, Deleted: 1}},
		}}))},
		{"txn-failure", always(txn.answer(&client.TxnResult{Revision: 15, Results: []client.OpResult{{Get: get}}}))},
		{"watch-put", event(client.Event{Type: client.EventPut, KV: kvs[0]})},
		{"watch-delete", event(client.Event{Type: client.EventDelete, KV: client.KV{Key: "config/a", ModRevision: 16}})},
		{"lease-grant", always(leaseAnswer(lease, "lease %s granted with TTL(%ds)\n"))},
		{"lease-timetolive", always(timeToLiveAnswer(lease, false))},
		{"lease-timetolive-keys", always(timeToLiveAnswer(lease, true))},
		{"lease-list", always(leaseListAnswer([]client.LeaseID{1, 0x694d77aa9e38260f}))},
		{"rwlock-list", always(rwlockAnswer(lock.Info{
			Name: "config", Revision: 9,
			Holders: []lock.Contender{{Key: "config/read/12ab.1", Lease: 0x12ab, Token: 7, Owner: "a/17", Info: "report", Mode: lock.ModeRead}},
			Waiters: []lock.Contender{{Key: "config/write/12ac.1", Lease: 0x12ac, Token: 8}},
		}))},
		{"semaphore-list", always(semaphoreAnswer(lock.SemaphoreInfo{
			Name: "builds", Revision: 9, Limit: 4, Used: 3,
			Holders: []lock.Contender{{Key: "builds/12ab.1", Lease: 0x12ab, Token: 7, Owner: "a/17", Permits: 3}},
			Waiters: []lock.Contender{{Key: "builds/12ac.1", Lease: 0x12ac, Token: 8, Owner: "b/2\n", Permits: 2}},
		}))},
		{"member-list", always(membersAnswer([]client.Member{
			{ID: 0x8e9e05c52164694d, Name: "a", PeerURLs: []string{"http://10.0.0.1:2380"}, ClientURLs: []string{"http://10.0.0.1:2379", "http://a:2379"}},
			{ID: 7, PeerURLs: []string{"http://10.0.0.2:2380"}, Learner: true},
		}))},
		{"status", always(statusAnswer([]client.Status{
			{Endpoint: "10.0.0.1:2379", ClusterID: 3, MemberID: 1, Leader: 1, Version: "3.7.0", Revision: 12, Term: 2, Index: 40, Applied: 39, Size: 20480, SizeInUse: 4096},
			{Endpoint: "10.0.0.2:2379", ClusterID: 3, MemberID: 2, Version: "3.7.0", Revision: 12, Term: 2, Index: 40, Applied: 40, Size: 999, Errors: []string{"no leader"}},
		}))},
	}
	for _, tt := range tests {
		goldenAnswer(t, tt.name, tt.make)
	}
}

// goldenAnswer prints an answer in each form.
func goldenAnswer(t *testing.T, name string, make func(output string) answer) {
	for _, output := range outputs {
		t.Run(name+"/"+output, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{out: &out, output: output}
			require.NoError(t, a.print(make(output)))
			golden(t, filepath.Join("testdata", name+"."+output+".txt"), out.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *rewrite {
		require.NoError(t, os.WriteFile(name, got, 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestPrintReportsWhatCannotBeWritten(t *testing.T) {
	a := &app{out: failingWriter{}, output: "simple"}
	require.ErrorIs(t, a.print(putAnswer(&client.PutResult{})), errFull)
}

func TestBytesOf(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1 KB", 20480: "20.5 KB", 999499: "999 KB", 999500: "1 MB",
		4_200_000_000: "4.2 GB", 1<<63 - 1: "9.22 EB",
	} {
		require.Equal(t, want, bytesOf(n), n)
	}
}

var errFull = errors.New("full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

// oneByte gives one byte to a read.
type oneByte struct{ rest string }

func (r *oneByte) Read(p []byte) (int, error) {
	if r.rest == "" {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p[0] = r.rest[0]
	r.rest = r.rest[1:]
	return 1, nil
}

func quote(s string) string { return strconv.Quote(s) }
