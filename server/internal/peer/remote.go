package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	backoffBase = 20 * time.Millisecond
	backoffMax  = 250 * time.Millisecond
	stableAfter = time.Second

	connectTimeout = time.Second
)

var (
	errSilent      = errors.New("peer is silent")
	errOpenTimeout = errors.New("peer does not answer the handshake")
	errNoURL       = errors.New("peer has no usable URL")
	errEnded       = errors.New("the other side ended the connection")
	errBroken      = errors.New("the session broke; the question may have been handled")
)

// remote is another member: its streams, and the session that carries them. run owns the session.
type remote struct {
	t             *Transport
	id            uint64
	urls          []string
	addresses     []address // of urls, immutable
	err           error     // why there is none
	bulk, control *stream
	calls         calls

	ctx     context.Context // ends when the member goes or the transport closes
	cancel  context.CancelFunc
	done    chan struct{} // closed when run has returned
	sending atomic.Bool   // a snapshot is under way

	mu    sync.Mutex // protects since and up
	since time.Time
	up    bool
}

// address is where a member may be reached.
type address struct {
	host   string // with the port
	name   string // without
	secure bool
}

func (t *Transport) newRemote(id uint64, urls []string) *remote {
	r := &remote{
		t:       t,
		id:      id,
		urls:    slices.Clone(urls),
		bulk:    newStream(),
		control: newStream(),
		calls:   newCalls(),
		done:    make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(t.ctx)
	r.addresses, r.err = t.parseURLs(urls)
	return r
}

// parseURLs returns the usable ones, or an error when there is none.
func (t *Transport) parseURLs(urls []string) (usable []address, bad error) {
	for _, s := range urls {
		u, err := url.Parse(s)
		switch {
		case err != nil:
			bad = err
		case u.Scheme != "http" && u.Scheme != "https" || u.Port() == "":
			bad = fmt.Errorf("peer URL %q is not of the form http://host:port", s)
		case u.Scheme == "https" && t.secure.Client == nil:
			bad = fmt.Errorf("peer URL %q needs TLS, which is not configured", s)
		default:
			usable = append(usable, address{host: u.Host, name: u.Hostname(), secure: u.Scheme == "https"})
		}
	}
	if len(usable) == 0 {
		return nil, errors.Join(errNoURL, bad)
	}
	return usable, nil
}

// open makes a connection of a kind: it tries the addresses in turn, each with a look-up of its name.
func (r *remote) open(ctx context.Context, kind connectionKind) (c *connection, err error) {
	for _, a := range r.addresses {
		if c, err = r.openAt(ctx, a, kind); err == nil || ctx.Err() != nil {
			return c, err
		}
	}
	return nil, err
}

func (r *remote) openAt(ctx context.Context, a address, kind connectionKind) (*connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.t.timing.open, errOpenTimeout)
	defer cancel()
	dialer := net.Dialer{Timeout: connectTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", a.host)
	if err != nil {
		return nil, err
	}
	interrupt := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, err := r.greet(ctx, raw, a, kind)
	if !interrupt() {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c, nil
}

func (r *remote) greet(ctx context.Context, raw net.Conn, a address, kind connectionKind) (*connection, error) {
	c := newConnection(raw)
	setUserTimeout(raw, r.t.timing.patience(kind))
	if a.secure {
		top, err := r.t.secure.Client(ctx, c.link, a.name)
		if err != nil {
			return nil, fmt.Errorf("secure connection: %w", err)
		}
		c.use(top)
	}
	if err := c.greet(hello{cluster: r.t.cluster, from: r.t.id, to: r.id, kind: kind}); err != nil {
		return nil, err
	}
	return c, nil
}

func (r *remote) serves(urls []string) bool { return slices.Equal(r.urls, urls) }

func (r *remote) active() (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.since, r.up
}

func (r *remote) setActive(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.since = up, time.Time{}
	if up {
		r.since = time.Now()
	}
}

// run keeps a session until the member goes. It begins when the member's former remote is over, so that the handler
// never hears of the old session's end after the new one's begin.
func (r *remote) run(after <-chan struct{}) {
	defer close(r.done)
	defer r.cancel()
	if after != nil {
		<-after
	}
	if r.err != nil {
		r.t.log.Error("can not connect to a peer", "peer", formatID(r.id), "reason", r.err.Error())
		<-r.ctx.Done()
	}
	var delay time.Duration
	var reason string
	for r.ctx.Err() == nil {
		began := time.Now()
		connected, err := r.session()
		if r.ctx.Err() != nil {
			return
		}
		if connected {
			reason = ""
			r.t.log.Warn("lost a peer", "peer", formatID(r.id), "reason", err.Error())
		} else if errors.Is(err, errExpelled) && r.t.standing.Expelled != nil {
			r.t.standing.Expelled(r.id)
		} else if err.Error() != reason {
			reason = err.Error()
			r.t.log.Warn("can not connect to a peer", "peer", formatID(r.id), "reason", reason)
		}
		// A session that lasted, or an attempt that took its time, needs no delay. What ends early is a refusal, or a
		// session that the other side ends again and again.
		if time.Since(began) >= stableAfter {
			delay = 0
		}
		r.pause(delay)
		delay = min(max(backoffBase, 2*delay), backoffMax)
	}
}

// pause waits for about d, so that restarted members do not come back in step.
func (r *remote) pause(d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d*4/5 + rand.N(d*2/5))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
	}
}

// session opens both connections and serves them until one breaks, which it tells with the reason. Nothing of the session
// runs when it returns.
func (r *remote) session() (connected bool, _ error) {
	bulk, control, err := r.connect()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	bulk.in.silence, control.in.silence = r.t.timing.silence, r.t.timing.silence
	r.bulk.open(bulk)
	r.control.open(control)
	r.calls.open()
	r.setActive(true)
	r.t.log.Info("connected to a peer", "peer", formatID(r.id))
	r.t.handler.Connected(r.id)

	var wg sync.WaitGroup
	for s, c := range map[*stream]*connection{r.bulk: bulk, r.control: control} {
		wg.Go(func() {
			if err := r.sender(s, c, ctx.Done()); err != nil {
				cancel(err)
			}
		})
		wg.Go(func() { cancel(r.listen(c, s == r.control)) })
	}
	<-ctx.Done()
	_ = bulk.Close() // which ends what reads and writes
	_ = control.Close()
	wg.Wait()

	// The order matters: what Send queues from now on belongs to the next session, and the call below covers all
	// that was queued before it.
	r.setActive(false)
	r.t.counters.dropped.Add(uint64(r.bulk.reset() + r.control.reset()))
	r.calls.reset()
	r.t.handler.Unreachable(r.id)
	return true, context.Cause(ctx)
}

// connect opens both connections of a session, or none.
func (r *remote) connect() (bulk, control *connection, err error) {
	var wg sync.WaitGroup
	var controlErr error
	wg.Go(func() { control, controlErr = r.open(r.ctx, kindControl) })
	bulk, err = r.open(r.ctx, kindBulk)
	wg.Wait()
	if err == nil {
		err = controlErr
	}
	if err == nil {
		return bulk, control, nil
	}
	for _, c := range []*connection{bulk, control} {
		if c != nil {
			_ = c.Close()
		}
	}
	return nil, nil, err
}

// listen takes what the other side of a connection says, which answers only on control, and ends when its pulse stops.
func (r *remote) listen(c *connection, control bool) error {
	for {
		kind, body, err := c.in.next()
		switch {
		case err == io.EOF:
			return errEnded
		case err != nil:
			return err
		case kind == framePulse:
		case kind == frameAnswer && control:
			if err := r.calls.answer(body); err != nil {
				return err
			}
		case kind == frameRefusal:
			return fmt.Errorf("%w: %s", errRefused, body)
		default:
			return errFraming
		}
	}
}
