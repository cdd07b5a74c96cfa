package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/latchkey-go/latchkey/server/internal/audit"
)

// openAudit opens the audit log, if there is to be one.
func (s *Server) openAudit() (err error) {
	if s.cfg.Audit.File == "" {
		return nil
	}
	s.front.audit, err = audit.Open(audit.Config{
		File: s.cfg.Audit.File, Reads: s.cfg.Audit.Reads, Who: s.front.guard.Who, Logger: s.log,
	})
	return err
}

// audited puts the audit log around the guard of unary calls, and inside of that of streams, which looks at each message.
func (f *fronts) audited(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	if f.audit == nil {
		return unary, stream
	}
	around := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return f.audit.Unary(ctx, req, info, func(ctx context.Context, req any) (any, error) { return unary(ctx, req, info, handler) })
	}
	inside := func(srv any, st grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return stream(srv, st, info, func(srv any, st grpc.ServerStream) error { return f.audit.Stream(srv, st, info, handler) })
	}
	return around, inside
}

// closeAudit closes it when nobody can ask for anything any more.
func (f *fronts) closeAudit() error {
	if f.audit == nil {
		return nil
	}
	return f.audit.Close()
}
