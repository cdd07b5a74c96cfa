package socket_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/socket"
)

// TestReadAndWrite goes through what a socket that does not block can answer.
func TestReadAndWrite(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	for _, fd := range fds {
		require.NoError(t, syscall.SetNonblock(fd, true))
	}
	in := make([]byte, 16)
	n, err := socket.Read(fds[1], in)
	require.Zero(t, n)
	require.Equal(t, syscall.EAGAIN, err)

	n, err = socket.Write(fds[0], []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	n, err = socket.Write(fds[0], nil)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = socket.Read(fds[1], in)
	require.NoError(t, err)
	require.Equal(t, "hello", string(in[:n]))

	taken := 0
	for err == nil { // until the other side takes no more
		n, err = socket.Write(fds[0], make([]byte, 64<<10))
		taken += n
	}
	require.Equal(t, syscall.EAGAIN, err)
	require.Positive(t, taken)

	require.NoError(t, syscall.Close(fds[0]))
	for taken > 0 {
		n, err = socket.Read(fds[1], make([]byte, 64<<10))
		require.NoError(t, err)
		require.Positive(t, n)
		taken -= n
	}
	n, err = socket.Read(fds[1], in)
	require.NoError(t, err)
	require.Zero(t, n) // the end
	n, err = socket.Write(fds[1], in)
	require.Zero(t, n)
	require.Equal(t, syscall.EPIPE, err)
	require.NoError(t, syscall.Close(fds[1]))
}
