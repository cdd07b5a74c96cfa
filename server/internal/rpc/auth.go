package rpc

import (
	"context"
	"errors"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/latchkey-go/latchkey/server/internal/auth"
	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

// AuthBackend is the member as the guard sees it.
type AuthBackend interface {
	// Auth returns users and roles as they are applied here. It costs an atomic load.
	Auth() *state.Auth
	// Confirm returns once this member has applied all that was committed before the call.
	Confirm(ctx context.Context) error
	// AuthChanged returns a channel that is closed when users or roles change after the call.
	AuthChanged() <-chan struct{}
	state.Leases
}

// Guard decides who may call what, by the table of package auth. It is the one place for it: calls that come over a
// connection pass through Unary, Stream or a Direct method, and so must those that come by another way.
//
// What is allowed here is allowed by what this member knows, which may be old. So what must not be wrong is checked
// again, by the same rows: a write where it is applied, a read on the view that answers it. And what is refused is
// refused only after the member has caught up with the cluster.
type Guard struct {
	backend AuthBackend
	tokens  *auth.Tokens
	limits  Limits
	// commonName returns the name in the certificate that the caller proved to have; "" for none.
	commonName func(ctx context.Context) string
}

// NewGuard returns a guard. commonName may be nil.
func NewGuard(b AuthBackend, tokens *auth.Tokens, limits Limits, commonName func(ctx context.Context) string) *Guard {
	if commonName == nil {
		commonName = func(context.Context) string { return "" }
	}
	return &Guard{backend: b, tokens: tokens, limits: limits.WithDefaults(), commonName: commonName}
}

// enabled reports whether users are needed.
func (g *Guard) enabled() bool { return g.backend.Auth().Enabled() }

// errInvalidToken: the caller shows a token that is not valid, or no longer.
var errInvalidToken = errors.New("invalid auth token")

// callerKey is the key of a caller in a context.
type callerKey struct{}

// caller is who was found to call. Once users or roles have changed his token may have ended, and he is found anew.
type caller struct {
	id   auth.Identity
	at   uint64 // revision of users and roles
	anew func() (auth.Identity, error)
}

// identify returns who the caller is, the zero identity if he does not say.
func (g *Guard) identify(ctx context.Context, a *state.Auth) (auth.Identity, error) {
	c, ok := ctx.Value(callerKey{}).(caller)
	switch {
	case !ok:
		return g.identifyMetadata(ctx)
	case c.at == a.Revision():
		return c.id, nil
	default:
		return c.anew()
	}
}

func (g *Guard) identifyMetadata(ctx context.Context) (auth.Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, key := range [...]string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
		if values := md[key]; len(values) > 0 {
			return g.identifyToken(values[0])
		}
	}
	return auth.Identity{User: g.commonName(ctx)}, nil
}

// Who returns the name of the user who makes a call, as far as he says and is believed.
func (g *Guard) Who(ctx context.Context) string {
	id, err := g.identifyMetadata(ctx)
	if err != nil {
		return ""
	}
	return id.User
}

func (g *Guard) identifyToken(token string) (auth.Identity, error) {
	id, ok := g.tokens.Identify(strings.TrimPrefix(token, "Bearer "))
	if !ok {
		return id, errInvalidToken
	}
	return id, nil
}

// callerOf returns the identity as one who calls at a revision of users and roles, or at that of his token. His token
// must have been looked at when that revision was known already: when a token ends, the revision moves on.
func callerOf(id auth.Identity, revision uint64) state.Caller {
	switch {
	case id.User == "":
		return state.Caller{}
	case id.Revision != 0:
		return state.Caller{User: id.User, AuthRevision: id.Revision}
	default:
		return state.Caller{User: id.User, AuthRevision: revision}
	}
}

// check tells whether the identity may make the request, as far as this member knows.
func (g *Guard) check(a *state.Auth, id auth.Identity, row auth.Row, m proto.Message) error {
	c := callerOf(id, a.Revision())
	return row.Visit(m, func(n state.Need) error { return a.Check(c, n, g.backend) })
}

// admit returns who makes the request if he may, or why he may not.
func (g *Guard) admit(ctx context.Context, row auth.Row, m proto.Message) (caller, error) {
	c, err := g.try(ctx, row, m)
	if err == nil {
		return c, nil
	}
	if err := g.backend.Confirm(ctx); err != nil {
		return c, err
	}
	return g.try(ctx, row, m)
}

func (g *Guard) try(ctx context.Context, row auth.Row, m proto.Message) (c caller, err error) {
	c.anew = func() (auth.Identity, error) { return g.identifyMetadata(ctx) }
	a := g.backend.Auth()
	if !a.Enabled() {
		return c, nil // at no revision: he is found when he has to be
	}
	if c.id, err = g.identify(ctx, a); err != nil {
		return c, err
	}
	c.at = a.Revision()
	return c, g.check(a, c.id, row, m)
}

// Confirmed returns nil if the caller may make the request now, as the cluster and not only this member knows it.
func (g *Guard) Confirmed(ctx context.Context, method string, m proto.Message) error {
	if err := g.backend.Confirm(ctx); err != nil {
		return err
	}
	row, ok := auth.RowOf(method)
	if !ok {
		return state.ErrPermissionDenied
	}
	_, err := g.try(ctx, row, m)
	return err
}

// Propose has propose carry out c as the caller of ctx. A command that is refused because users or roles have changed
// since it was proposed is proposed anew, if the token does not name a revision: the refusal is how this member learnt of
// the change.
func (g *Guard) Propose(ctx context.Context, c state.Command, propose func(state.Command) (proto.Message, error)) (proto.Message, error) {
	if c.Caller != (state.Caller{}) {
		return propose(c)
	}
	for range proposalsMax {
		a := g.backend.Auth()
		if !a.Enabled() {
			return propose(c)
		}
		id, err := g.identify(ctx, a)
		if err != nil {
			return nil, err
		}
		c.Caller = callerOf(id, a.Revision())
		response, err := propose(c)
		if !errors.Is(err, state.ErrAuthOldRevision) || id.Revision != 0 {
			return response, err
		}
	}
	return nil, state.ErrAuthOldRevision
}

// proposalsMax bounds how often a command is proposed while users and roles keep changing.
const proposalsMax = 8

// Read tells whether the caller may have the answer to the request from a view, with the users and roles of that view.
func (g *Guard) Read(ctx context.Context, a *state.Auth, m proto.Message) error {
	if !a.Enabled() {
		return nil
	}
	if g == nil {
		return state.ErrUserEmpty
	}
	id, err := g.identify(ctx, a)
	if err != nil {
		return err
	}
	return g.readAs(id, a, m)
}

// Keys tells whether the caller may read each of the keys: what a lease has may have changed since he was admitted.
func (g *Guard) Keys(ctx context.Context, keys [][]byte) error {
	if g == nil || len(keys) == 0 || !g.enabled() {
		return nil
	}
	a := g.backend.Auth()
	id, err := g.identify(ctx, a)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := a.Check(callerOf(id, a.Revision()), state.Need{Right: state.RightRead, Key: key}, g.backend); err != nil {
			return err
		}
	}
	return nil
}

func (g *Guard) readAs(id auth.Identity, a *state.Auth, m proto.Message) error {
	c := callerOf(id, a.Revision())
	err := state.VisitNeeds(m, func(n state.Need) error { return a.Check(c, n, g.backend) })
	if err == nil && c.AuthRevision != 0 && c.AuthRevision != a.Revision() {
		return state.ErrAuthOldRevision
	}
	return err
}

// Unary is the interceptor of unary methods.
func (g *Guard) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if !g.enabled() {
		return handler(ctx, req)
	}
	row, ok := auth.RowOf(info.FullMethod)
	m, isMessage := req.(proto.Message)
	switch {
	case !ok || !isMessage:
		return nil, wireError(state.ErrPermissionDenied)
	case row.Open:
		return handler(ctx, req)
	}
	if err := g.malformed(m); err != nil {
		return nil, err
	}
	c, err := g.admit(ctx, row, m)
	if err != nil {
		return nil, wireError(err)
	}
	return handler(context.WithValue(ctx, callerKey{}, c), req)
}

// malformed returns the errors of unary methods that come before those of rights, as in etcd.
func (g *Guard) malformed(m proto.Message) error {
	switch r := m.(type) {
	case *pb.RangeRequest:
		return checkRange(r)
	case *pb.PutRequest:
		return checkPut(r)
	case *pb.DeleteRangeRequest:
		return checkDeleteRange(r)
	case *pb.TxnRequest:
		return checkTxn(r, g.limits.TxnOps)
	default:
		return nil
	}
}

// Stream is the interceptor of streams: it looks at each message that comes in.
func (g *Guard) Stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	row, ok := auth.RowOf(info.FullMethod)
	switch {
	case !ok:
		return wireError(state.ErrPermissionDenied)
	case row.Open, info.FullMethod == pb.Watch_Watch_FullMethodName:
		return handler(srv, s) // a watch is refused by an answer on the stream, see Watch
	default:
		return handler(srv, &guardedStream{s, g, row})
	}
}

// guardedStream refuses messages that its caller may not send.
type guardedStream struct {
	grpc.ServerStream
	guard *Guard
	row   auth.Row
}

func (s *guardedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil || !s.guard.enabled() {
		return err
	}
	request, ok := m.(proto.Message)
	if !ok {
		return wireError(state.ErrPermissionDenied)
	}
	if r, ok := m.(*pb.RangeRequest); ok {
		if err := checkRangeStream(r); err != nil {
			return err
		}
	}
	_, err := s.guard.admit(s.Context(), s.row, request)
	return wireError(err)
}

// direct returns who makes a call that must not be waited for. ok is false when it takes waiting to know, or to refuse
// him: then Unary has to do it.
func (g *Guard) direct(call front.Call, method string, m proto.Message) (c caller, ok bool) {
	c.anew = func() (auth.Identity, error) { return g.identifyCall(call) }
	a := g.backend.Auth() // before the token is looked at: when one ends, the revision moves on
	row, ok := auth.RowOf(method)
	if !a.Enabled() || !ok {
		return c, ok
	}
	var err error
	c.id, err = c.anew()
	c.at = a.Revision()
	return c, err == nil && g.check(a, c.id, row, m) == nil
}

func (g *Guard) identifyCall(call front.Call) (auth.Identity, error) {
	for _, key := range [...]string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger} {
		if token := call.Header(key); token != "" {
			return g.identifyToken(token)
		}
	}
	return auth.Identity{User: g.commonName(call.Context())}, nil
}

// Chain returns the interceptors as one, the first of them outermost.
func Chain(interceptors ...grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		for i := len(interceptors) - 1; i >= 0; i-- {
			next, intercept := handler, interceptors[i]
			handler = func(ctx context.Context, req any) (any, error) { return intercept(ctx, req, info, next) }
		}
		return handler(ctx, req)
	}
}
