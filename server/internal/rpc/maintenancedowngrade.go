package rpc

import (
	"context"
	"errors"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// errUnknownMethod is etcd's word for an action that it does not know.
var errUnknownMethod = errors.New("etcdserver: unknown method")

// Downgrade checks, announces or takes back a downgrade of the cluster. An
// announcement is shown by Status and changes nothing else here: the files have
// the schema of the version below as well.
func (s *Maintenance) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	var target string
	switch r.Action {
	case pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE:
		var ok bool
		if target, ok = clusterVersion(r.Version); !ok {
			return nil, rpctypes.ErrGRPCWrongDowngradeVersionFormat
		}
	case pb.DowngradeRequest_CANCEL:
	default:
		return nil, wireError(errUnknownMethod)
	}
	if _, err := s.store.Read(ctx); err != nil {
		return nil, wireError(err)
	}
	st := s.node.Status()
	minor, below := versionBelow(st.EtcdVersion)
	switch {
	case r.Action == pb.DowngradeRequest_CANCEL && st.Downgrade == "":
		// etcd logs that there is none, and answers as if there had been.
	case r.Action != pb.DowngradeRequest_CANCEL && target != below:
		return nil, rpctypes.ErrGRPCInvalidDowngradeTargetVersion
	case r.Action != pb.DowngradeRequest_CANCEL && st.Downgrade != "":
		return nil, rpctypes.ErrGRPCDowngradeInProcess
	case r.Action != pb.DowngradeRequest_VALIDATE:
		c := state.Command{Kind: state.KindDowngrade, Request: &pb.DowngradeRequest{Action: r.Action, Version: target}}
		if _, err := s.store.Propose(ctx, c); err != nil {
			return nil, wireError(err)
		}
	}
	resp := &pb.DowngradeResponse{Header: &pb.ResponseHeader{}, Version: minor}
	s.store.FillHeader(resp.Header)
	return resp, nil
}

// clusterVersion reads "major.minor" or a whole semantic version, and returns
// it without its patch: "3.6.0".
func clusterVersion(v string) (string, bool) {
	if out, ok := semantic(v); ok {
		return out, true
	}
	return semantic(v + ".0")
}

// isSuffix checks what follows '-' or '+' in a semantic version; as etcd has it,
// nothing may follow.
func isSuffix(s string) bool {
	if s == "" {
		return true
	}
	for part := range strings.SplitSeq(s, ".") {
		if part == "" || strings.Trim(part, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-") != "" {
			return false
		}
	}
	return true
}

func semantic(v string) (string, bool) {
	v, build, ok := strings.Cut(v, "+")
	if ok && !isSuffix(build) {
		return "", false
	}
	v, pre, ok := strings.Cut(v, "-")
	if ok && !isSuffix(pre) {
		return "", false
	}
	parts := strings.SplitN(v, ".", 3)
	if len(parts) != 3 {
		return "", false
	}
	var n [3]int64
	for i, p := range parts {
		var err error
		if n[i], err = strconv.ParseInt(p, 10, 64); err != nil {
			return "", false
		}
	}
	return strconv.FormatInt(n[0], 10) + "." + strconv.FormatInt(n[1], 10) + ".0", true
}

// versionBelow returns "major.minor" of a version, and the only version to
// which etcd allows a downgrade from it.
func versionBelow(v string) (minor, below string) {
	major, rest, _ := strings.Cut(v, ".")
	m, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(m)
	if err != nil || n == 0 {
		return major + "." + m, ""
	}
	return major + "." + m, major + "." + strconv.Itoa(n-1) + ".0"
}
