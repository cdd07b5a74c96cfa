package checkpoint

import (
	"encoding/binary"
	"fmt"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/authpb"
	"google.golang.org/protobuf/proto"
)

// The buckets of users and roles, whose rows are authpb's messages by name, and the keys of the first.
var (
	authBucket  = []byte("auth")
	usersBucket = []byte("authUsers")
	rolesBucket = []byte("authRoles")

	authEnabledKey  = []byte("authEnabled")
	authRevisionKey = []byte("authRevision")
)

const authEnabled, authDisabled = 1, 0

// auth writes what changed of users and roles.
func (w *writer) auth(c state.AuthChanges) {
	if !c.Touched {
		return
	}
	enabled := byte(authDisabled)
	if c.Enabled {
		enabled = authEnabled
	}
	w.set(authBucket, authEnabledKey, []byte{enabled})
	w.set(authBucket, authRevisionKey, binary.BigEndian.AppendUint64(nil, c.Revision))
	for _, u := range c.Users {
		w.setMessage(usersBucket, u.GetName(), u)
	}
	for _, r := range c.Roles {
		w.setMessage(rolesBucket, r.GetName(), r)
	}
	w.delete(usersBucket, c.DeletedUsers)
	w.delete(rolesBucket, c.DeletedRoles)
}

func (w *writer) setMessage(bucket, k []byte, m proto.Message) {
	row, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	w.fail(err)
	w.set(bucket, k, row)
}

func (w *writer) delete(bucket []byte, keys []string) {
	for _, k := range keys {
		if w.err == nil {
			w.err = w.table(bucket).delete([]byte(k))
		}
	}
}

// loadAuth reads users and roles. Rows that are missing mean that there are none, as in a file that never had any.
func loadAuth(tx *bolt.Tx, l *state.Loader) error {
	rows := tx.Bucket(authBucket)
	enabled, revision := rows.Get(authEnabledKey), rows.Get(authRevisionKey)
	if len(enabled) > 1 || len(revision) != 8 && revision != nil {
		return fmt.Errorf("auth: %w", errRow)
	}
	var n uint64
	if revision != nil {
		n = binary.BigEndian.Uint64(revision)
	}
	l.Auth(len(enabled) == 1 && enabled[0] == authEnabled, n)
	err := tx.Bucket(rolesBucket).ForEach(func(k, row []byte) error {
		r := new(authpb.Role)
		if err := proto.Unmarshal(row, r); err != nil || string(r.GetName()) != string(k) {
			return fmt.Errorf("role %q: %w", k, errRow)
		}
		return l.Role(r)
	})
	if err != nil {
		return err
	}
	return tx.Bucket(usersBucket).ForEach(func(k, row []byte) error {
		u := new(authpb.User)
		if err := proto.Unmarshal(row, u); err != nil || string(u.GetName()) != string(k) {
			return fmt.Errorf("user %q: %w", k, errRow)
		}
		return l.User(u)
	})
}
