package checkpoint

// arenaChunkBytes is the size of an arena's chunks. A value that does not fit has memory of its own.
const arenaChunkBytes = 256 << 10

// arena lends memory until its reset, and keeps as much as was needed between the last two resets: under load each save
// needs about as much as the one before, some megabytes at once, and new memory of that size is pages that the kernel has
// to find and to clear.
type arena struct {
	chunks [][]byte
	full   int    // chunks[:full] are lent
	rest   []byte // of chunks[full-1]: what is not lent
}

// space returns n bytes of capacity and no length.
func (a *arena) space(n int) []byte {
	if n > arenaChunkBytes {
		return make([]byte, 0, n)
	}
	if n > len(a.rest) {
		if a.full == len(a.chunks) {
			a.chunks = append(a.chunks, make([]byte, arenaChunkBytes))
		}
		a.rest = a.chunks[a.full]
		a.full++
	}
	space := a.rest[0:0:n]
	a.rest = a.rest[n:]
	return space
}

// reset takes back all that was lent, and lets go of what was not needed.
func (a *arena) reset() {
	clear(a.chunks[a.full:])
	a.chunks, a.full, a.rest = a.chunks[:a.full], 0, nil
}
