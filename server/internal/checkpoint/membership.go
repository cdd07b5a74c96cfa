package checkpoint

import (
	"fmt"
	"strconv"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
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

func loadRemoved(tx *bolt.Tx, l *state.Loader) error {
	return tx.Bucket(removedBucket).ForEach(func(k, _ []byte) error {
		id, err := decodeRemoved(k)
		if err != nil {
			return err
		}
		return l.RemovedMember(id)
	})
}

func decodeRemoved(k []byte) (uint64, error) {
	id, err := strconv.ParseUint(string(k), 16, 64)
	if err != nil || string(memberKey(id)) != string(k) {
		return 0, fmt.Errorf("removed member %q: %w", k, errRow)
	}
	return id, nil
}
