package watch

import (
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// payloadOverheadBytes is what an event costs in the cache besides its bytes.
const payloadOverheadBytes = 256

// payload is an event with its encodings. It is shared by all the streams that send the event; everything but the
// two encodings and what fill sets is immutable.
type payload struct {
	version *state.Version
	prev    *state.Version // nil when there was none
	// prevKV and missing serve events from the archive, which does not say what an event replaced. Such a payload
	// belongs to one stream.
	prevKV  *mvccpb.KeyValue
	missing bool

	plain, full atomic.Pointer[[]byte]
}

func (p *payload) rev() int64 { return p.version.Mod }

// encoded returns the event as bytes of a response, with the previous version if there is one and prev asks for it.
// Two goroutines that ask at the same time may both do the work; the bytes are equal.
func (p *payload) encoded(prev bool) []byte {
	cached, before := &p.plain, (*keyValue)(nil)
	if prev {
		switch {
		case p.prev != nil:
			kv := fromVersion(p.prev)
			cached, before = &p.full, &kv
		case p.prevKV != nil:
			kv := fromMessage(p.prevKV)
			cached, before = &p.full, &kv
		}
	}
	if b := cached.Load(); b != nil {
		return *b
	}
	b := encodeEvent(fromVersion(p.version), p.version.Deleted, before)
	cached.Store(&b)
	return b
}

// bytes is the size of the event without its previous version, near enough for batching.
func (p *payload) bytes() int {
	return len(p.version.Key) + len(p.version.Value) + payloadOverheadBytes/4
}

// cached is what the payload counts in the cache: its versions, which may outlive the history here, and their encodings.
func (p *payload) cached() int {
	n := payloadOverheadBytes + 2*(len(p.version.Key)+len(p.version.Value))
	if p.prev != nil {
		n += 2 * (len(p.prev.Key) + len(p.prev.Value))
	}
	return n
}

// cache holds the payloads of recent events, so that each is encoded once for all streams. Each event has one slot that
// it can be in, which successive revisions fill one after the other; a newer event takes the slot of an older one. When
// there are too many bytes, a hand that goes round the slots frees some. Whoever finds an event gone reads it again.
type cache struct {
	slots    []atomic.Pointer[payload] // a power of two; read without the mutex
	bytesMax int

	mu    sync.Mutex // protects writing of slots, and:
	bytes int
	hand  int
}

func newCache(l limits) *cache {
	return &cache{slots: make([]atomic.Pointer[payload], l.cacheEvents), bytesMax: l.cacheBytes}
}

// slot returns the place for an event. Writes within a revision are spread, as each is a revision's worth apart.
func (c *cache) slot(rev state.Revision) *atomic.Pointer[payload] {
	return &c.slots[int(rev.Main+rev.Sub*0x9e5)&(len(c.slots)-1)]
}

// find returns the payload of an event, nil when the cache does not have it.
func (c *cache) find(rev state.Revision) *payload {
	if p := c.slot(rev).Load(); p != nil && p.version.Revision() == rev {
		return p
	}
	return nil
}

// intern returns the payload of an event, which it keeps unless a newer event is in its place.
func (c *cache) intern(e state.Event) *payload {
	rev := e.Version.Revision()
	if p := c.find(rev); p != nil {
		return p
	}
	p := &payload{version: e.Version, prev: e.Prev}
	if p.prev != nil && p.prev.Deleted {
		p.prev = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	slot := c.slot(rev)
	if old := slot.Load(); old != nil {
		switch order := old.version.Revision().Compare(rev); {
		case order == 0:
			return old
		case order > 0:
			return p
		}
		c.bytes -= old.cached()
	}
	slot.Store(p)
	c.bytes += p.cached()
	for c.bytes > c.bytesMax {
		if old := c.slots[c.hand].Load(); old != nil && old != p {
			c.slots[c.hand].Store(nil)
			c.bytes -= old.cached()
		} else if old == p && c.bytes == p.cached() {
			break // it is larger than the cache, and alone
		}
		c.hand = (c.hand + 1) & (len(c.slots) - 1)
	}
	return p
}
