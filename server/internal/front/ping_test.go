package front

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
)

// TestPingsOfIdleClients has clients that ping as often as they may, with no call under way, for an hour: each ping is
// answered. grpc-go's server sends them away, after three if they come within five minutes, or two hours without a call.
// One that pings more often is sent away here too.
func TestPingsOfIdleClients(t *testing.T) {
	for name, test := range map[string]struct {
		interval time.Duration
		pings    int
		away     bool
	}{
		"as often as allowed": {time.Second, 3600, false},
		"CoreDNS":             {5 * time.Second, 720, false},
		"flood":               {time.Second / 2, 10, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newIdleRig(Config{Codec: encoding.GetCodecV2(grpcproto.Name), MinPingInterval: time.Second})
				ours, theirs := net.Pipe()
				c := newConn(r.front, ours)
				done := make(chan struct{})
				go func() { c.serve(); close(done) }()
				client := &raw{t: t, Conn: theirs, Framer: http2.NewFramer(theirs, theirs), decoder: hpack.NewDecoder(4096, nil)}
				greeted := make(chan struct{})
				go func() { client.greet(); close(greeted) }()
				answers, away := 0, false
				read := make(chan struct{})
				go func() {
					defer close(read)
					for {
						f, err := client.ReadFrame()
						if away = err != nil; away {
							return
						}
						if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
							answers++
						}
					}
				}()
				<-greeted
				for range test.pings {
					_ = client.WritePing(false, [8]byte{})
					<-time.After(test.interval) // virtual
				}
				synctest.Wait()
				require.Equal(t, test.away, away)
				if !away {
					require.Equal(t, test.pings, answers)
				}
				_ = theirs.Close()
				<-read
				<-done
				r.front.Stop()
			})
		})
	}
}
