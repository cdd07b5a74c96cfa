package state

import "fmt"

// Scrub compares live versions with the checksums taken when they were written, from the key after on, in order: as many
// as it takes for limit, of which each costs one, and one more for each KiB, but two at least. It returns the key to go
// on from, empty when it has seen the last one, and ErrMemory when a version is not what was written any more: nothing
// writes to one, so the memory it is in is at fault.
func (v *View) Scrub(after string, limit int) (next string, err error) {
	var scratch []byte
	seen, more := 0, false
	v.reader.live.Ascend(after, func(key string, version *Version) bool {
		if more = limit <= 0 && seen >= 2; more {
			return false
		}
		seen, limit = seen+1, limit-1-len(version.Value)>>10
		next = key
		var sum uint32
		if sum, scratch = version.checksum(scratch); sum != version.sum || key != version.Key {
			err = fmt.Errorf("%q at revision %v: %w", key, version.Revision(), ErrMemory)
		}
		return err == nil
	})
	if !more {
		next = ""
	}
	return next, err
}
