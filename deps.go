//go:build deps

package latchkey

import (
	_ "github.com/anishathalye/porcupine"
	_ "github.com/google/uuid"
	_ "github.com/spf13/cobra"
	_ "github.com/spf13/pflag"
	_ "github.com/stretchr/testify/require"
	_ "github.com/tidwall/btree"
	_ "go.etcd.io/bbolt"
	_ "go.etcd.io/etcd/api/v3/etcdserverpb"
	_ "go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	_ "go.etcd.io/raft/v3"
	_ "go.uber.org/goleak"
	_ "golang.org/x/sys/unix"
	_ "google.golang.org/grpc"
	_ "google.golang.org/grpc/health"
	_ "google.golang.org/grpc/test/bufconn"
	_ "google.golang.org/grpc/resolver/manual"
	_ "google.golang.org/protobuf/proto"
	_ "pgregory.net/rapid"
)
