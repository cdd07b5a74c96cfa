// Orders moves money through a queue, exactly once: an order is accepted together
// with the job that pays it, and the job's end is written together with the
// balances. Workers are told to crash in the worst moments, and the sum of all
// balances, and of what each order has moved, is checked at the end.
//
//	go run ./examples/orders
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

const (
	accounts = 8
	start    = 1000 // on each account
	orders   = 120
)

// order is both the job and the state of an order.
type order struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Amount int    `json:"amount"`
	Paid   bool   `json:"paid"`
}

// bank is what is in the store.
type bank struct {
	out      io.Writer
	client   *client.Client
	balances *client.Typed[int]
	orders   *client.Typed[order]
	payments *queue.Queue[string] // of the names of orders
	crashes  atomic.Int64
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "latchkey-orders-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := startMember(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	c, err := m.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := open(ctx, c, out)
	if err != nil {
		return err
	}
	if err := b.accept(ctx); err != nil {
		return err
	}
	if err := b.pay(ctx, m); err != nil {
		return err
	}
	return b.check(ctx)
}

func open(ctx context.Context, c *client.Client, out io.Writer) (*bank, error) {
	b := &bank{out: out, client: c, balances: client.NewTyped[int](c, "balance/"), orders: client.NewTyped[order](c, "order/")}
	var err error
	if b.payments, err = queue.Open[string](ctx, c, "payments", queue.WithShards(4),
		queue.WithBackoff(func(int) time.Duration { return time.Millisecond }), queue.WithMaxCrashes(100)); err != nil {
		return nil, err
	}
	for i := range accounts {
		if _, err := b.balances.Put(ctx, account(i), start); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func account(i int) string { return fmt.Sprintf("account%d", i) }

// accept takes orders: the order and its payment come into being together.
func (b *bank) accept(ctx context.Context) error {
	for i := range orders {
		name := fmt.Sprintf("order%d", i)
		from := rand.IntN(accounts)
		o := order{From: account(from), To: account((from + 1 + rand.IntN(accounts-1)) % accounts), Amount: 1 + rand.IntN(20)}
		err := b.client.Update(ctx, func(tx *client.Tx) error {
			if err := b.orders.PutTx(tx, name, o); err != nil {
				return err
			}
			_, err := b.payments.EnqueueTx(tx, name)
			return err
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(b.out, "%d orders are accepted, each with a job that pays it\n", orders)
	return nil
}

// pay lets workers pay, some of which crash: before they commit, and after.
func (b *bank) pay(ctx context.Context, m *member) error {
	paid := make(chan struct{})
	done := make(chan error, 2)
	work, stop := context.WithCancel(ctx)
	defer stop()
	for range 2 {
		go func() { done <- b.fleet(work, m) }()
	}
	go func() {
		defer close(paid)
		b.awaitPayments(work)
	}()
	select {
	case <-paid:
	case err := <-done:
		return fmt.Errorf("a worker has ended: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
	stop()
	return errors.Join(<-done, <-done)
}

// fleet runs one worker after the other, until ctx ends: each of them lives until
// its session is taken from it.
func (b *bank) fleet(ctx context.Context, m *member) error {
	for ctx.Err() == nil {
		c, err := m.connect()
		if err != nil {
			return err
		}
		mine := b.on(c)
		s, err := c.NewSession(ctx)
		if err != nil {
			_ = c.Close()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if mine.payments, err = queue.Open[string](ctx, c, "payments", queue.WithSession(s), queue.WithMaxCrashes(100),
			queue.WithBackoff(func(int) time.Duration { return time.Millisecond })); err == nil {
			n := 0
			err = mine.payments.Run(ctx, func(ctx context.Context, j *queue.Job[string]) error {
				if n++; n%25 == 0 {
					// The session goes, as if the process had died here: others will
					// run this job, while we go on and try to commit.
					b.crashes.Add(1)
					_ = b.client.Revoke(ctx, s.ID())
				}
				return mine.transfer(j)
			}, queue.WithConcurrency(1))
		}
		closed := c.Close()
		if err != nil && ctx.Err() == nil && !errors.Is(err, client.ErrSessionLost) {
			return err
		}
		_ = closed // a session that is gone can not be ended
	}
	return nil
}

// on returns the bank as another client sees it.
func (b *bank) on(c *client.Client) *bank {
	return &bank{out: b.out, client: c, balances: client.NewTyped[int](c, "balance/"),
		orders: client.NewTyped[order](c, "order/")}
}

// transfer pays an order. Everything that it writes is executed together with the
// end of the job.
func (b *bank) transfer(j *queue.Job[string]) error {
	tx := j.Tx()
	o, err := b.orders.GetTx(tx, j.Value)
	if err != nil {
		return err
	}
	from, err := b.balances.GetTx(tx, o.From)
	if err != nil {
		return err
	}
	to, err := b.balances.GetTx(tx, o.To)
	if err != nil {
		return err
	}
	if o.Paid {
		return queue.Discard(errors.New("it is paid already: money would have moved twice"))
	}
	o.Paid = true
	return errors.Join(
		b.orders.PutTx(tx, j.Value, o),
		b.balances.PutTx(tx, o.From, from-o.Amount),
		b.balances.PutTx(tx, o.To, to+o.Amount),
	)
}

// awaitPayments returns when all orders are paid.
func (b *bank) awaitPayments(ctx context.Context) {
	paid := make(map[string]bool)
	items, rev, err := b.orders.List(ctx)
	if err != nil {
		return
	}
	for _, it := range items {
		paid[it.Key] = it.Value.Paid
	}
	count := func() (n int) {
		for _, p := range paid {
			if p {
				n++
			}
		}
		return n
	}
	if count() == orders {
		return
	}
	for ev, err := range b.orders.Watch(ctx, "", client.Prefix(), client.FromRevision(rev+1)) {
		if err != nil {
			return
		}
		if paid[ev.Item.Key] = ev.Item.Value.Paid; count() == orders {
			return
		}
	}
}

// check adds everything up.
func (b *bank) check(ctx context.Context) error {
	want := make(map[string]int)
	for i := range accounts {
		want[account(i)] = start
	}
	items, _, err := b.orders.List(ctx)
	if err != nil {
		return err
	}
	for _, it := range items {
		if !it.Value.Paid {
			return fmt.Errorf("%s is not paid", it.Key)
		}
		want[it.Value.From] -= it.Value.Amount
		want[it.Value.To] += it.Value.Amount
	}
	balances, _, err := b.balances.List(ctx)
	if err != nil {
		return err
	}
	sum := 0
	for _, it := range balances {
		sum += it.Value
		if it.Value != want[it.Key] {
			return fmt.Errorf("%s has %d, its orders make it %d", it.Key, it.Value, want[it.Key])
		}
	}
	st, err := b.payments.Stats(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "all orders are paid, by workers whose sessions were taken from them %d times\n", b.crashes.Load())
	switch {
	case sum != accounts*start:
		return fmt.Errorf("the sum is %d, not %d", sum, accounts*start)
	case st.Dead > 0 || st.Ready+st.Running > 0:
		return fmt.Errorf("payments are left: %+v", st)
	case b.crashes.Load() == 0:
		return errors.New("nobody crashed")
	}
	fmt.Fprintln(b.out, "every account has what its orders say: money moved exactly once")
	return nil
}
