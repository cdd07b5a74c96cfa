package checkpoint

import (
	"fmt"
	"strconv"
)

// removedMark is what etcd writes behind the id of a removed member.
var removedMark = []byte("removed")

// removeMembers takes members away and notes their ids for ever.
func (w *writer) removeMembers(ids []uint64) {
	for _, id := range ids {
		if w.err == nil {
			w.err = w.table(membersBucket).delete(memberKey(id))
		}
		w.set(removedBucket, memberKey(id), removedMark)
	}
}

func decodeRemoved(k []byte) (uint64, error) {
	id, err := strconv.ParseUint(string(k), 16, 64)
	if err != nil || string(memberKey(id)) != string(k) {
		return 0, fmt.Errorf("removed member %q: %w", k, errRow)
	}
	return id, nil
}
