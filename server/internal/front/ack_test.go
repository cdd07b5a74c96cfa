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

// TestAcknowledgementsAreSpaced has a client that pings faster than acknowledgements are spaced: the first ping is
// answered at once, those that follow within the interval at its end, in their order, and none is forgotten.
func TestAcknowledgementsAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(Config{Codec: encoding.GetCodecV2(grpcproto.Name)})
		ours, theirs := net.Pipe()
		c := newConn(r.front, ours)
		done := make(chan struct{})
		go func() { c.serve(); close(done) }()
		client := &raw{t: t, Conn: theirs, Framer: http2.NewFramer(theirs, theirs), decoder: hpack.NewDecoder(4096, nil)}
		greeted := make(chan struct{})
		go func() { client.greet(); close(greeted) }()
		type ack struct {
			number byte
			after  time.Duration
		}
		var acks []ack
		began := time.Now() // virtual: it stands still while they greet
		read := make(chan struct{})
		go func() {
			defer close(read)
			for {
				f, err := client.ReadFrame()
				if err != nil {
					return
				}
				if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
					acks = append(acks, ack{p.Data[0], time.Since(began)})
				}
			}
		}()
		<-greeted
		synctest.Wait()
		for number := range byte(3) {
			require.NoError(t, client.WritePing(false, [8]byte{number}))
			<-time.After(ackInterval / 4) // virtual
		}
		<-time.After(2 * ackInterval)
		require.NoError(t, client.WritePing(false, [8]byte{3}))
		synctest.Wait()
		_ = theirs.Close()
		<-read
		<-done
		require.Equal(t, []ack{{0, 0}, {1, ackInterval}, {2, ackInterval}, {3, 3*ackInterval/4 + 2*ackInterval}}, acks)
		r.front.Stop()
	})
}

// TestAcknowledgementsOfAnswers has a client that pings after each answer. Where those were small, the acknowledgement
// takes its time, and goes along with what is written in the second half of it; after large ones it does not wait.
func TestAcknowledgementsOfAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(Config{Codec: encoding.GetCodecV2(grpcproto.Name)})
		ours, theirs := net.Pipe()
		c := newConn(r.front, ours)
		done := make(chan struct{})
		go func() { c.serve(); close(done) }()
		client := &raw{t: t, Conn: theirs, Framer: http2.NewFramer(theirs, theirs), decoder: hpack.NewDecoder(4096, nil)}
		greeted := make(chan struct{})
		go func() { client.greet(); close(greeted) }()
		acks := make(map[byte]time.Duration)
		began := time.Now() // virtual: it stands still while they greet
		read := make(chan struct{})
		go func() {
			defer close(read)
			for {
				f, err := client.ReadFrame()
				if err != nil {
					return
				}
				if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
					acks[p.Data[0]] = time.Since(began)
				}
			}
		}()
		<-greeted
		synctest.Wait()
		const ms, nothing = time.Millisecond, -1
		for _, step := range []struct {
			at       time.Duration
			answered int // bytes
			ping     int
		}{
			{0, 100, 0}, {5 * ms, 100, 1}, {40 * ms, nothing, nothing}, // too early
			{105 * ms, 100, 2}, {160 * ms, nothing, nothing}, {165 * ms, ackBulkBytes, 3}, {175 * ms, 100, 4},
			{178 * ms, ackBulkBytes, nothing}, // too early
			{182 * ms, nothing, nothing},
		} {
			<-time.After(step.at - time.Since(began)) // virtual
			c.mu.Lock()
			if step.answered != nothing {
				c.acks.answered, c.acks.bytes = true, c.acks.bytes+step.answered
			}
			if step.ping == nothing { // something else is written
				c.out = appendFrameHeader(c.out, 0, frameSettings, flagAck, 0)
			}
			c.mu.Unlock()
			c.flush()
			if step.ping != nothing {
				require.NoError(t, client.WritePing(false, [8]byte{byte(step.ping)}))
			}
		}
		<-time.After(time.Second)
		want := map[byte]time.Duration{0: 0, 1: ackRestInterval, 2: 160 * ms, 3: 170 * ms, 4: 182 * ms}
		_ = theirs.Close()
		<-read
		<-done
		require.Equal(t, want, acks)
		r.front.Stop()
	})
}

// TestAcknowledgementsAreBounded has a client that pings without end within one interval: what is owed does not grow.
func TestAcknowledgementsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newIdleRig(Config{Codec: encoding.GetCodecV2(grpcproto.Name)})
		c := newConn(r.front, &net.TCPConn{})
		now := time.Now()
		c.acks.last = now
		const pings = 1000
		for range pings {
			c.acknowledge(make([]byte, 8), now)
			require.LessOrEqual(t, len(c.acks.owed), acksOwedMax+frameHeaderBytes+8)
		}
		require.Equal(t, pings*(frameHeaderBytes+8), len(c.out)+len(c.acks.owed))
		c.acks.timer.Stop()
		r.front.Stop()
	})
}
