package front

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// FuzzFrames: whatever comes after the preface, a connection ends when its client does, and nothing of it is left. Plain
// HTTP is served too, if the first byte is odd.
func FuzzFrames(f *testing.F) {
	for _, seed := range frameSeeds(f) {
		f.Add(append([]byte{0}, seed...))
		f.Add(append([]byte{1}, seed...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg := Config{Codec: encoding.GetCodecV2(grpcproto.Name), MaxRequestBytes: 100_000, MinPingInterval: time.Hour}
		if len(data) > 0 && data[0]%2 == 1 {
			cfg.Web = site()
		}
		if len(data) > 0 {
			data = data[1:]
		}
		r := newIdleRig(cfg)
		ours, theirs := net.Pipe()
		c := newConn(r.front, ours)
		read := make(chan struct{})
		go func() { _, _ = io.Copy(io.Discard, theirs); close(read) }()
		go func() {
			_, _ = theirs.Write(append([]byte(preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), data...))
			_ = theirs.Close()
		}()
		c.serve()
		<-read
		close(r.stuck)
		r.front.Stop() // waits for all goroutines
		require.Empty(t, c.streams)
		require.GreaterOrEqual(t, c.held, 0)
		require.GreaterOrEqual(t, c.unsent, 0)
		require.GreaterOrEqual(t, c.orphans, 0)
		if c.orphans == 0 && len(r.held) == 0 && len(r.began) == 0 {
			return
		}
		require.LessOrEqual(t, c.orphans, len(r.held)+len(r.began))
	})
}

// frameSeeds are conversations of some kinds.
func frameSeeds(t testing.TB) [][]byte {
	var seeds [][]byte
	add := func(say func(c *raw)) {
		var b bytes.Buffer
		c := &raw{t: t, Framer: http2.NewFramer(&b, &b)}
		c.AllowIllegalWrites = true
		c.encoder = hpack.NewEncoder(&c.block)
		say(c)
		seeds = append(seeds, b.Bytes())
	}
	add(func(c *raw) { c.request(1, true); c.request(3, true) })
	add(func(c *raw) { c.duplex(1); c.wait(1, false); c.must(c.WriteRSTStream(1, 8)) })
	add(func(c *raw) {
		c.request(1, false)
		c.must(c.WriteData(1, false, message(simple(10, 100_000))))
		c.headers(1, true, "a", "b")
	})
	add(func(c *raw) {
		c.must(c.WriteSettings(http2.Setting{ID: settingInitialWindow, Val: 5}))
		c.headers(1, false, unaryFields...)
		c.must(c.WriteData(1, true, message(simple(0, 70_000))))
		c.must(c.WriteWindowUpdate(1, 1000))
		c.must(c.WriteSettings(http2.Setting{ID: settingInitialWindow, Val: 100_000}, http2.Setting{ID: settingHeaderTable}))
		c.must(c.WriteWindowUpdate(0, 1000))
	})
	add(func(c *raw) { // plain HTTP, where that is served
		for i, path := range []string{"/echo", "/lines", "/bare", "/nowhere", "/wait"} {
			c.headers(uint32(2*i+1), false, ":method", "POST", ":scheme", "http", ":path", path, ":authority", "x")
			c.must(c.WriteData(uint32(2*i+1), i != 1, []byte("a\nb\n")))
		}
		c.must(c.WriteRSTStream(9, 8))
	})
	add(func(c *raw) {
		c.part(1)
		c.must(c.WriteContinuation(1, true, c.encode("a-bin", "AA", "grpc-timeout", "1S", "content-length", "5")))
		c.must(c.WriteDataPadded(1, true, message(&pb.SimpleRequest{FillOauthScope: true}), make([]byte, 3)))
		c.must(c.WritePing(false, [8]byte{}))
		c.must(c.WriteGoAway(0, 0, nil))
		c.must(c.WritePriority(1, http2.PriorityParam{}))
	})
	return seeds
}

// FuzzHeaders: remembering decoded blocks changes nothing. The input is blocks, each behind its length.
func FuzzHeaders(f *testing.F) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	var seed []byte
	for range 4 {
		b.Reset()
		for i := 0; i < len(unaryFields); i += 2 {
			require.NoError(f, e.WriteField(hpack.HeaderField{Name: unaryFields[i], Value: unaryFields[i+1]}))
		}
		seed = append(append(seed, byte(b.Len())), b.Bytes()...)
	}
	f.Add(seed)
	f.Add(append(seed, 1, 0x20, 1, 0x82, 2, 0x82, 0xbe, 3, 0x40, 1, 'a', 2, 0xbe, 0xbf))
	s := newIdleRig(Config{}).front
	f.Fuzz(func(t *testing.T, data []byte) {
		with, without := newHeaders(s), newHeaders(s)
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			block := data[1 : 1+n]
			data = data[1+n:]
			without.recent, without.next = nil, 0
			want, wantErr := without.decode(block)
			got, err := with.decode(block)
			require.Equal(t, wantErr, err)
			if err != nil {
				return
			}
			require.Equal(t, want, got)
		}
	})
}
