package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// workers starts the consumers of a work queue: each takes so many messages at
// once, and acks each of them, waiting for the answer.
func (b *bench) workers(ctx context.Context, name string, n, batch int, ahead chan struct{}, wg *sync.WaitGroup) error {
	for i := range n {
		c, err := b.conns[i%len(b.conns)].CreateOrUpdateConsumer(ctx, name, jetstream.ConsumerConfig{
			Durable: "workers", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 65_536,
		})
		if err != nil {
			return err
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := c.Fetch(batch, jetstream.FetchMaxWait(time.Second))
				if err != nil {
					b.fail(ctx, err)
					return
				}
				var acks sync.WaitGroup
				for m := range got.Messages() {
					b.done(b.age(m.Data()))
					if batch == 1 {
						b.fail(ctx, m.DoubleAck(ctx))
					} else { // as many at once as there are
						acks.Go(func() { b.fail(ctx, m.DoubleAck(ctx)) })
					}
					select {
					case <-ahead:
					default:
					}
				}
				acks.Wait()
			}
		})
	}
	return nil
}

func admit(ctx context.Context, ahead chan struct{}) bool {
	select {
	case ahead <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func oneByOne(ctx context.Context, b *bench) error {
	var wg sync.WaitGroup
	ahead := make(chan struct{}, jobsAhead)
	if err := b.workers(ctx, "queue16", 16, 1, ahead, &wg); err != nil {
		return err
	}
	for i := range 16 {
		wg.Go(func() {
			for admit(ctx, ahead) {
				_, err := b.conns[i].Publish(ctx, "queue16", b.value())
				b.fail(ctx, err)
			}
		})
	}
	wg.Wait()
	return nil
}

// async publishes without waiting, as long as admit lets it, and tells when a
// message is durable.
func (b *bench) async(ctx context.Context, conn int, subject string, admit func() bool, done func(took time.Duration)) {
	js := b.conns[conn]
	var wg sync.WaitGroup
	defer wg.Wait()
	futures := make(chan func(), 4096)
	defer close(futures)
	wg.Go(func() {
		for wait := range futures {
			wait()
		}
	})
	for admit() {
		at := time.Now()
		f, err := js.PublishAsync(subject, b.value())
		if errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
			continue
		}
		if err != nil {
			b.fail(ctx, err)
			return
		}
		futures <- func() {
			select {
			case <-f.Ok():
				done(time.Since(at))
			case err := <-f.Err():
				b.fail(ctx, err)
			case <-ctx.Done():
			}
		}
	}
}

func batches(ctx context.Context, b *bench) error {
	var wg sync.WaitGroup
	ahead := make(chan struct{}, jobsAheadPacked)
	if err := b.workers(ctx, "queuepacked", 16, 256, ahead, &wg); err != nil {
		return err
	}
	for i := range b.conns {
		wg.Go(func() {
			b.async(ctx, i, "queuepacked", func() bool { return admit(ctx, ahead) }, func(time.Duration) {})
		})
	}
	wg.Wait()
	return nil
}

func latency(ctx context.Context, b *bench) error {
	var wg sync.WaitGroup
	ahead := make(chan struct{}, jobsAheadPacked)
	if err := b.workers(ctx, "queuelatency", 16, 1, ahead, &wg); err != nil {
		return err
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			continue
		}
		wg.Go(func() {
			_, err := b.conns[i%len(b.conns)].Publish(ctx, "queuelatency", b.value())
			b.fail(ctx, err)
		})
	}
	wg.Wait()
	return nil
}

func publish(ctx context.Context, b *bench) error {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				at := time.Now()
				_, err := b.conns[i].Publish(ctx, "pub16", b.value())
				if b.fail(ctx, err); err == nil {
					b.done(time.Since(at))
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func publishAsync(ctx context.Context, b *bench) error {
	var wg sync.WaitGroup
	for i := range b.conns {
		wg.Go(func() {
			b.async(ctx, i, "pubpacked", func() bool { return ctx.Err() == nil }, b.done)
		})
	}
	wg.Wait()
	return nil
}

// fanOut publishes to the stream, and has plain subscriptions of its subject, which
// is the fastest way that NATS has to tell many; what they miss is in the stream.
func fanOut(ctx context.Context, b *bench) error {
	var delivered atomic.Int64
	ahead := make(chan struct{}, publishAhead)
	for i := range subscribers {
		nc := b.conns[i%len(b.conns)].Conn()
		s, err := nc.Subscribe("pubfan100", func(m *nats.Msg) {
			b.done(b.age(m.Data))
			if delivered.Add(1)%subscribers == 0 {
				select {
				case <-ahead:
				default:
				}
			}
		})
		if err != nil {
			return err
		}
		if err := s.SetPendingLimits(-1, -1); err != nil {
			return err
		}
		if err := nc.Flush(); err != nil {
			return err
		}
	}
	b.async(ctx, 0, "pubfan100", func() bool { return admit(ctx, ahead) }, func(time.Duration) {})
	return nil
}
