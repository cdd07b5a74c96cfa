package interop_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// Three members find each other by etcd's discovery: ours at a member of etcd and at
// one of ours, and etcd's at one of ours.
func TestDiscovery(t *testing.T) {
	for _, tt := range []struct{ service, members harness.Kind }{
		{harness.Etcd, harness.Latchkey}, {harness.Latchkey, harness.Latchkey}, {harness.Latchkey, harness.Etcd},
	} {
		t.Run(fmt.Sprintf("%s at %s", tt.members, tt.service), func(t *testing.T) {
			ctx := testContext(t)
			service := startSide(t, string(tt.service), 1)
			const root = "/_etcd/registry/a-token"
			_, err := service.kv.Put(ctx, &pb.PutRequest{Key: []byte(root + "/_config/size"), Value: []byte("3")})
			require.NoError(t, err)
			founded, err := harness.Start(ctx, harness.Config{Kind: tt.members, Members: 3, Founding: []string{
				"--discovery-token=a-token", "--discovery-endpoints=" + service.cluster.Members[0].ClientURL,
			}})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, founded.Close()) })
			list, err := connect(t, founded).members.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			require.NoError(t, err)
			require.Len(t, list.Members, 3)
			for _, m := range list.Members {
				key := fmt.Sprintf("%s/members/%x", root, m.ID)
				res, err := service.kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
				require.NoError(t, err)
				require.Len(t, res.Kvs, 1, key)
				require.Equal(t, m.Name+"="+m.PeerURLs[0], string(res.Kvs[0].Value))
			}
			// Each serves, and what it needs no more is not asked for: a restart without the service.
			require.NoError(t, service.cluster.Close())
			require.NoError(t, founded.Members[1].Kill())
			require.NoError(t, founded.Members[1].Start(ctx))
		})
	}
}
