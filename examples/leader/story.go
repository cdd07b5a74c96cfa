package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/recipes/fence"
)

// story is what happened, and whether it should have.
type story struct {
	start    time.Time
	services map[string]*instance // by address; complete before anybody looks

	mu      sync.Mutex // protects what follows
	out     io.Writer
	leading fence.Token         // zero for nobody
	terms   []fence.Token       // in the order in which they began
	orders  map[int]fence.Token // the term that each was served in
	wrong   []error
}

func (s *story) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%6.2f s  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

func (s *story) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, err)
}

// begin notes that somebody leads; nobody else may, and terms must grow.
func (s *story) begin(term fence.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leading != 0 {
		s.wrong = append(s.wrong, fmt.Errorf("terms %d and %d overlap", s.leading, term))
	}
	if n := len(s.terms); n > 0 && s.terms[n-1] >= term {
		s.wrong = append(s.wrong, fmt.Errorf("term %d comes after %d", term, s.terms[n-1]))
	}
	s.leading = term
	s.terms = append(s.terms, term)
}

func (s *story) end(term fence.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leading == term {
		s.leading = 0
	}
}

func (s *story) served(number int, term fence.Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders == nil {
		s.orders = make(map[int]fence.Token)
	}
	if before, twice := s.orders[number]; twice {
		s.wrong = append(s.wrong, fmt.Errorf("request %d was served in terms %d and %d", number, before, term))
	}
	s.orders[number] = term
}

// verdict says whether all went well.
func (s *story) verdict(wanted int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.orders) != wanted {
		s.wrong = append(s.wrong, fmt.Errorf("%d of %d requests were served", len(s.orders), wanted))
	}
	if len(s.terms) < 3 {
		s.wrong = append(s.wrong, fmt.Errorf("there were %d terms only", len(s.terms)))
	}
	if err := errors.Join(s.wrong...); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "All %d requests were served once, in %d terms that only grew. No two instances led at once.\n", wanted, len(s.terms))
	return nil
}

// wire is the network of one instance.
type wire struct {
	mu    sync.Mutex // protects what follows
	conns []net.Conn
	up    chan struct{} // closed while connections can be made
}

func newWire() *wire {
	w := &wire{up: make(chan struct{})}
	close(w.up)
	return w
}

// dial is a client.Config.Dialer.
func (w *wire) dial(ctx context.Context, endpoint string) (net.Conn, error) {
	w.mu.Lock()
	up := w.up
	w.mu.Unlock()
	select {
	case <-up:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(endpoint, "http://"))
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

// cut breaks all connections, and lets no new ones be made until restore.
func (w *wire) cut() (restore func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.up = make(chan struct{})
	for _, conn := range w.conns {
		_ = conn.Close()
	}
	w.conns = nil
	return sync.OnceFunc(func() { close(w.up) })
}
