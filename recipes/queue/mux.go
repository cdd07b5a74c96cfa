package queue

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
)

// Task is the value of a queue that carries jobs of many kinds.
type Task struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body"`
}

// Mux hands tasks to handlers by their kind. Handlers are set before it is used.
type Mux struct{ handlers map[string]Handler[Task] }

// NewMux returns a Mux without handlers.
func NewMux() *Mux { return &Mux{handlers: make(map[string]Handler[Task])} }

// Handle sets the handler of a kind, whose bodies are values of type T.
func Handle[T any](m *Mux, kind string, h Handler[T], codec ...client.Codec[T]) {
	c := client.JSON[T]()
	if len(codec) > 0 {
		c = codec[0]
	}
	m.handlers[kind] = func(ctx context.Context, j *Job[Task]) error {
		v, err := c.Decode(j.Value.Body)
		if err != nil {
			return Discard(fmt.Errorf("decode %s: %w", kind, err))
		}
		return h(ctx, &Job[T]{Value: v, RawJob: j.RawJob})
	}
}

// NewTask returns a task of a kind.
func NewTask(kind string, v any) (Task, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Task{}, fmt.Errorf("encode %s: %w", kind, err)
	}
	return Task{Kind: kind, Body: b}, nil
}

// Handler returns the handler of all kinds, for Run. A task of a kind that it does
// not know fails and is tried again, as another process may know it.
func (m *Mux) Handler() Handler[Task] {
	return func(ctx context.Context, j *Job[Task]) error {
		h := m.handlers[j.Value.Kind]
		if h == nil {
			return fmt.Errorf("no handler for tasks of kind %q", j.Value.Kind)
		}
		return h(ctx, j)
	}
}
