package sequence

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
)

// ErrMissing: the log has no floor, so it does not exist, or no longer.
var ErrMissing = errors.New("log does not exist")

// Log says where the keys of a log stand. It is immutable.
type Log struct {
	// Lanes are the prefixes of its entries: a key is a lane and an id. Readers
	// read all lanes as one log.
	Lanes []string
	// Floor is the key of the floor. Its value is an id, or a Bound.
	Floor string
	// Under is a prefix that all lanes and the floor have in common, for watches;
	// there should not be much else below it.
	Under string
}

// Create returns the operation that makes the log, with a floor below all ids.
// The condition that there is none yet is client.Missing(l.Floor).
func (l Log) Create() client.Op { return client.OpPut(l.Floor, []byte(Bound(0))) }

// Append returns the conditions and the operation that add an entry to a lane:
// that the floor admits the id, and that the id is new. When they do not hold, the
// Refusal tells why.
//
// In a transaction with other conditions, these must be an outer one's: a refused
// id must not look like a condition of the caller's that failed.
func (l Log) Append(lane string, id ID, value []byte) ([]client.Compare, client.Op) {
	text := id.String()
	key := lane + text
	return []client.Compare{client.Value(l.Floor).Less([]byte(text)), client.Missing(key)}, client.OpPut(key, value)
}

// EmptyBelow holds while a lane has no entry below a bound.
func (l Log) EmptyBelow(lane, bound string) client.Compare {
	return client.Missing(lane, client.Range(lane+bound))
}

// NoneYounger holds while all entries of a lane below a bound were created at a
// revision or before it; also while there is none.
func (l Log) NoneYounger(lane, bound string, rev client.Revision) client.Compare {
	return client.CreateRevision(lane, client.Range(lane+bound)).Less(rev + 1)
}

// Raise raises the floor to a bound if it is lower, in a transaction with further
// conditions and operations, and says whether they were executed. A floor that is
// there or higher already counts as raised if nothing else was to be done.
//
// Errors: ErrMissing, and those of the client.
func (l Log) Raise(ctx context.Context, c *client.Client, bound string, also []client.Compare, ops ...client.Op) (bool, error) {
	floor, err := c.Get(ctx, l.Floor)
	if err != nil {
		return false, err
	}
	if len(floor.KVs) == 0 {
		return false, fmt.Errorf("raise floor %q: %w", l.Floor, ErrMissing)
	}
	same := client.ModRevision(l.Floor).Equal(floor.KVs[0].ModRevision)
	if string(floor.KVs[0].Value) < bound {
		ops = append([]client.Op{client.OpPut(l.Floor, []byte(bound))}, ops...)
	}
	if len(ops) == 0 {
		return true, nil
	}
	res, err := c.Txn().If(append([]client.Compare{same}, also...)...).Then(ops...).Commit(ctx)
	if err != nil {
		return false, err
	}
	return res.Succeeded, nil
}
