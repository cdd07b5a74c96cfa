package client

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// authenticated is a transport that sends a user's token with every request. It asks for one with the first, and for
// another, once for each request, when a member does not accept it: tokens end, and users change.
type authenticated struct {
	transport
	name, password string

	lock  chan struct{} // capacity 1: held by who looks at, or asks for, the token
	token string        // "" while there is none
	off   bool          // the cluster needs no users, as far as is known
}

func newAuthenticated(t transport, name, password string) *authenticated {
	return &authenticated{transport: t, name: name, password: password, lock: make(chan struct{}, 1)}
}

func (a *authenticated) unary(ctx context.Context, ep *endpoint, r request, resp proto.Message) (sent bool, err error) {
	for again := false; ; again = true {
		if r.token, err = a.get(ctx, ep, r.limit); err != nil {
			return false, err // whatever became of that request, this one was not sent
		}
		sent, err = a.transport.unary(ctx, ep, r, resp)
		if err == nil || again || !a.rejected(status.Convert(err).Message(), r.token) {
			return sent, err
		}
		proto.Reset(resp)
	}
}

func (a *authenticated) stream(ctx context.Context, ep *endpoint, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error) {
	token, err := a.get(ctx, ep, 0)
	if err != nil {
		return nil, err
	}
	s, err := a.transport.stream(withToken(ctx, token), ep, desc, method)
	if err != nil {
		a.rejected(status.Convert(err).Message(), token)
		return nil, err
	}
	return &authenticatedStream{s, a, token}, nil
}

// authenticatedStream notices when the token that it was opened with is not accepted any more; the stream that is opened
// next has another.
type authenticatedStream struct {
	grpc.ClientStream
	by    *authenticated
	token string
}

func (s *authenticatedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.by.rejected(status.Convert(err).Message(), s.token)
	} else if r, ok := m.(*pb.WatchResponse); ok && r.GetCanceled() {
		s.by.rejected(plainReason(r), s.token)
	}
	return err
}

// get returns the token, and asks the endpoint for one, within limit, if there is none. It is empty where no users are
// needed.
func (a *authenticated) get(ctx context.Context, ep *endpoint, limit time.Duration) (string, error) {
	select {
	case a.lock <- struct{}{}:
	case <-ctx.Done():
		return "", status.FromContextError(ctx.Err()).Err()
	}
	defer func() { <-a.lock }()
	if a.token != "" || a.off {
		return a.token, nil
	}
	var resp pb.AuthenticateResponse
	req := &pb.AuthenticateRequest{Name: a.name, Password: a.password}
	_, err := a.transport.unary(ctx, ep, request{method: pb.Auth_Authenticate_FullMethodName, body: req, limit: limit}, &resp)
	if err != nil && strings.HasPrefix(status.Convert(err).Message(), textNotEnabled) {
		a.off = true
		return "", nil
	}
	a.token = resp.Token
	return a.token, err
}

// The server's texts that concern tokens.
const (
	textNotEnabled   = "etcdserver: authentication is not enabled"
	textInvalidToken = "etcdserver: invalid auth token"
	textOldRevision  = "etcdserver: revision of auth store is old"
	textUserEmpty    = "etcdserver: user name is empty"
)

// needsToken says that a request was refused for its token, or for want of one: another may help.
func needsToken(message string) bool {
	for _, text := range [...]string{textInvalidToken, textOldRevision, textUserEmpty} {
		if strings.HasPrefix(message, text) {
			return true
		}
	}
	return false
}

// rejected forgets the token if the message says that it is not accepted, and reports whether it does.
func (a *authenticated) rejected(message, token string) bool {
	if !needsToken(message) {
		return false
	}
	a.lock <- struct{}{} // nobody holds it for longer than a request
	defer func() { <-a.lock }()
	if a.token == token { // else there is another already
		a.token, a.off = "", false
	}
	return true
}

// tokened is a transport that sends a token from elsewhere with every request.
type tokened struct {
	transport
	token func(ctx context.Context) (string, error)
}

func (t tokened) unary(ctx context.Context, ep *endpoint, r request, resp proto.Message) (sent bool, err error) {
	if r.token, err = t.ask(ctx); err != nil {
		return false, err
	}
	return t.transport.unary(ctx, ep, r, resp)
}

func (t tokened) stream(ctx context.Context, ep *endpoint, desc *grpc.StreamDesc, method string) (grpc.ClientStream, error) {
	token, err := t.ask(ctx)
	if err != nil {
		return nil, err
	}
	return t.transport.stream(withToken(ctx, token), ep, desc, method)
}

// ask returns the token for a request.
func (t tokened) ask(ctx context.Context) (string, error) {
	token, err := t.token(ctx)
	switch {
	case err == nil:
		return token, nil
	case ctx.Err() != nil:
		return "", status.FromContextError(ctx.Err()).Err()
	}
	return "", status.Errorf(codes.Unauthenticated, "no token: %v", err)
}
