package counter

import (
	"context"
	"errors"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// blockMax bounds the block of a sequence: what a process that ends leaves unused.
const blockMax = 1_000_000

// ErrBlock: the size of a block is less than 1 or larger than 1,000,000.
var ErrBlock = errors.New("size of a block is out of bounds")

// Sequence gives out numbers, from 1 on, no two of them the same. Each Sequence object
// takes blocks of numbers from the store and gives them out one by one, so a program
// wants one object for each name. It is safe for concurrent use.
type Sequence struct {
	blocks *Int64
	size   int64
	turn   chan struct{} // capacity 1: full while somebody uses what follows
	next   int64
	end    int64 // the last one of the block; less than next when it is used up
}

// NewSequence returns the sequence with the name, which asks the store once in a block of
// numbers, 1 to 1,000,000. Objects of one name may differ in it. It does nothing yet; a
// size that can not be used makes Next return [ErrBlock].
func NewSequence(c *client.Client, name string, block int64) *Sequence {
	return &Sequence{blocks: NewInt64(c, name), size: block, turn: make(chan struct{}, 1), next: 1}
}

// Name returns the sequence's name, which is its key.
func (s *Sequence) Name() string { return s.blocks.name }

// Next returns the next number. It is a local call, but for one in a block.
//
// Errors: those of ctx, and [ErrOverflow], [ErrNotNumber], [ErrBlock]. None of them takes
// a number away from anybody.
func (s *Sequence) Next(ctx context.Context) (int64, error) {
	if s.size < 1 || s.size > blockMax {
		return 0, fmt.Errorf("sequence %q: %w: %d", s.Name(), ErrBlock, s.size)
	}
	select {
	case s.turn <- struct{}{}:
	default:
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return 0, fmt.Errorf("sequence %q: %w", s.Name(), context.Cause(ctx))
		}
	}
	defer func() { <-s.turn }()
	if s.next > s.end {
		end, err := s.take(ctx)
		if err != nil {
			return 0, fmt.Errorf("sequence %q: %w", s.Name(), err)
		}
		s.next, s.end = end-s.size+1, end
	}
	s.next++
	return s.next - 1, nil
}

// take takes a block and returns its last number. A block of which it is not known whether
// it was taken is not used by anybody.
func (s *Sequence) take(ctx context.Context) (int64, error) {
	for n := 0; ; n++ {
		end, err := s.blocks.Add(ctx, s.size)
		if err == nil || !retry.Temporary(err) || !retry.Backoff(ctx, n) {
			return end, err
		}
	}
}
