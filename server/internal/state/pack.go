package state

const (
	// The blocks that pack fills: each fits a size of Go's allocator, and a block that is half dead holds little.
	packBytes    = 32 << 10
	packVersions = 72
	packPasts    = 340
	// A longer value, and a longer list, has memory of its own and stays where it is.
	packValueMax = packBytes / 8
	packPastsMax = packPasts / 4
)

// idleShare is the part of Config.HistoryBytes that the event window of an idle store keeps.
const idleShare = 8

// Shrink lets go of most events that the archive holds: for a store to which little happens, before it is packed. Who
// asks for them waits for the archive.
func (m *Machine) Shrink() {
	m.window.dropTo(m.window.limit / idleShare)
	m.view = nil
}

// Pack moves versions that were not written lately to memory of their own: up to n keys a call, in order, from a key on.
// It returns the key to go on with, empty at the end. What a read, a View or the Digest shows does not change; a View
// that was taken before holds on to the old memory.
//
// It is for a store that many writes have gone over. What survives of each stretch of memory then is a few versions among
// what is free, and nothing that lives is ever moved by Go's collector: 27 MB were seen to be held for 16 that lived.
// In turn a block stays as long as anything in it, so whoever packs does so again when as much was written as lives.
func (m *Machine) Pack(from string, n int) (next string) {
	p := &m.room.packer
	batch := m.room.victims[:0]
	merge(m.live, m.dead, from, func(v *Version) bool {
		if len(batch) == n {
			next = v.Key
			return false
		}
		batch = append(batch, v)
		return true
	})
	for _, v := range batch {
		if m.window.holds(v.Revision()) {
			continue // its event holds it where it is
		}
		tree := m.live
		if v.Deleted {
			tree = m.dead
		}
		moved := p.version(v)
		tree.Delete(v.Key) // a Set alone would leave the old key in the tree
		tree.Set(moved.Key, moved)
	}
	clear(batch)
	m.room.victims = batch[:0]
	m.view = nil
	if next == "" {
		*p, m.room.victims = packer{}, nil
	}
	return next
}

// packer holds the blocks that are being filled.
type packer struct {
	bytes    []byte
	versions []Version
	pasts    []past
}

// version returns a copy of v that shares no memory with it, but for what is long. Only the copy is appended from.
func (p *packer) version(v *Version) *Version {
	c := *v
	c.Key = text(p.copy([]byte(v.Key)))
	if len(v.Value) > 0 && len(v.Value) <= packValueMax {
		c.Value = p.copy(v.Value)
	}
	if len(v.older) <= packPastsMax {
		c.older = p.past(v.older)
	}
	if len(p.versions) == cap(p.versions) {
		p.versions = make([]Version, 0, packVersions)
	}
	p.versions = append(p.versions, c)
	return &p.versions[len(p.versions)-1]
}

// copy copies b, with no room behind it. A key is longer than packValueMax only if somebody means to have such keys.
func (p *packer) copy(b []byte) []byte {
	if len(b) > packValueMax {
		return append([]byte(nil), b...)
	}
	if cap(p.bytes)-len(p.bytes) < len(b) {
		p.bytes = make([]byte, 0, packBytes)
	}
	start := len(p.bytes)
	p.bytes = append(p.bytes, b...)
	return p.bytes[start:len(p.bytes):len(p.bytes)]
}

// past copies a list of superseded versions, with no room behind it: the next one makes another array.
func (p *packer) past(list []past) []past {
	if len(list) == 0 {
		return nil
	}
	if cap(p.pasts)-len(p.pasts) < len(list) {
		p.pasts = make([]past, 0, packPasts)
	}
	start := len(p.pasts)
	p.pasts = append(p.pasts, list...)
	return p.pasts[start:len(p.pasts):len(p.pasts)]
}
