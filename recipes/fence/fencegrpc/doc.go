// Package fencegrpc carries fencing tokens with the calls of gRPC, and refuses
// calls whose tokens are stale.
//
// # Overview
//
// The client sends the tokens that a call's context carries:
//
//	conn, err := grpc.NewClient(target, grpc.WithUnaryInterceptor(fencegrpc.UnaryClient()))
//	err = lock.New(c, "invoices").Do(ctx, func(ctx context.Context, h *lock.Held) error {
//		_, err := invoices.Pay(ctx, request) // ctx carries the token
//		return err
//	})
//	if errors.Is(err, fence.ErrStale) { ... } // somebody newer has been here
//
// The server of what the lock protects has a gate:
//
//	var gate fence.Gate
//	s := grpc.NewServer(grpc.UnaryInterceptor(fencegrpc.UnaryServer(&gate, "invoices")))
//
// # Guarantees
//
// A handler runs only if the call carries a token for each of the server's names
// that is not older than the newest one seen, and while it runs no other call is
// admitted under these names, so an older holder's call can not end after a newer
// holder's has begun. Others get FailedPrecondition, which this package's client
// returns as a [*fence.StaleError] as well. A gate lives in memory: see
// [fence.Gate.Raise].
//
// Any client can send any token: they protect from mistakes, not from malice.
//
// # Keys
//
// A token is a value of the metadata "x-fence": the number, a space, and the
// lock's name as in a URL's query. A call may have several. The trailer
// "x-fence-stale" of a refused call is the refused token and the newest one, a
// space between them, and the name.
//
// # Failure handling
//
// Metadata that can not be understood counts as no token. Calls with many tokens
// are refused like any call with too much metadata.
package fencegrpc
