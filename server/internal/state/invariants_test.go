package state

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Each invariant is broken in turn, and Check must name it: a check that can not fail checks nothing.
func TestCheckFinds(t *testing.T) {
	base := func() *fixture {
		f := newFixture(t)
		f.m = New(Config{Archive: newMemory(), HistoryBytes: 1 << 20, Members: []Member{{ID: 1}, {ID: 2}}})
		f.grant(7, 8)
		f.put("a=1", "a=2", "b=1", "c=1", "c=2")
		f.delete("b")
		f.putLease("l", 7)
		do[*pb.TxnResponse](f, KindTxn, &pb.TxnRequest{Success: ops(opPut("x", ""), opPut("y", ""), opPut("z", ""))})
		return f
	}
	require.NoError(t, base().m.Check())
	for name, c := range map[string]struct {
		spoil func(m *Machine)
		want  string
	}{
		"revision":        {func(m *Machine) { m.revision = 0 }, "the revision is at least 1"},
		"compact":         {func(m *Machine) { m.compact = 99 }, "the compact revision is between"},
		"half applied":    {func(m *Machine) { m.subs = 1 }, "no command is half applied"},
		"sweep":           {func(m *Machine) { m.sweep.done = 3 }, "the sweep never overtakes"},
		"sweep target":    {func(m *Machine) { m.sweep.active, m.sweep.target = true, 3 }, "the sweep never overtakes"},
		"view":            {func(m *Machine) { m.View(); m.index++ }, "the cached view shows the present"},
		"both trees":      {func(m *Machine) { m.dead.Set("0", newest(m, "b")) }, "no key is both live and dead"},
		"key twice":       {func(m *Machine) { v := *newest(m, "a"); m.dead.Set("a", &v) }, "a version stands under its own key"},
		"wrong key":       {func(m *Machine) { newest(m, "a").Key = "0" }, "a version stands under its own key"},
		"tombstone alive": {func(m *Machine) { newest(m, "a").Deleted = true }, "the live tree holds no tombstone"},
		"tombstone":       {func(m *Machine) { newest(m, "b").Count = 1 }, "a tombstone has only a key"},
		"created":         {func(m *Machine) { newest(m, "a").Create = 99 }, "a key was created before"},
		"future":          {func(m *Machine) { newest(m, "a").Mod = 99 }, "no version is of the future"},
		"value":           {func(m *Machine) { newest(m, "a").Value[0] = 'x' }, "a version is never written to"},
		"older order":     {func(m *Machine) { newest(m, "a").older[0].main = 50 }, "the versions of a key ascend"},
		"window":          {func(m *Machine) { newest(m, "a").older[0].sub = 2 }, "the window holds every version"},
		"older sum":       {func(m *Machine) { newest(m, "a").older[0].sum++ }, "the window holds every version"},
		"left memory":     {func(m *Machine) { m.window.tail = m.window.tail[1:] }, "a version leaves memory only when"},
		"swept":           {func(m *Machine) { m.compact, m.sweep.done = 5, 5 }, "what was swept is gone"},
		"being swept":     {func(m *Machine) { m.compact, m.sweep = 5, sweep{active: true, target: 5, begun: true, after: "a"} }, "what was swept is gone"},
		"live size":       {func(m *Machine) { m.size.Live++ }, "the sizes are those"},
		"history size":    {func(m *Machine) { m.size.History++ }, "the sizes are those"},
		"detached":        {func(m *Machine) { m.leases[7].detach("l") }, "a key with a lease is attached"},
		"lease gone":      {func(m *Machine) { delete(m.leases, 7) }, "a key with a lease is attached"},
		"attached twice":  {func(m *Machine) { m.leases[8].attach("l") }, "a lease holds only keys"},
		"ttl":             {func(m *Machine) { m.leases[7].ttl = 0 }, "a lease has an id and a TTL"},
		"event order":     {func(m *Machine) { m.window.tail[5], m.window.tail[6] = m.window.tail[6], m.window.tail[5] }, "events ascend"},
		"event lost":      {func(m *Machine) { m.window.tail = m.window.tail[:2] }, "the window holds every version"},
		"event prev":      {func(m *Machine) { m.window.tail[6].Prev = newest(m, "a") }, "an event's Prev is"},
		"window bytes":    {func(m *Machine) { m.window.bytes++ }, "the window's bytes are"},
		"window first":    {func(m *Machine) { m.window.first = 99 }, "the window is complete up to"},
		"members":         {func(m *Machine) { m.members[1].ID = 1 }, "members ascend by ID"},
		"window limit":    {func(m *Machine) { m.window.seal(); m.window.limit, m.window.archived = 1, 99 }, "the window keeps to its limit"},
		"chunk start":     {func(m *Machine) { m.window.seal(); m.window.sealed[0].start.Sub = -1 }, "a chunk is found by"},
		"chunk bytes":     {func(m *Machine) { m.window.seal(); m.window.sealed[0].bytes-- }, "the window's bytes are"},
		"event of a txn":  {func(m *Machine) { m.window.tail = slices.Delete(m.window.tail, 8, 9) }, "events ascend without gaps"},
	} {
		f := base()
		c.spoil(f.m)
		require.ErrorContains(t, f.m.Check(), c.want, name)
	}
}
