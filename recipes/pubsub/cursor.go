package pubsub

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// cursor is how far a group has come in a partition, or a durable name in a topic:
// the value of its key.
type cursor struct {
	// Revision: all messages up to it are handled. Others stand at From or above.
	Revision client.Revision `json:"revision"`
	From     string          `json:"from"`
	// After: messages up to it are handled as well.
	After Offset `json:"after"`
	// Acked are messages behind After that are handled, in order.
	Acked []Offset `json:"acked,omitempty"`
	// Failures counts how often the handler of a message has failed, Crashes how
	// often its process has ended with it; by offset, of those not handled yet.
	Failures map[string]int `json:"failures,omitempty"`
	Crashes  map[string]int `json:"crashes,omitempty"`
	// Open: a worker has begun and has not ended in peace.
	Open bool `json:"open,omitempty"`
	// Owner and Seq make each value another one, so that a writer knows its own.
	Owner string `json:"owner,omitempty"`
	Seq   uint64 `json:"seq"`
}

func parseCursor(value []byte) (cursor, error) {
	var c cursor
	if err := json.Unmarshal(value, &c); err != nil {
		return c, fmt.Errorf("cursor: %w", err)
	}
	return c, nil
}

func (c cursor) encode() []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("pubsub: a cursor can not be encoded: %v", err)) // it has nothing that can fail
	}
	return b
}

// position returns where to read on.
func (c cursor) position() sequence.Position {
	return sequence.Position{Revision: c.Revision, From: c.From}
}

// handled says whether a message needs no handling any more.
func (c cursor) handled(o Offset) bool {
	if o.Compare(c.After) <= 0 {
		return true
	}
	_, found := slices.BinarySearchFunc(c.Acked, o, Offset.Compare)
	return found
}

// startAt returns a cursor that begins at a place.
func startAt(p place) cursor {
	return cursor{Revision: p.at.Revision, From: p.at.From, After: p.after}
}
