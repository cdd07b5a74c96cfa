package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports come from below the kernel's ephemeral range: a member that restarts
// finds its port still free, which it would not if a client's outgoing
// connection could be given it meanwhile.
const (
	firstPort = 15000
	lastPort  = 31000
	portTries = 1000
)

// portPool hands out each port once in a process.
type portPool struct {
	mu    sync.Mutex
	taken map[int]bool // mu protects
}

func newPortPool() *portPool { return &portPool{taken: make(map[int]bool)} }

// take returns n loopback addresses that nobody listened on a moment ago.
func (p *portPool) take(n int) ([]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for range portTries {
		if len(out) == n {
			return out, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		if p.taken[port] {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("probe %s: %w", addr, err)
		}
		p.taken[port] = true
		out = append(out, addr)
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, firstPort, lastPort)
}
