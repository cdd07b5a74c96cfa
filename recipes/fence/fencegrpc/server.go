package fencegrpc

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/latchkey-go/latchkey/recipes/fence"
)

// UnaryServer admits calls to the gate under each of the names of locks, and has
// handlers find all tokens of the call in their context. Without names, it only
// does the latter, and handlers call the gate themselves: then calls of one
// holder can run at the same time, and resources be smaller than what a lock
// covers. The gate may be nil then.
func UnaryServer(g *fence.Gate, names ...string) grpc.UnaryServerInterceptor {
	names = slices.Compact(slices.Sorted(slices.Values(names))) // one order, so that calls can not wait for each other
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		ctx = incoming(ctx)
		var resp any
		call := func() (err error) {
			resp, err = handle(ctx, req)
			return err
		}
		for _, name := range slices.Backward(names) {
			inner := call
			call = func() error { return admit(ctx, g, name, inner) }
		}
		return resp, call()
	}
}

// admit calls write if the call's token for the name is admitted.
func admit(ctx context.Context, g *fence.Gate, name string, write func() error) error {
	token, _ := fence.FromContext(ctx, name)
	called := false
	err := g.Do(name, token, func() error {
		called = true
		return write()
	})
	var stale *fence.StaleError
	if !called && errors.As(err, &stale) {
		// If it can not be set, the client sees the status alone.
		_ = grpc.SetTrailer(ctx, metadata.Pairs(staleKey, encode(name, stale.Token, stale.Newest)))
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return err
}

// StreamServer has handlers find the tokens of a stream in its context. It does
// not admit them to a gate: a stream may last longer than a lock, so its handler
// has to, before each write.
func StreamServer() grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		return handle(srv, &carrying{stream, incoming(stream.Context())})
	}
}

// carrying is a stream with another context.
type carrying struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *carrying) Context() context.Context { return s.ctx }

// incoming returns ctx with the tokens of its metadata.
func incoming(ctx context.Context) context.Context {
	for _, value := range metadata.ValueFromIncomingContext(ctx, tokenKey) {
		if name, tokens, ok := decode(value, 1); ok {
			ctx = fence.NewContext(ctx, name, tokens[0])
		}
	}
	return ctx
}
