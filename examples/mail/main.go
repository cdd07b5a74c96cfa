// Mail is a fleet that sends mails. One of its workers is killed with mails in its
// hands: the others get them within the time to live of its session, and a mail
// whose attempt counts twice is told from one that was only near by.
//
//	go run ./examples/mail
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
)

const (
	mails   = 200
	workers = 3
)

// mail is a job.
type mail struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mail:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "latchkey-mail-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	m, err := startMember(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	p := &postOffice{out: out, delivered: make(map[string]int), all: make(chan struct{})}
	return p.day(ctx, m)
}

// postOffice is where mails go, and what it remembers of them.
type postOffice struct {
	out io.Writer

	mu        sync.Mutex // protects what follows
	delivered map[string]int
	again     int // mails that a second worker had to deliver
	all       chan struct{}
}

// day enqueues mails, lets a fleet deliver them, and kills one of it.
func (p *postOffice) day(ctx context.Context, m *member) error {
	c, err := m.connect(&cable{})
	if err != nil {
		return err
	}
	defer c.Close()
	q, err := queue.Open[mail](ctx, c, "mail", queue.WithShards(6))
	if err != nil {
		return err
	}
	if err := p.write(ctx, q); err != nil {
		return err
	}

	victim := newProcess(m)
	held := make(chan string, mails)
	if err := victim.start(ctx, func(ctx context.Context, j *queue.Job[mail]) error {
		held <- j.Value.To
		<-ctx.Done() // a slow server at the other end
		return ctx.Err()
	}); err != nil {
		return err
	}
	select {
	case to := <-held:
		fmt.Fprintf(p.out, "worker 1 is sending the mail to %s\n", to)
	case <-ctx.Done():
		return ctx.Err()
	}
	killed := time.Now()
	victim.cable.sever()
	fmt.Fprintln(p.out, "worker 1 is killed: it says goodbye to nobody")

	var fleet []*process
	for range workers {
		w := newProcess(m)
		if err := w.start(ctx, p.deliver); err != nil {
			return err
		}
		fleet = append(fleet, w)
	}
	select {
	case <-p.all:
	case <-ctx.Done():
		return fmt.Errorf("%d of %d mails were delivered: %w", len(p.delivered), mails, ctx.Err())
	}
	took := time.Since(killed)
	for _, w := range fleet {
		if err := w.stop(); err != nil {
			return err
		}
	}
	// What is left of worker 1 in this process; the cluster hears nothing of it.
	victim.end()
	<-victim.done
	_ = victim.client.Close() // which can not say goodbye
	return p.check(ctx, q, took)
}

// write enqueues the mails of the day, many at once.
func (p *postOffice) write(ctx context.Context, q *queue.Queue[mail]) error {
	for i := 0; i < mails; i += 50 {
		var batch []queue.Item[mail]
		for j := i; j < i+50; j++ {
			batch = append(batch, queue.Item[mail]{Value: mail{To: fmt.Sprintf("user%d@example.org", j), Text: "Hello"}})
		}
		if _, err := q.EnqueueBatch(ctx, batch...); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.out, "%d mails are in the queue\n", mails)
	return nil
}

// deliver is the handler of the fleet.
func (p *postOffice) deliver(_ context.Context, j *queue.Job[mail]) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered[j.Value.To]++
	if j.Crashes > 0 {
		p.again++
	}
	if len(p.delivered) == mails {
		select {
		case <-p.all:
		default:
			close(p.all)
		}
	}
	return nil
}

// check says what came of it, and whether that is right.
func (p *postOffice) check(ctx context.Context, q *queue.Queue[mail], took time.Duration) error {
	st, err := q.Stats(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%d mails were delivered, the last one %v after the crash\n", len(p.delivered), took.Round(100*time.Millisecond))
	fmt.Fprintf(p.out, "%d of them had been in the hands of worker 1\n", p.again)
	switch {
	case len(p.delivered) != mails:
		return fmt.Errorf("%d mails were delivered, not %d", len(p.delivered), mails)
	case p.again == 0:
		return errors.New("worker 1 had no mail")
	case st.Ready+st.Running+st.Delayed+st.Dead > 0:
		return fmt.Errorf("something is left: %+v", st)
	}
	fmt.Fprintln(p.out, "nothing is left, and nothing was lost")
	return nil
}

// process stands for a process of its own: it has its own client and session.
type process struct {
	member *member
	cable  *cable
	client *client.Client
	end    context.CancelFunc
	done   chan error
}

func newProcess(m *member) *process {
	return &process{member: m, cable: &cable{}, done: make(chan error, 1)}
}

func (p *process) start(ctx context.Context, h queue.Handler[mail]) error {
	var err error
	if p.client, err = p.member.connect(p.cable); err != nil {
		return err
	}
	q, err := queue.Open[mail](ctx, p.client, "mail")
	if err != nil {
		return err
	}
	ctx, p.end = context.WithCancel(ctx)
	go func() { p.done <- q.Run(ctx, h, queue.WithConcurrency(4)) }()
	return nil
}

// stop ends the worker in order.
func (p *process) stop() error {
	p.end()
	return errors.Join(<-p.done, p.client.Close())
}
