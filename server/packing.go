package server

// packing decides when the keeper packs what the machine has in memory: once a
// load is over that has written as much as lives, so that the work is a share of
// that of the writes. It has the machine for packKeys at a time, some hundred
// microseconds. Until the next collection there are two copies of what was moved,
// so a large store stays as it is.
type packing struct {
	written int64 // bytes of commands since the last time
}

const (
	// packQuietBytes is what may be applied in a keepInterval in which there is little to do.
	packQuietBytes = 64 << 10
	// packLeastBytes is what a load has to write at least.
	packLeastBytes = 4 << 20
	packKeys       = 256
	// packLiveMax and packKeysMax bound the store.
	packLiveMax = 32 << 20
	packKeysMax = 1 << 16
)

// due reports whether it is time, after commands of so many bytes were applied
// since the last time that it was asked. Only a regular interval is long enough to
// tell that there is little to do.
func (p *packing) due(bytes int64, regular bool, size packSize) bool {
	p.written += bytes
	if !regular || bytes > packQuietBytes || p.written < max(packLeastBytes, size.live) ||
		size.live > packLiveMax || size.keys > packKeysMax {
		return false
	}
	p.written = 0
	return true
}

// packSize is how large a store is: bytes that live, and keys, deleted ones included.
type packSize struct {
	live int64
	keys int
}

// pack packs all of the machine, until stop is closed.
func (k *keeper) pack(stop <-chan struct{}) {
	k.s.store.shrink(k.s.hub.Refresh)
	for from, more := "", true; more; more = from != "" {
		select {
		case <-stop:
			return
		default:
		}
		from = k.s.store.pack(from)
	}
	k.log.Debug("memory packed")
}
