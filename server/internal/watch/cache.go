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
	rev     int64
	deleted bool
	version *state.Version
	prev    *state.Version
	// prevKV and missing serve events from the archive, which does not say what an event replaced. Such a payload
	// belongs to one stream.
	prevKV  *mvccpb.KeyValue
	missing bool

	plain, full atomic.Pointer[[]byte]
}

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
	b := encodeEvent(fromVersion(p.version), p.deleted, before)
	cached.Store(&b)
	return b
}

// bytes is the size of the event without its previous version, near enough for batching.
func (p *payload) bytes() int {
	return len(p.version.Key) + len(p.version.Value) + payloadOverheadBytes/4
}

// item is a reference to a payload that the cache may cut. Queues hold items, so that a stream that stands still pins
// a word for each event and not the event.
type item struct {
	rev     int64
	payload atomic.Pointer[payload]
}

// cache holds the payloads of recent events, first in first out.
type cache struct {
	mu    sync.Mutex
	byRev map[state.Revision]*item
	fifo  []cached // a ring; the oldest at head
	head  int
	count int
	bytes int

	bytesMax, eventsMax int
}

type cached struct {
	rev   state.Revision
	bytes int
}

func newCache(l limits) *cache {
	return &cache{byRev: make(map[state.Revision]*item), bytesMax: l.cacheBytes, eventsMax: l.cacheEvents}
}

// intern returns the shared item of an event and its payload, which the caller holds on to however soon the cache
// cuts the item.
func (c *cache) intern(e state.Event) (*item, *payload) {
	rev := e.Version.Revision()
	c.mu.Lock()
	defer c.mu.Unlock()
	if it := c.byRev[rev]; it != nil {
		return it, it.payload.Load()
	}
	p := &payload{rev: e.Version.Mod, deleted: e.Version.Deleted, version: e.Version}
	if e.Prev != nil && !e.Prev.Deleted {
		p.prev = e.Prev
	}
	it := &item{rev: e.Version.Mod}
	it.payload.Store(p)
	// Twice the bytes: the version itself, which may outlive the history here, and its encoding.
	size := payloadOverheadBytes + 2*(len(p.version.Key)+len(p.version.Value))
	if p.prev != nil {
		size += 2 * (len(p.prev.Key) + len(p.prev.Value))
	}
	c.push(cached{rev: rev, bytes: size})
	c.byRev[rev] = it
	for c.count > 1 && (c.bytes > c.bytesMax || c.count > c.eventsMax) {
		oldest := c.pop()
		c.byRev[oldest.rev].payload.Store(nil)
		delete(c.byRev, oldest.rev)
	}
	return it, p
}

func (c *cache) push(e cached) {
	if c.count == len(c.fifo) {
		grown := make([]cached, max(64, 2*len(c.fifo)))
		n := copy(grown, c.fifo[c.head:])
		copy(grown[n:], c.fifo[:c.head])
		c.fifo, c.head = grown, 0
	}
	c.fifo[(c.head+c.count)%len(c.fifo)] = e
	c.count++
	c.bytes += e.bytes
}

func (c *cache) pop() cached {
	e := c.fifo[c.head]
	c.head = (c.head + 1) % len(c.fifo)
	c.count--
	c.bytes -= e.bytes
	return e
}
