package server

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// What the loop applies itself touches single keys, and reads ranges of the
// present that have few.
func TestShortCommands(t *testing.T) {
	m := state.New(state.Config{})
	var puts []state.Command
	for i := range shortKeys {
		puts = append(puts, state.Command{Kind: state.KindPut, Request: &pb.PutRequest{Key: fmt.Appendf(nil, "many/%03d", i)}})
	}
	puts = append(puts, state.Command{Kind: state.KindPut, Request: &pb.PutRequest{Key: []byte("few/1")}})
	m.Apply(1, 1, puts)
	a := &applier{store: newStore(m)}

	get := func(from, to string, rev int64) *pb.RequestOp {
		r := &pb.RangeRequest{Key: []byte(from), RangeEnd: []byte(to), Revision: rev}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	}
	txn := func(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Failure: ops} }
	for name, test := range map[string]struct {
		request *pb.TxnRequest
		want    bool
	}{
		"nothing":                  {txn(), true},
		"one key":                  {txn(get("many/001", "", 0)), true},
		"one key of the past":      {txn(get("many/001", "", 2)), false},
		"a range with few keys":    {txn(get("few/", "few0", 0)), true},
		"a range with many":        {txn(get("many/", "many0", 0)), false},
		"most of them":             {txn(get("many/001", "many0", 0)), true},
		"most of them, twice":      {txn(get("many/001", "many0", 0), get("many/", "many/002", 0)), false},
		"a range of the past":      {txn(get("few/", "few0", 2)), false},
		"a compare of a range":     {&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a"), RangeEnd: []byte("b")}}}, false},
		"a transaction inside one": {txn(&pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn()}}), false},
	} {
		t.Run(name, func(t *testing.T) {
			commands := [][]state.Command{{{Kind: state.KindTxn, Request: test.request}}}
			require.Equal(t, test.want, a.short(commands))
		})
	}
}
