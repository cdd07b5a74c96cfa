package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// record is a log of everything.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(b)
}

// Passwords and tokens are neither in any log nor in any file of a member.
func TestSecretsAreKept(t *testing.T) {
	logs, dirs, audit := new(record), []string{}, ""
	s := secure(t, servertest.Three(t, servertest.WithConfig(func(c *server.Config) {
		cheap(c)
		c.Logger = slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
		dirs = append(dirs, c.DataDir)
		if len(dirs) == 2 { // of the one that is asked below; the others serve without
			audit = filepath.Join(t.TempDir(), "audit")
			c.Audit = server.Audit{File: audit, Reads: true}
		}
	})))
	secrets := []string{rootPassword, userPassword, "a wrong planted password", "another planted password", "planted.1"}
	for _, ctx := range []context.Context{s.root, s.user} {
		md, _ := metadata.FromOutgoingContext(ctx)
		secrets = append(secrets, md["token"][0])
	}
	a := s.auths[1]
	_, err := a.Authenticate(s.ctx, &pb.AuthenticateRequest{Name: "u", Password: "a wrong planted password"})
	require.ErrorIs(t, err, rpctypes.ErrGRPCAuthFailed)
	_, err = a.UserChangePassword(s.root, &pb.AuthUserChangePasswordRequest{Name: "u", Password: "another planted password"})
	require.NoError(t, err)
	_, err = s.members[1].Put(metadata.AppendToOutgoingContext(s.ctx, "token", "planted.1"), put("a", ""))
	require.ErrorIs(t, err, rpctypes.ErrGRPCInvalidAuthToken)
	_, err = s.members[1].Put(s.user, put("a", ""))
	require.ErrorIs(t, err, rpctypes.ErrGRPCInvalidAuthToken)
	require.NoError(t, putWith(s.ctx, s.cluster.Member(0).Client(), "planted", ""))
	_, err = s.members[s.cluster.Leader()].Compact(s.root, &pb.CompactionRequest{Revision: 2, Physical: true})
	require.NoError(t, err, "so that there is a checkpoint")
	for i := range s.members {
		s.cluster.Stop(i)
	}
	audited, err := os.ReadFile(audit)
	require.NoError(t, err)
	require.Contains(t, string(audited), "UserChangePassword")
	logged := logs.b.String() + string(audited)
	require.Contains(t, logged, "leader", "nothing was logged: nothing was tested")
	require.NotContains(t, logged, "local.", "the token of the member's own client")
	for _, secret := range secrets {
		require.NotContains(t, logged, secret)
	}
	var found bool
	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			found = found || bytes.Contains(content, []byte("planted"))
			for _, secret := range secrets {
				require.False(t, bytes.Contains(content, []byte(secret)), "%s: %s", path, secret)
			}
			return err
		}))
	}
	require.True(t, found, "the key is not found: nothing was tested")
}

// Signed tokens work on all members without the log, until users change.
func TestSignedTokensOnThreeMembers(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("a key that all members share"), 0o600))
	s := secure(t, servertest.Three(t, servertest.WithConfig(func(c *server.Config) {
		cheap(c)
		c.Auth.Token = "jwt,sign-method=HS256,ttl=5m,priv-key=" + key
	})))
	for _, m := range s.members {
		_, err := m.Put(s.user, put("a", "1"))
		require.NoError(t, err)
		_, err = m.Range(s.user, get("a"))
		require.NoError(t, err)
		_, err = m.Put(s.user, put("z", "1"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCPermissionDenied)
	}
	_, err := s.auths[0].RoleAdd(s.root, &pb.AuthRoleAddRequest{Name: "other"})
	require.NoError(t, err)
	for i, m := range s.members {
		_, err = m.Range(s.user, get("a"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCAuthOldRevision)
		_, err = m.Put(s.user, put("a", "1"))
		require.ErrorIs(t, err, rpctypes.ErrGRPCAuthOldRevision)
		_, err = m.Put(s.as(i, "u", userPassword), put("a", "1"))
		require.NoError(t, err)
	}
}

// Who floods a member with passwords is refused beyond a bound, and puts go on meanwhile.
func TestPasswordFlood(t *testing.T) {
	s := secure(t, servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.Auth.BcryptCost = 6 })))
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	var refused, asked atomic.Int64
	var flood sync.WaitGroup
	for i := range 300 {
		flood.Go(func() {
			for ctx.Err() == nil {
				_, err := s.auths[0].Authenticate(ctx, &pb.AuthenticateRequest{Name: fmt.Sprint("nobody", i), Password: "x"})
				asked.Add(1)
				if errors.Is(err, rpctypes.ErrGRPCRequestTooManyRequests) {
					refused.Add(1)
				}
			}
		})
	}
	for refused.Load() == 0 {
		require.NoError(t, s.ctx.Err())
		_, err := s.members[0].Put(s.user, put("a", "during"))
		require.NoError(t, err)
	}
	for range 100 {
		_, err := s.members[0].Put(s.user, put("a", "during"))
		require.NoError(t, err)
	}
	cancel()
	flood.Wait()
	t.Logf("%d of %d refused", refused.Load(), asked.Load())
}
