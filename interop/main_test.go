package interop_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/latchkey-go/latchkey/interop/harness"
)

var (
	referenceKind = flag.String("reference", string(harness.Etcd), "the `server` whose answers are right")
	subjectKind   = flag.String("subject", string(harness.Latchkey), "the `server` under test")
)

// testTimeout bounds each test's work, so that a hanging server fails the test
// that found it.
const testTimeout = 2 * time.Minute

// side is one of the two servers that a test compares, with raw gRPC clients:
// what goes over the wire is exactly what the test says.
type side struct {
	cluster *harness.Cluster
	conn    *grpc.ClientConn
	kv      pb.KVClient
	lease   pb.LeaseClient
	watch   pb.WatchClient
	maint   pb.MaintenanceClient
	members pb.ClusterClient
	called  *calledMethods
}

// buildTools makes the programs that the tests start, before the time of the first
// one begins.
func buildTools() {
	if err := harness.BuildAll(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// startSide starts a fresh cluster of the kind for the test. A client's
// messages may be larger than a server accepts: refusing is the server's part.
func startSide(t *testing.T, kind string, members int, flags ...string) *side {
	t.Helper()
	c, err := harness.Start(testContext(t), harness.Config{Kind: harness.Kind(kind), Members: members, Flags: flags})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return connect(t, c)
}

// connect gives raw clients of a cluster's first member.
func connect(t *testing.T, c *harness.Cluster) *side {
	t.Helper()
	const most = 64 << 20
	called := &calledMethods{methods: make(map[string]bool)}
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(c.Members[0].ClientURL, "http://"),
		grpc.WithUnaryInterceptor(called.unary), grpc.WithStreamInterceptor(called.stream),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(most), grpc.MaxCallRecvMsgSize(most)))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return &side{
		cluster: c,
		conn:    conn,
		kv:      pb.NewKVClient(conn),
		lease:   pb.NewLeaseClient(conn),
		watch:   pb.NewWatchClient(conn),
		maint:   pb.NewMaintenanceClient(conn),
		members: pb.NewClusterClient(conn),
		called:  called,
	}
}

// startBoth starts the reference and the subject with the same flags.
func startBoth(t *testing.T, members int, flags ...string) (reference, subject *side) {
	t.Helper()
	var wg sync.WaitGroup
	var sides [2]*side
	for i, kind := range []string{*referenceKind, *subjectKind} {
		wg.Go(func() { sides[i] = startSide(t, kind, members, flags...) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return sides[0], sides[1]
}
