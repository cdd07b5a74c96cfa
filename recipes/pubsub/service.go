package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

const (
	// services is where services stand: "<services><name>:".
	services = "service/"
	// serveMax bounds the handlers of a server that run at once.
	serveMax = 64
	// answeredMax bounds the answers whose keys a client deletes with its next
	// request.
	answeredMax = 32
)

// Service is request and reply over the store: a request is a key, and so is its
// answer, both durable for as long as the one who asks lives. It costs two commits,
// so it is made for control traffic, some hundreds a second, and not a replacement
// for calls between processes that can reach each other. It is safe for concurrent
// use.
type Service[Req, Res any] struct {
	client *client.Client
	name   string
	prefix string
	req    client.Codec[Req]
	res    client.Codec[Res]

	mu       sync.Mutex // protects answered
	answered []string   // keys of answers that were read
}

// NewService returns the service with the name; requests and answers are JSON. It
// does nothing yet.
func NewService[Req, Res any](c *client.Client, name string) *Service[Req, Res] {
	return &Service[Req, Res]{
		client: c, name: name, prefix: services + name + ":",
		req: client.JSON[Req](), res: client.JSON[Res](),
	}
}

func (s *Service[Req, Res]) calls() string   { return s.prefix + "call/" }
func (s *Service[Req, Res]) answers() string { return s.prefix + "answer/" }
func (s *Service[Req, Res]) servers() string { return s.prefix + "server/" }

// answer is what stands under the key of an answer.
type answer struct {
	Value []byte `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

// Request asks the service and waits for the answer. The request ends with ctx: its
// key is deleted, and a server that has not begun with it does not any more.
//
// Each request is given to one server; when that one leaves or dies before it has
// answered, to another. So a handler may run twice, and the first answer counts.
//
// Errors: [ErrNoServer] when no server is there when it is asked; [ErrRemote] with
// the text of the handler's error; [ErrName]; those of ctx; and those of the client.
func Request[Req, Res any](ctx context.Context, s *Service[Req, Res], req Req) (Res, error) {
	res, err := s.request(ctx, req)
	if err != nil {
		return res, fmt.Errorf("request to service %q: %w", s.name, err)
	}
	return res, nil
}

func (s *Service[Req, Res]) request(ctx context.Context, req Req) (res Res, err error) {
	if !validName(s.name) {
		return res, ErrName
	}
	value, err := s.req.Encode(req)
	if err != nil {
		return res, fmt.Errorf("encode: %w", err)
	}
	session, err := s.client.Session(ctx)
	if err != nil {
		return res, err
	}
	id := fmt.Sprintf("%s-%016x", session.ID(), rand.Uint64())
	call, reply := s.calls()+id, s.answers()+id
	answered := s.takeAnswered()
	ops := []client.Op{client.OpPut(call, value, client.WithLease(session.ID()))}
	for _, key := range answered {
		ops = append(ops, client.OpDelete(key))
	}
	// That there is a server: its keys are the only ones in their range.
	serverThere := client.CreateRevision(s.servers(), client.Prefix()).Greater(0)
	asked, err := s.client.Txn().If(serverThere).Then(ops...).Commit(ctx)
	if err == nil && !asked.Succeeded {
		s.addAnswered(answered...)
		return res, ErrNoServer
	}
	if err != nil {
		s.addAnswered(answered...)
		s.withdraw(ctx, call, reply)
		return res, err
	}
	for ev, err := range s.client.Watch(ctx, reply, client.FromRevision(asked.Revision+1), client.WithoutDeletes()) {
		if err != nil {
			s.withdraw(ctx, call, reply)
			return res, err
		}
		s.addAnswered(reply)
		return s.decode(ev.KV.Value)
	}
	return res, ErrNoServer // not reached: a watch ends with an error
}

func (s *Service[Req, Res]) decode(value []byte) (res Res, err error) {
	var a answer
	if err := json.Unmarshal(value, &a); err != nil {
		return res, fmt.Errorf("answer: %w", err)
	}
	if a.Error != "" {
		return res, &RemoteError{Message: a.Error}
	}
	if res, err = s.res.Decode(a.Value); err != nil {
		err = fmt.Errorf("decode answer: %w", err)
	}
	return res, err
}

// takeAnswered returns keys of answers that were read, to be deleted.
func (s *Service[Req, Res]) takeAnswered() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.answered), answeredMax)
	keys := s.answered[:n:n]
	s.answered = s.answered[n:]
	return keys
}

func (s *Service[Req, Res]) addAnswered(keys ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = append(s.answered, keys...)
}

// withdraw deletes a request that nobody waits for any more. What it can not delete
// ends with the session.
func (s *Service[Req, Res]) withdraw(ctx context.Context, call, reply string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = s.client.Txn().Then(client.OpDelete(call), client.OpDelete(reply)).Commit(ctx)
}

// Serve answers requests with h until ctx ends, and returns its error. Several
// servers of a service share its requests. An error of h, or a panic, becomes the
// error of the request.
//
// Errors: [ErrName], that of ctx, and those of the client that waiting does not cure.
func (s *Service[Req, Res]) Serve(ctx context.Context, h func(ctx context.Context, req Req) (Res, error)) error {
	if !validName(s.name) {
		return fmt.Errorf("serve %q: %w", s.name, ErrName)
	}
	for n := 0; ; n++ {
		session, err := s.client.Session(ctx)
		if err == nil {
			err = s.serve(ctx, session, h)
			if errors.Is(err, client.ErrLeaseNotFound) { // the session is about to notice
				select {
				case <-session.Context().Done():
					err = session.Err()
				case <-ctx.Done():
				}
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("serve %q: %w", s.name, retry.Why(ctx))
		}
		if !retry.Temporary(err) && !errors.Is(err, client.ErrCompacted) &&
			!errors.Is(err, client.ErrSessionLost) {
			return fmt.Errorf("serve %q: %w", s.name, err)
		}
		retry.Backoff(ctx, n)
	}
}

// server is one Serve in one session. Its fields are owned by the goroutine of run.
type server struct {
	id      string
	prefix  string
	lease   client.LeaseID
	c       *client.Client
	answer  func(ctx context.Context, value []byte) answer
	kvs     map[string]client.KV // servers and calls
	begun   map[string]client.Revision
	busy    chan struct{}
	running sync.WaitGroup
}

func (s *Service[Req, Res]) serve(ctx context.Context, session *client.Session, h func(context.Context, Req) (Res, error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(session.Context(), func() { cancel(session.Err()) })
	defer stop()
	defer cancel(nil)
	srv := &server{
		id: fmt.Sprintf("%s-%08x", session.ID(), rand.Uint32()), prefix: s.prefix, c: s.client,
		kvs: make(map[string]client.KV), begun: make(map[string]client.Revision), busy: make(chan struct{}, serveMax),
		lease: session.ID(),
	}
	srv.answer = func(ctx context.Context, value []byte) (a answer) {
		defer func() {
			if p := recover(); p != nil {
				a = answer{Error: fmt.Sprintf("handler panicked: %v", p)}
			}
		}()
		req, err := s.req.Decode(value)
		if err != nil {
			return answer{Error: "decode request: " + err.Error()}
		}
		res, err := h(ctx, req)
		if err == nil {
			a.Value, err = s.res.Encode(res)
		}
		if err != nil {
			a.Error = err.Error()
			if a.Error == "" {
				a.Error = "failed without a reason"
			}
		}
		return a
	}
	err := srv.run(ctx)
	if session.Err() != nil {
		err = session.Err()
	}
	return err
}

// run answers until ctx ends or something fails. Calls stand before servers, so
// that one watch sees both and no answers.
func (s *server) run(ctx context.Context) error {
	host, _ := os.Hostname() // only for people to read
	key := s.prefix + "server/" + s.id
	if _, err := s.c.Put(ctx, key, []byte(host+"/"+strconv.Itoa(os.Getpid())), client.WithLease(s.lease)); err != nil {
		return err
	}
	defer func() {
		s.running.Wait()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = s.c.Delete(ctx, key)
	}()
	var now client.Revision
	for _, part := range []string{"call/", "server/"} {
		res, err := s.c.Get(ctx, s.prefix+part, client.Prefix())
		if err != nil {
			return err
		}
		for _, kv := range res.KVs {
			s.kvs[kv.Key] = kv
		}
		if now == 0 {
			now = res.Revision
		}
	}
	s.look(ctx)
	for b, err := range s.c.WatchBatches(ctx, s.prefix+"call/", client.Range(s.prefix+"server0"), client.FromRevision(now+1)) {
		if err != nil {
			return err
		}
		for _, ev := range b.Events {
			switch {
			case ev.Type == client.EventDelete:
				delete(s.kvs, ev.KV.Key)
				delete(s.begun, ev.KV.Key)
			default:
				s.kvs[ev.KV.Key] = ev.KV
			}
		}
		if len(b.Events) > 0 {
			s.look(ctx)
		}
	}
	return nil
}

// look begins with the calls that are ours.
func (s *server) look(ctx context.Context) {
	var r roster
	for key := range s.kvs {
		if id, ok := strings.CutPrefix(key, s.prefix+"server/"); ok {
			r.members = append(r.members, id)
		}
	}
	for key, kv := range s.kvs {
		id, ok := strings.CutPrefix(key, s.prefix+"call/")
		if !ok || s.begun[key] == kv.CreateRevision || r.responsible(id) != s.id {
			continue
		}
		select {
		case s.busy <- struct{}{}:
		case <-ctx.Done():
			return
		}
		s.begun[key] = kv.CreateRevision
		s.running.Go(func() {
			defer func() { <-s.busy }()
			s.reply(ctx, kv, id)
		})
	}
}

// reply handles a call and answers it, unless it was withdrawn or answered.
func (s *server) reply(ctx context.Context, call client.KV, id string) {
	value, err := json.Marshal(s.answer(ctx, call.Value))
	if err != nil || ctx.Err() != nil {
		return // another server answers
	}
	for n := 0; ; n++ {
		_, err := s.c.Txn().If(client.CreateRevision(call.Key).Equal(call.CreateRevision)).Then(
			client.OpDelete(call.Key),
			client.OpPut(s.prefix+"answer/"+id, value, client.WithLease(call.Lease)),
		).Commit(ctx)
		// To answer once more does no harm: the call is gone after the first time.
		if err == nil || !retry.Temporary(err) || !retry.Backoff(ctx, n) {
			return
		}
	}
}
