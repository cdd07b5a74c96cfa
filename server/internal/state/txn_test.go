package state

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	equal    = pb.Compare_EQUAL
	greater  = pb.Compare_GREATER
	less     = pb.Compare_LESS
	notEqual = pb.Compare_NOT_EQUAL
)

func TestCompare(t *testing.T) {
	f := newFixture(t)
	f.grant(7)
	f.put("a=1", "a=2", "b=2")
	f.putLease("l", 7) // a=2(2.3.2) b=2(4.4.1) l=(5.5.1 lease 7)
	compare := func(target pb.Compare_CompareTarget, key, end string, result pb.Compare_CompareResult, c *pb.Compare) *pb.Compare {
		c.Target, c.Key, c.RangeEnd, c.Result = target, []byte(key), []byte(end), result
		return c
	}
	version := func(n int64) *pb.Compare { return &pb.Compare{TargetUnion: &pb.Compare_Version{Version: n}} }
	create := func(n int64) *pb.Compare {
		return &pb.Compare{TargetUnion: &pb.Compare_CreateRevision{CreateRevision: n}}
	}
	lease := func(n int64) *pb.Compare { return &pb.Compare{TargetUnion: &pb.Compare_Lease{Lease: n}} }
	for name, c := range map[string]struct {
		compare *pb.Compare
		want    bool
	}{
		"version equal":                       {compare(pb.Compare_VERSION, "a", "", equal, version(2)), true},
		"version greater":                     {compare(pb.Compare_VERSION, "a", "", greater, version(2)), false},
		"version less":                        {compare(pb.Compare_VERSION, "a", "", less, version(3)), true},
		"create":                              {compare(pb.Compare_CREATE, "a", "", equal, create(2)), true},
		"create not equal":                    {compare(pb.Compare_CREATE, "a", "", notEqual, create(2)), false},
		"mod":                                 {ifMod("a", equal, 3), true},
		"mod, another":                        {ifMod("a", equal, 2), false},
		"lease":                               {compare(pb.Compare_LEASE, "l", "", equal, lease(7)), true},
		"no lease is zero":                    {compare(pb.Compare_LEASE, "a", "", equal, lease(0)), true},
		"value":                               {ifValue("a", equal, "2"), true},
		"value greater":                       {ifValue("a", greater, "1"), true},
		"value less":                          {ifValue("a", less, "2"), false},
		"an empty value equals nothing given": {&pb.Compare{Key: []byte("l"), Target: pb.Compare_VALUE}, true},
		"a missing key has mod 0":             {ifMod("x", equal, 0), true},
		"a missing key has version 0":         {compare(pb.Compare_VERSION, "x", "", less, version(1)), true},
		"a missing value equals nothing":      {ifValue("x", equal, ""), false},
		"quirk: a missing value differs from nothing": {ifValue("x", notEqual, "2"), false},
		"a missing value is not less":                 {ifValue("x", less, "2"), false},
		"a range: all keys must satisfy":              {compare(pb.Compare_VERSION, "a", "c", greater, version(0)), true},
		"a range: one does not":                       {compare(pb.Compare_VERSION, "a", "c", equal, version(2)), false},
		"a range: the first does not":                 {compare(pb.Compare_VERSION, "a", "c", equal, version(1)), false},
		"an open range":                               {compare(pb.Compare_CREATE, "b", "\x00", greater, create(3)), true},
		"an empty range is one missing key":           {compare(pb.Compare_CREATE, "x", "z", equal, create(0)), true},
		"an operand of another type is zero":          {compare(pb.Compare_MOD, "a", "", greater, version(9)), true},
		"no operand is zero":                          {&pb.Compare{Key: []byte("x"), Target: pb.Compare_MOD}, true},
		"a result that nobody knows holds":            {ifMod("a", 9, 77), true},
		"a target that nobody knows is equal":         {&pb.Compare{Key: []byte("a"), Target: 9, Result: equal}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := f.m.View().Txn(&pb.TxnRequest{Compare: []*pb.Compare{c.compare}})
			require.NoError(t, err)
			require.Equal(t, c.want, r.Succeeded)
			logged := do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Compare: []*pb.Compare{c.compare}})
			require.Equal(t, c.want, logged.Succeeded)
		})
	}
}

func TestTxnBranches(t *testing.T) {
	f := newFixture(t)
	f.put("a=1")
	r := do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(opPut("b", "2")), Failure: ops(opPut("c", "3"))})
	require.True(t, r.Succeeded, "no compares succeed")
	r = do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{
		Compare: []*pb.Compare{ifMod("a", equal, 2), ifMod("a", equal, 9)},
		Success: ops(opPut("b", "2")), Failure: ops(opPut("c", "3"))})
	require.False(t, r.Succeeded, "all compares must hold")
	require.Equal(t, "a=1(2.2.1) b=2(3.3.1) c=3(4.4.1)", f.all(0))
}

// One revision a transaction, numbered writes; each operation sees those before it, and its header tells the revision
// of its moment.
func TestTxnRevision(t *testing.T) {
	f := newFixture(t)
	f.put("a=1")
	r := do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(
		opGet("b", 0), opPut("b", "2"), opGet("b", 0), opGet("b", 2), opDelete("a", ""), opGet("a", 0), opGet("a", 2), opPut("c", "3"), opDelete("x", ""))})
	require.EqualValues(t, 3, r.Header.Revision)
	require.EqualValues(t, 3, f.m.Revision())
	require.Equal(t, "b=2@3.0 -a@3.1/1 c=3@3.2", f.events(3))
	for i, want := range []struct {
		kvs string
		rev int64
	}{{"", 2}, {}, {"b=2(3.3.1)", 3}, {"", 3}, {}, {"", 3}, {"a=1(2.2.1)", 3}} {
		if got := r.Responses[i].GetResponseRange(); got != nil {
			require.Equal(t, want.kvs, show(got.Kvs), "operation %d", i)
			require.Equal(t, want.rev, got.Header.Revision, "operation %d", i)
		}
	}
	require.EqualValues(t, 3, r.Responses[1].GetResponsePut().Header.Revision)
	require.EqualValues(t, 1, r.Responses[4].GetResponseDeleteRange().Deleted)
	require.EqualValues(t, 0, r.Responses[8].GetResponseDeleteRange().Deleted)
	require.EqualValues(t, 3, r.Responses[8].GetResponseDeleteRange().Header.Revision)
}

// A transaction that changes nothing makes no revision, whatever it could have written.
func TestTxnWithoutEffect(t *testing.T) {
	f := newFixture(t)
	f.put("a=1")
	r := do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(opGet("a", 0), opDelete("x", "z")), Failure: ops(opPut("a", "2"))})
	require.EqualValues(t, 2, r.Header.Revision)
	require.EqualValues(t, 2, f.m.Revision())
	r = do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(&pb.RequestOp{})})
	require.Len(t, r.Responses, 1)
	require.Nil(t, r.Responses[0].Response, "an operation with nothing in it has an answer with nothing in it")
}

// The compares of nested transactions are evaluated before anything is written, only on the branch taken.
func TestTxnNested(t *testing.T) {
	f := newFixture(t)
	inner := &pb.TxnRequest{
		Compare: []*pb.Compare{ifMod("a", equal, 0)},
		Success: ops(opPut("seen", "before"), opGet("a", 0)),
		Failure: ops(opPut("seen", "after")),
	}
	r := do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(
		opPut("a", "1"),
		opTxn(inner),
		opTxn(&pb.TxnRequest{Compare: []*pb.Compare{ifMod("a", equal, 2)}, Success: ops(opPut("x", "")), Failure: ops(
			opTxn(&pb.TxnRequest{Success: ops(opPut("deep", "1"))}), opTxn(&pb.TxnRequest{Compare: []*pb.Compare{ifMod("deep", greater, 0)}}))}),
		opTxn(&pb.TxnRequest{Compare: []*pb.Compare{ifMod("zz", equal, 0)}, Success: ops(opPut("last", "1"))}),
	)})
	require.Equal(t, "a=1(2.2.1) deep=1(2.2.1) last=1(2.2.1) seen=before(2.2.1)", f.all(0))
	require.Equal(t, "a=1@2.0 seen=before@2.1 deep=1@2.2 last=1@2.3", f.events(0))
	nested := r.Responses[1].GetResponseTxn()
	require.True(t, nested.Succeeded)
	require.NotNil(t, nested.Header)
	require.Zero(t, nested.Header.Revision, "quirk: the header of a nested response is empty")
	require.Equal(t, "a=1(2.2.1)", show(nested.Responses[1].GetResponseRange().Kvs))
	third := r.Responses[2].GetResponseTxn()
	require.False(t, third.Succeeded)
	require.False(t, third.Responses[1].GetResponseTxn().Succeeded, "deep was not there before")
}

// A key can be put and deleted in one transaction, by nested ones side by side. As in etcd, the events tell what the key
// had before the transaction, and the delete itself answers with what it deleted.
func TestTxnPutsAndDeletesAKey(t *testing.T) {
	nested := func(op *pb.RequestOp) *pb.RequestOp { return opTxn(&pb.TxnRequest{Success: ops(op)}) }
	for name, c := range map[string]struct{ first, events, answer string }{
		"there before": {"a=1", "a=1@2.0 a=2@3.0/1 -a@3.1/1", "a=2(2.3.2)"},
		"new":          {"b=1", "b=1@2.0 a=2@3.0 -a@3.1", "a=2(3.3.1)"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.put(c.first)
			remove := &pb.DeleteRangeRequest{Key: []byte("a"), PrevKv: true}
			r := do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(
				nested(opPut("a", "2")),
				nested(&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: remove}}),
			)})
			require.Equal(t, c.events, f.events(0))
			require.Equal(t, c.answer, show(r.Responses[1].GetResponseTxn().Responses[0].GetResponseDeleteRange().PrevKvs))
			require.NoError(t, f.m.Check())
		})
	}
}

// Once created anew in a transaction that deleted it, a key has nothing before it; but when it is deleted again, that
// event tells what there was before the transaction.
func TestTxnDeletesPutsAndDeletesAKey(t *testing.T) {
	f := newFixture(t)
	f.put("a=1")
	do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(
		opDelete("a", ""), opPut("a", "2"), opPut("a", "3"), opDelete("a", ""), opDelete("a", ""), opPut("a", "4"),
	)})
	require.Equal(t, "a=1@2.0 -a@3.0/1 a=2@3.1 a=3@3.2 -a@3.3/1 a=4@3.4", f.events(0))
	require.NoError(t, f.m.Check())
}

// Any error on the branch taken fails the whole transaction and applies nothing; the other branch is not looked at. The
// checks are made on the state before the transaction.
func TestTxnCheck(t *testing.T) {
	putWith := func(r *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	}
	for name, c := range map[string]struct {
		op  *pb.RequestOp
		err error
	}{
		"range at a future revision":           {opGet("a", 6), ErrFutureRevision},
		"range at a compacted revision":        {opGet("a", 2), ErrCompacted},
		"range at the compact revision":        {opGet("a", 3), nil},
		"range at the revision being made":     {opGet("a", 5), ErrFutureRevision},
		"quirk: a negative revision compares":  {opGet("a", -1), ErrCompacted},
		"unknown lease":                        {putWith(&pb.PutRequest{Key: []byte("n"), Lease: 9}), ErrLeaseNotFound},
		"ignore_value of a missing key":        {putWith(&pb.PutRequest{Key: []byte("n"), IgnoreValue: true}), ErrKeyNotFound},
		"ignore_lease of a key just written":   {putWith(&pb.PutRequest{Key: []byte("first"), IgnoreLease: true}), ErrKeyNotFound},
		"ignore_value of a key that is there":  {putWith(&pb.PutRequest{Key: []byte("a"), IgnoreValue: true}), nil},
		"in a nested transaction":              {opTxn(&pb.TxnRequest{Success: ops(opGet("a", 99))}), ErrFutureRevision},
		"in a branch of it that is not taken":  {opTxn(&pb.TxnRequest{Failure: ops(opGet("a", 99))}), nil},
		"in the second nested one of a branch": {opTxn(&pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{}), opTxn(&pb.TxnRequest{Success: ops(opGet("a", 2))}))}), ErrCompacted},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.put("a=1", "a=2", "b=3")
			f.compact(3)
			before := f.m.Digest()
			r := f.try(KindTxn, &pb.TxnRequest{Success: ops(opPut("first", "1"), c.op), Failure: ops(opGet("a", 99))})
			require.ErrorIs(t, r.Err, c.err)
			if c.err != nil {
				require.Nil(t, r.Response)
				require.EqualValues(t, 4, f.m.Revision())
				require.Equal(t, "a=2(2.3.2) b=3(4.4.1)", f.all(0))
				require.NotEqual(t, before, f.m.Digest(), "the entry counts as applied")
			} else {
				require.EqualValues(t, 5, f.m.Revision())
			}
		})
	}
}

// Before the first compaction the compact revision is -1, so that within a transaction -1 is the current revision.
func TestTxnNegativeRevisionUncompacted(t *testing.T) {
	f := newFixture(t)
	f.put("a=1")
	r := do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(opGet("a", -1))})
	require.Equal(t, "a=1(2.2.1)", show(r.Responses[0].GetResponseRange().Kvs))
	require.ErrorIs(t, f.try(KindTxn, &pb.TxnRequest{Success: ops(opGet("a", -2))}).Err, ErrCompacted)
}

// Requests that the server refuses beforehand still have one meaning: the operations in order.
func TestTxnSameKeyTwice(t *testing.T) {
	f := newFixture(t)
	f.put("a=1")
	do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(opPut("a", "2"), opPut("a", "3"), opDelete("a", ""), opPut("a", "4"))})
	require.Equal(t, "a=4(3.3.1)", f.all(0))
	require.Equal(t, "a=1(2.2.1)", f.all(2))
	require.Equal(t, "a=2@3.0/1 a=3@3.1/1 -a@3.2/1 a=4@3.3", f.events(3))
	f.compact(3)
	for f.m.Sweep(1) {
	}
	require.NoError(t, f.m.Check())
	require.Equal(t, "a=4(3.3.1)", f.all(3))
	// ignore_value passes the check, as the key was there before, and then finds nothing to keep.
	do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(opDelete("a", ""), &pb.RequestOp{
		Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a"), IgnoreValue: true, IgnoreLease: true}}})})
	require.Equal(t, "a=(4.4.1)", f.all(0))
}

func TestIsReadOnly(t *testing.T) {
	get, put := opGet("a", 0), opPut("a", "")
	for name, c := range map[string]struct {
		txn  *pb.TxnRequest
		want bool
	}{
		"compares only":             {&pb.TxnRequest{Compare: []*pb.Compare{ifMod("a", equal, 0)}}, true},
		"ranges":                    {&pb.TxnRequest{Success: ops(get), Failure: ops(get)}, true},
		"a put":                     {&pb.TxnRequest{Success: ops(get, put)}, false},
		"a put in the other branch": {&pb.TxnRequest{Failure: ops(put)}, false},
		"a delete":                  {&pb.TxnRequest{Failure: ops(opDelete("a", ""))}, false},
		"nested ranges":             {&pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Failure: ops(get)}))}, true},
		"a nested put":              {&pb.TxnRequest{Success: ops(opTxn(&pb.TxnRequest{Failure: ops(put)}))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, IsReadOnly(c.txn))
			_, err := New(Config{}).View().Txn(c.txn)
			if c.want {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, ErrNotReadOnly)
			}
		})
	}
}

// A transaction as deep as the protobuf decoder lets through must not hurt.
func TestTxnDeeplyNested(t *testing.T) {
	r := &pb.TxnRequest{Success: ops(opPut("a", "1"))}
	for range 4000 {
		r = &pb.TxnRequest{Success: ops(opTxn(r))}
	}
	b, err := Command{Kind: KindTxn, Request: r}.AppendTo(nil)
	require.NoError(t, err)
	c, err := DecodeCommand(b)
	require.NoError(t, err)
	f := newFixture(t)
	require.EqualValues(t, 2, do[*pb.TxnResponse](f, c.Kind, c.Request).Header.Revision)
}
