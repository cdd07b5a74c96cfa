package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

const (
	topicBytes   = 1 << 30 // kept, more than a run publishes in its window
	packedQueue  = 4096    // messages that wait in a packing publisher
	publishAhead = 1000    // messages that not all subscribers have
)

// openTopics opens the topic for every worker, on the worker's client.
func openTopics(ctx context.Context, e *env, name string) ([]*pubsub.Topic[[]byte], error) {
	topics := make([]*pubsub.Topic[[]byte], e.workers)
	for i := range topics {
		if i >= len(e.clients) {
			topics[i] = topics[i%len(e.clients)]
			continue
		}
		var err error
		topics[i], err = pubsub.Open[[]byte](ctx, e.client(i), name, pubsub.MaxBytes(topicBytes), pubsub.WithCodec(pubsub.Raw()))
		if err != nil {
			return nil, err
		}
	}
	return topics, nil
}

func runPublish(ctx context.Context, e *env) (*Run, error) {
	topics, err := openTopics(ctx, e, "pub16")
	if err != nil {
		return nil, err
	}
	return e.closedLoop(ctx, func(ctx context.Context, worker int) error {
		_, err := topics[worker].Publish(ctx, []byte(payload))
		return err
	})
}

// runPublishPacked counts a message when it is committed. Its latency is mostly
// the time that it waits in its publisher, which is always full.
func runPublishPacked(ctx context.Context, e *env) (*Run, error) {
	topics, err := openTopics(ctx, e, "pubpacked")
	if err != nil {
		return nil, err
	}
	return e.loop(ctx, func(ctx context.Context, worker int, done count) error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		p := topics[worker].Publisher(pubsub.Queued(packedQueue))
		var wg sync.WaitGroup
		defer wg.Wait()
		sent := make(chan sending, packedQueue)
		defer close(sent)
		wg.Go(func() {
			for s := range sent {
				if _, err := s.Wait(ctx); err != nil {
					cancel(err)
				} else {
					done(time.Since(s.at))
				}
			}
		})
		for {
			at := time.Now()
			pending, err := p.Publish(ctx, []byte(payload))
			if err != nil {
				_ = p.Close(ctx) // it ends early with ctx, which is how a run ends
				if cause := context.Cause(ctx); cause != nil {
					return cause
				}
				return err
			}
			sent <- sending{pending, at}
		}
	})
}

// sending is a message that was handed over at some time.
type sending struct {
	*pubsub.Pending
	at time.Time
}

// runPublishFanOut delivers every message to e.workers subscribers. An event's
// latency runs from the message's publication in the background.
func runPublishFanOut(ctx context.Context, e *env) (*Run, error) {
	topics, err := openTopics(ctx, e, "pubfan100")
	if err != nil {
		return nil, err
	}
	from, err := topics[0].Publish(ctx, []byte(payload))
	if err != nil {
		return nil, err
	}
	f := &topicFan{
		topics: topics, from: from, origin: time.Now(),
		hists: make([]histogram, e.workers), ahead: make(chan struct{}, publishAhead),
	}
	return e.measure(ctx, f.work, func() *histogram { return merged(f.hists) })
}

type topicFan struct {
	topics    []*pubsub.Topic[[]byte]
	from      pubsub.Offset
	hists     []histogram // each element is owned by its subscriber
	origin    time.Time
	ahead     chan struct{}
	delivered atomic.Int64
}

func (f *topicFan) work(ctx context.Context, w *window) {
	var wg sync.WaitGroup
	for i := range f.topics {
		wg.Go(func() {
			if err := f.subscribe(ctx, w, i); err != nil && ctx.Err() == nil {
				w.failed(err)
			}
		})
	}
	if err := f.publish(ctx); err != nil && ctx.Err() == nil {
		w.failed(err)
	}
	wg.Wait()
}

func (f *topicFan) publish(ctx context.Context) error {
	p := f.topics[0].Publisher()
	for {
		select {
		case f.ahead <- struct{}{}:
		case <-ctx.Done():
			return p.Close(ctx)
		}
		value := []byte(payload)
		binary.BigEndian.PutUint64(value, uint64(time.Since(f.origin)))
		if _, err := p.Publish(ctx, value); err != nil {
			_ = p.Close(ctx) // what counts is why it could not publish
			return err
		}
	}
}

func (f *topicFan) subscribe(ctx context.Context, w *window, i int) error {
	for m, err := range f.topics[i].Subscribe(ctx, pubsub.After(f.from)) {
		if err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		if w.open.Load() {
			f.hists[i].add(time.Since(f.origin) - time.Duration(binary.BigEndian.Uint64(m.Value)))
		}
		if f.delivered.Add(1)%int64(len(f.topics)) == 0 {
			<-f.ahead
		}
	}
	return nil
}
