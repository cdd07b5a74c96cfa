package audit

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/server/internal/auth"
)

func open(t *testing.T, cfg Config) *Log {
	cfg.File = filepath.Join(t.TempDir(), "audit")
	cfg.Who = func(context.Context) string { return "ann" }
	l, err := Open(cfg)
	require.NoError(t, err)
	return l
}

// The methods that only read are methods, and those that change something are not among them.
func TestReadingMethodsExist(t *testing.T) {
	for method := range reading {
		_, ok := auth.RowOf(method)
		require.True(t, ok, method)
		name := method[strings.LastIndex(method, "/")+1:]
		for _, verb := range []string{"Put", "Delete", "Add", "Grant", "Revoke", "Remove", "Enable", "Disable", "Compact", "Change", "Snapshot"} {
			require.NotContains(t, name, verb)
		}
	}
	require.True(t, reads(pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{}))
	require.False(t, reads(pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE}))
	require.False(t, reads("/a.Service/ThatNobodyKnows", &pb.PutRequest{}))
}

// A request with many or long keys does not make a line without a bound.
func TestLinesAreBounded(t *testing.T) {
	l := open(t, Config{})
	r := &pb.TxnRequest{}
	for range keysMax + 7 {
		r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: bytes.Repeat([]byte("k"), 1<<16)}}})
	}
	_, err := l.Unary(context.Background(), r, &grpc.UnaryServerInfo{FullMethod: pb.KV_Txn_FullMethodName},
		func(context.Context, any) (any, error) {
			return &pb.TxnResponse{Header: &pb.ResponseHeader{Revision: 42}}, nil
		})
	require.NoError(t, err)
	content, err := os.ReadFile(l.file.Name())
	require.NoError(t, err)
	require.Less(t, len(content), keysMax*(textBytesMax+64)+1024)
	require.Contains(t, string(content), `"more-keys":7`)
	require.Contains(t, string(content), `"revision":42`)
	require.Contains(t, string(content), `"user":"ann"`)
	require.NoError(t, l.Close())
}

// A request is answered even if its line can not be written, and that is said.
func TestFailures(t *testing.T) {
	var said bytes.Buffer
	l := open(t, Config{Logger: slog.New(slog.NewTextHandler(&said, nil))})
	require.NoError(t, l.Close())
	for range 2 {
		_, err := l.Unary(context.Background(), &pb.PutRequest{}, &grpc.UnaryServerInfo{FullMethod: pb.KV_Put_FullMethodName},
			func(context.Context, any) (any, error) { return &pb.PutResponse{}, nil })
		require.NoError(t, err)
	}
	require.EqualValues(t, 2, l.Failed())
	require.Equal(t, 1, strings.Count(said.String(), "the audit log has not taken a line"))
}
