package checkpoint

import (
	"encoding/hex"
	"testing"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The rows are those that etcd 3.7 writes for the same content, byte for byte.
func TestRowsAreEtcds(t *testing.T) {
	s := create(t, 1)
	long := make([]byte, 300)
	ch := state.Changes{
		Index: 0x1234, Term: 3, Revision: 9, Compact: 4, SweptTo: 3,
		Versions: []*state.Version{
			{Key: "foo", Value: []byte("bar"), Create: 2, Mod: 2, Count: 1},
			{Key: "foo", Value: long, Create: 2, Mod: 5, Sub: 1, Count: 2, Lease: -7},
			{Key: "gone", Create: 6, Mod: 6, Count: 1},
			{Key: "foo", Mod: 9, Sub: 2, Deleted: true},
		},
		Removed: []state.Revision{{Main: 6}},
		Leases:  []state.LeaseInfo{{ID: 0x77, TTL: 60}, {ID: -7, TTL: 5}},
		Members: []state.Member{{ID: 0xabc, Name: "two", PeerURLs: []string{"http://127.0.0.1:3"}, ClientURLs: []string{"http://x"}}},
	}
	leave := true
	conf := &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}, VotersOutgoing: []uint64{1}, AutoLeave: &leave}
	require.NoError(t, s.Save(ch, conf))

	want := map[string]map[string]string{
		"key": {
			rawRevision("0000000000000002", "0000000000000000", ""):  keyValue(t, ch.Versions[0]),
			rawRevision("0000000000000005", "0000000000000001", ""):  keyValue(t, ch.Versions[1]),
			rawRevision("0000000000000009", "0000000000000002", "t"): keyValue(t, ch.Versions[3]),
		},
		"meta": {
			"consistent_index":    "\x00\x00\x00\x00\x00\x00\x12\x34",
			"term":                "\x00\x00\x00\x00\x00\x00\x00\x03",
			"confState":           `{"voters":[1,2],"learners":[3],"voters_outgoing":[1],"auto_leave":true}`,
			"storageVersion":      "3.7.0",
			"scheduledCompactRev": rawRevision("0000000000000004", "0000000000000000", ""),
			"finishedCompactRev":  rawRevision("0000000000000003", "0000000000000000", ""),
		},
		"lease": {
			"\x00\x00\x00\x00\x00\x00\x00\x77": "\x08\x77\x10\x3c",
			"\xff\xff\xff\xff\xff\xff\xff\xf9": "\x08\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01\x10\x05",
		},
		"cluster": {"clusterVersion": "3.7.0"},
		"members": {
			"1":   `{"id":1,"peerURLs":["http://127.0.0.1:1"],"name":"one","clientURLs":["http://127.0.0.1:2"]}`,
			"abc": `{"id":2748,"peerURLs":["http://127.0.0.1:3"],"name":"two","clientURLs":["http://x"]}`,
		},
		"alarm": {}, "members_removed": {}, "auth": {}, "authUsers": {}, "authRoles": {},
	}
	require.Equal(t, want, rows(t, s))

	gone := state.Changes{
		Index: 0x1235, Term: 3, Revision: 9, Compact: 9, SweptTo: 9, RevokedLeases: []int64{0x77, 5},
		Removed: []state.Revision{{Main: 9, Sub: 2}, {Main: 2}, {Main: 5, Sub: 1}, {Main: 7}},
	}
	require.NoError(t, s.Save(gone, nil))
	got := rows(t, s)
	require.Empty(t, got["key"])
	require.Len(t, got["lease"], 1)
	require.NoError(t, s.Close())
	m := reload(t, open(t, s.path), 0)
	require.Equal(t, int64(9), m.Revision(), "though the newest version is gone (etcd #17780)")
	require.Equal(t, int64(9), m.CompactRevision())
}

func rawRevision(main, sub, mark string) string {
	a, _ := hex.DecodeString(main)
	b, _ := hex.DecodeString(sub)
	return string(a) + "_" + string(b) + mark
}

func keyValue(t *testing.T, v *state.Version) string {
	t.Helper()
	kv := &mvccpb.KeyValue{Key: []byte(v.Key)}
	if !v.Deleted {
		kv = &mvccpb.KeyValue{
			Key: []byte(v.Key), Value: v.Value, CreateRevision: v.Create, ModRevision: v.Mod, Version: v.Count, Lease: v.Lease,
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(kv)
	require.NoError(t, err)
	return string(b)
}

// rows returns all rows of all buckets but ours.
func rows(t *testing.T, s *Store) map[string]map[string]string {
	t.Helper()
	all := make(map[string]map[string]string)
	require.NoError(t, s.view(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			if string(name) == string(ownBucket) {
				return nil
			}
			rows := make(map[string]string)
			all[string(name)] = rows
			return b.ForEach(func(k, v []byte) error {
				rows[string(k)] = string(v)
				return nil
			})
		})
	}))
	return all
}

// Rows are decoded to what was encoded, and anything else gives an error and no panic.
func FuzzDecodeVersion(f *testing.F) {
	f.Add([]byte(rawRevision("0000000000000002", "0000000000000000", "")), appendVersion(nil, &state.Version{Key: "a", Create: 2, Mod: 2, Count: 1}))
	f.Add([]byte(rawRevision("0000000000000002", "0000000000000000", "t")), []byte{})
	f.Fuzz(func(t *testing.T, k, row []byte) {
		var v state.Version
		if decodeVersion(&v, k, row) != nil {
			return
		}
		var again state.Version
		require.NoError(t, decodeVersion(&again, appendRevision(nil, v.Revision(), v.Deleted), appendVersion(nil, &v)))
		if len(v.Value) == 0 {
			v.Value, again.Value = nil, nil
		}
		require.Equal(t, v, again)
	})
}
