package checkpoint

import (
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
)

// Examined is what a checkpoint holds that nobody has open.
type Examined struct {
	Meta
	Revision, Compact     int64
	Keys, Leases, Members int
	Bytes                 int64 // of the file, as far as it is used
}

// Examine reads a checkpoint as Open and Load do, holds the state in it against all invariants, and changes nothing. Its
// errors are those of Open and Load. What could be told before an error is returned with it.
func Examine(path string) (e Examined, err error) {
	doing := func(err error) error { return fmt.Errorf("checkpoint %s: %w", path, err) }
	v, err := verify(path)
	if err != nil {
		return e, doing(err)
	}
	e = Examined{Meta: v.meta, Revision: v.position.revision, Compact: v.position.compact}
	s := &Store{path: path, meta: v.meta, pos: v.position}
	err = guard(func() error {
		db, err := bolt.Open(path, fileMode, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
		if err != nil {
			return openError(err)
		}
		s.file = &file{db: db, refs: 1}
		return db.View(func(tx *bolt.Tx) error {
			e.Bytes = tx.Size()
			return nil
		})
	})
	if err != nil {
		return e, doing(err)
	}
	m, err := s.Load(state.Config{})
	if err == nil {
		e.Keys, e.Leases, e.Members = m.Size().Keys, len(m.Leases()), len(m.Members())
		if broken := m.Check(); broken != nil {
			err = doing(damaged(broken))
		}
	}
	return e, errors.Join(err, s.Close())
}
