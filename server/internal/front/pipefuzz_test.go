package front

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	latchkeyv1 "github.com/latchkey-go/latchkey/api/latchkey/v1"
)

// FuzzPipe: an envelope is understood as the generated code does, and what that refuses ends the pipe.
func FuzzPipe(f *testing.F) {
	seed := func(m *latchkeyv1.Requests) {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	one := small(1)
	one.Token, one.RequireLeader = "tökén", true
	seed(&latchkeyv1.Requests{})
	seed(&latchkeyv1.Requests{Requests: []*latchkeyv1.Request{one, small(2), ask(1<<63, 99, &pb.Empty{})}, Cancelled: []uint64{2, 1 << 40}})
	f.Add([]byte{0x10, 0x05, 0x0a, 0x02, 0x08, 0x05, 0x0a, 0x04, 0x12, 0x00, 0x08, 0x06})
	f.Add([]byte{0x0b, 0x0c, 0x0a, 0x03, 0x22, 0x01, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var want latchkeyv1.Requests
		wantErr := proto.Unmarshal(data, &want)
		got, err := understood(data)
		if wantErr != nil {
			require.Error(t, err, "%v", wantErr)
			return
		}
		require.NoError(t, err)
		require.Equal(t, len(want.GetRequests()), len(got.tasks))
		for i, w := range want.GetRequests() {
			g := got.tasks[i]
			require.Equal(t, w.GetId(), g.call.id)
			require.Equal(t, w.GetToken(), g.call.token)
			require.Equal(t, w.GetRequireLeader(), g.call.leader)
			require.Equal(t, int32(w.GetMethod()), got.numbers[i])
			require.True(t, bytes.Equal(w.GetBody(), g.body))
		}
		require.Equal(t, want.GetCancelled(), got.cancelled)
	})
}

// envelope is what a pipe understands of a message.
type envelope struct {
	tasks     []pipeTask
	numbers   []int32
	cancelled []uint64
}

func understood(message []byte) (e envelope, err error) {
	err = eachOf(message, func(b []byte) error {
		task := pipeTask{call: new(pipeCall)}
		number, err := task.decode(b)
		e.tasks, e.numbers = append(e.tasks, task), append(e.numbers, number)
		return err
	}, func(id uint64) { e.cancelled = append(e.cancelled, id) })
	return e, err
}
