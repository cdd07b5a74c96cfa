package fencegrpc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/latchkey-go/latchkey/recipes/fence"
)

// The names of metadata and trailer.
const (
	tokenKey = "x-fence"
	staleKey = "x-fence-stale"
)

// UnaryClient sends the tokens that the context of a call carries. A call that
// was refused as stale returns an error that is [fence.ErrStale] and the status.
func UnaryClient() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		var trailer metadata.MD
		err := invoke(outgoing(ctx), method, req, reply, cc, append(opts, grpc.Trailer(&trailer))...)
		if err == nil {
			return nil
		}
		if stale := staleFrom(trailer); stale != nil {
			return errors.Join(stale, err)
		}
		return err
	}
}

// StreamClient sends the tokens that the context of a stream carries.
func StreamClient() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return open(outgoing(ctx), desc, cc, method, opts...)
	}
}

// outgoing returns ctx with its tokens as metadata.
func outgoing(ctx context.Context) context.Context {
	for name, token := range fence.Tokens(ctx) {
		ctx = metadata.AppendToOutgoingContext(ctx, tokenKey, encode(name, token))
	}
	return ctx
}

func encode(name string, tokens ...fence.Token) string {
	var b strings.Builder
	for _, t := range tokens {
		fmt.Fprintf(&b, "%d ", t)
	}
	return b.String() + url.QueryEscape(name)
}

// decode takes a value apart that has n tokens.
func decode(value string, n int) (name string, tokens []fence.Token, ok bool) {
	fields := strings.Split(value, " ")
	if len(fields) != n+1 {
		return "", nil, false
	}
	for _, f := range fields[:n] {
		t, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return "", nil, false
		}
		tokens = append(tokens, fence.Token(t))
	}
	name, err := url.QueryUnescape(fields[n])
	return name, tokens, err == nil
}

func staleFrom(trailer metadata.MD) *fence.StaleError {
	for _, value := range trailer.Get(staleKey) {
		if name, tokens, ok := decode(value, 2); ok {
			return &fence.StaleError{Resource: name, Token: tokens[0], Newest: tokens[1]}
		}
	}
	return nil
}
