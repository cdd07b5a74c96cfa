package harness

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// network carries what the members of a cluster say to each other, and can cut one off: then nothing passes to it or from it, until that is over. What was
// under way stays on its way, as the packets of a network do that are sent again, and connections stay open.
//
// Members dial the same address of a member, whoever they are, so who has dialled is found out from the kernel's tables.
type network struct {
	members []*Member

	mu      sync.Mutex
	cut     map[*Member]chan struct{} // mu protects; those who are cut off, with what is closed when they no longer are
	closed  chan struct{}
	running sync.WaitGroup
	doors   []net.Listener // immutable once open
}

// openNetwork opens a door to each member at the address of the same index, where the others will dial it.
func openNetwork(members []*Member, doors []string) (*network, error) {
	n := &network{members: members, cut: make(map[*Member]chan struct{}), closed: make(chan struct{})}
	for i, m := range members {
		door, err := net.Listen("tcp", doors[i])
		if err != nil {
			n.close()
			return nil, fmt.Errorf("open a door to %s: %w", m.Name, err)
		}
		n.doors = append(n.doors, door)
		n.running.Go(func() { n.serve(door, m) })
	}
	return n, nil
}

// close closes all doors and connections, and waits for their end.
func (n *network) close() {
	close(n.closed)
	for _, door := range n.doors {
		_ = door.Close() // nothing is to be done about an error
	}
	n.running.Wait()
}

func (n *network) serve(door net.Listener, to *Member) {
	for {
		conn, err := door.Accept()
		if err != nil {
			return
		}
		n.running.Go(func() { n.connect(conn, to) })
	}
}

// connect carries one connection, which is from some member, until either end closes it.
func (n *network) connect(in net.Conn, to *Member) {
	defer in.Close()
	over := make(chan struct{})
	defer close(over)
	parties := new(parties)
	parties.add(to)
	n.running.Go(func() { parties.add(n.owner(in.RemoteAddr())) }) // the tables may be long, and those who connect impatient
	if !n.pass(parties, over) {
		return
	}
	out, err := net.Dial("tcp", strings.TrimPrefix(to.listenURL, "http://"))
	if err != nil {
		return
	}
	defer out.Close()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		n.running.Go(func() {
			n.carry(way[0], way[1], parties, over)
			ended <- struct{}{}
		})
	}
	select {
	case <-ended:
	case <-n.closed:
	}
}

// parties are the members at the ends of a connection, as far as they are known.
type parties struct {
	mu   sync.Mutex
	some []*Member // mu protects; the slice is never changed, only replaced
}

// add notes one; nil is none.
func (p *parties) add(m *Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m != nil {
		p.some = append(p.some[:len(p.some):len(p.some)], m)
	}
}

func (p *parties) list() []*Member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.some
}

// carry copies from one connection to the other, while none of the parties is cut off.
func (n *network) carry(from io.Reader, to io.Writer, parties *parties, over <-chan struct{}) {
	buf := make([]byte, 64<<10)
	for {
		read, err := from.Read(buf)
		if err != nil || !n.pass(parties, over) {
			return
		}
		if _, err := to.Write(buf[:read]); err != nil {
			return
		}
	}
}

// pass waits until none of the parties is cut off. It returns false when the connection is over.
func (n *network) pass(parties *parties, over <-chan struct{}) bool {
	for {
		var cut chan struct{}
		n.mu.Lock()
		for _, m := range parties.list() {
			if c := n.cut[m]; c != nil {
				cut = c
			}
		}
		n.mu.Unlock()
		if cut == nil {
			return true
		}
		select {
		case <-cut:
		case <-over:
			return false
		case <-n.closed:
			return false
		}
	}
}

// owner returns the member whose process has the socket at the address; nil when it is nobody's, as that of a connection that is closed.
func (n *network) owner(addr net.Addr) *Member {
	port := addr.(*net.TCPAddr).Port
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return nil
	}
	local := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(table)) {
		if !strings.Contains(line, local) {
			continue
		}
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
		if f := strings.Fields(line); len(f) > 9 && strings.HasSuffix(f[1], local) {
			for _, m := range n.members {
				if m.hasSocket("socket:[" + f[9] + "]") {
					return m
				}
			}
		}
	}
	return nil
}

func (m *Member) hasSocket(link string) bool {
	pid, err := m.PID()
	if err != nil {
		return false
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && to == link {
			return true
		}
	}
	return false
}

// CutOff keeps the other members from hearing of this one, and this one of them, until restore is called. Clients reach it as before. Only in a cluster
// with Config.Network.
func (m *Member) CutOff() (restore func()) {
	n := m.network
	n.mu.Lock()
	defer n.mu.Unlock()
	over := make(chan struct{})
	n.cut[m] = over
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.cut, m)
		close(over)
	}
}
