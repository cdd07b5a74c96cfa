package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
	"github.com/latchkey-go/latchkey/server/internal/wal"
)

const crashSteps = 30 // of a random program that is cut off at every operation

// at makes the disk fail from operation n on, counted from now, by calling f.
func at(m *disk.Mem, n uint64, f func(op disk.Op) error) {
	n += m.Ops()
	m.SetFault(func(op disk.Op) error {
		if op.N < n {
			return nil
		}
		return f(op)
	})
}

// powerCut is a fault that cuts the power once, and fails all that comes after.
func powerCut(m *disk.Mem) func(disk.Op) error {
	cut := false
	return func(disk.Op) error {
		if !cut {
			cut = true
			m.Crash()
		}
		return disk.ErrPowerCut
	}
}

// opsOf counts the operations of a driver's program on a disk without faults.
func opsOf(t *testing.T, seed uint64, steps int) uint64 {
	m := disk.NewMem(seed)
	require.NoError(t, newDriver(m, seed).run(steps))
	return m.Ops()
}

// reopen opens the log after a failure, checks what it has, and goes on with it: more batches, a clean or an unclean stop,
// and another look.
func (d *driver) reopen(m *disk.Mem) error {
	l, rec, err := wal.Open(d.config)
	if errors.Is(err, wal.ErrNotFound) && !d.created {
		return nil
	}
	if err != nil {
		return err
	}
	d.created = true
	if err := d.check(rec); err != nil {
		return err
	}
	d.log = l
	for range d.rng.IntN(4) {
		if err := d.append(d.batch(), d.rng.IntN(3) > 0); err != nil {
			return err
		}
	}
	if d.rng.IntN(2) == 0 {
		if err := l.Close(); err != nil {
			return err
		}
		d.durable = len(d.states) - 1
	}
	m.Crash()
	l, rec, err = wal.Open(d.config)
	if err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	if err := d.check(rec); err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	return l.Close()
}

// TestPowerCutAtEveryOperation: whenever the power goes, and whatever subset of the un-synced sectors and names survives, the
// log opens with every batch that was acknowledged, whole batches only, in order.
func TestPowerCutAtEveryOperation(t *testing.T) {
	cuts, torn := 0, 0
	for seed := range fewer(25) {
		ops := opsOf(t, seed, crashSteps)
		for n := uint64(1); n <= ops; n++ {
			m := disk.NewMem(seed*1000 + n)
			d := newDriver(m, seed)
			at(m, n, powerCut(m))
			require.ErrorIs(t, d.run(crashSteps), disk.ErrPowerCut, "seed %d op %d", seed, n)
			m.SetFault(nil)
			cuts++
			look := m.Clone(1)
			c := d.config
			c.FS = look
			if l, rec, err := wal.Open(c); err == nil {
				if rec.Torn != nil {
					torn++
					copied, err := look.ReadFile(rec.Torn.Copy)
					require.NoError(t, err)
					require.Len(t, copied, int(rec.Torn.Bytes))
				}
				require.NoError(t, l.Close())
			}
			require.NoError(t, d.reopen(m), "seed %d op %d", seed, n)
		}
	}
	t.Logf("%d power cuts, %d torn ends", cuts, torn)
	require.Greater(t, cuts, int(fewer(3000))/2)
	require.Greater(t, torn, int(fewer(100))/2)
}

// TestPowerCutInsideRecovery: the power goes again at every operation of Open, and a third time in the next one.
func TestPowerCutInsideRecovery(t *testing.T) {
	cuts := 0
	for seed := range fewer(8) {
		ops := opsOf(t, seed, crashSteps)
		for n := 3 + seed; n <= ops; n += 11 {
			for again := uint64(1); ; again++ {
				m := disk.NewMem(seed*1000 + n + again<<32)
				d := newDriver(m, seed)
				at(m, n, powerCut(m))
				require.Error(t, d.run(crashSteps))
				m.SetFault(nil)
				done := false
				for round := uint64(0); round < 2 && !done; round++ {
					at(m, again+round, powerCut(m))
					l, rec, err := wal.Open(d.config)
					m.SetFault(nil)
					switch {
					case err == nil:
						require.NoError(t, d.check(rec), "seed %d op %d again %d", seed, n, again)
						require.NoError(t, l.Close())
						done = true
					case errors.Is(err, wal.ErrNotFound) && !d.created:
						done = true
					default:
						require.ErrorIs(t, err, disk.ErrPowerCut, "seed %d op %d again %d", seed, n, again)
						cuts++
					}
				}
				require.NoError(t, d.reopen(m), "seed %d op %d again %d", seed, n, again)
				if done {
					break
				}
			}
		}
	}
	t.Logf("%d power cuts inside Open", cuts)
	require.Greater(t, cuts, int(fewer(1000))/2)
}

// TestEveryFailure fails every operation once, writes and syncs above all. The call that needed it fails, and so does every
// later one, with the same error and without touching the disk. The next Open, on the same machine or after a power cut,
// finds all that was acknowledged; what it finds beyond that is durable from then on, although the failed sync left
// pages behind that look written.
func TestEveryFailure(t *testing.T) {
	fault := errors.New("injected")
	failed := map[disk.OpKind]int{}
	for seed := range fewer(12) {
		ops := opsOf(t, seed, crashSteps)
		for n := uint64(1); n <= ops; n++ {
			for _, lost := range []bool{false, true} {
				m := disk.NewMem(seed*1000 + n)
				d := newDriver(m, seed)
				var kind disk.OpKind
				at(m, n, func(op disk.Op) error {
					if kind == 0 {
						kind = op.Kind
						return fault
					}
					return nil
				})
				err := d.run(crashSteps)
				require.ErrorIs(t, err, fault, "seed %d op %d", seed, n)
				failed[kind]++
				if d.log != nil {
					requireFinal(t, m, d.log, fault)
				}
				m.SetFault(nil)
				if lost {
					m.Crash()
				}
				require.NoError(t, d.reopen(m), "seed %d op %d %v, power lost: %v", seed, n, kind, lost)
			}
		}
	}
	t.Log(failed)
	for _, k := range []disk.OpKind{disk.OpCreate, disk.OpRename, disk.OpRemove, disk.OpSyncDir, disk.OpWrite, disk.OpSync} {
		require.Greater(t, failed[k], int(fewer(50))/2, k)
	}
}

// requireFinal: a log that failed stays failed and leaves the disk alone. One that failed while it was closed is closed.
func requireFinal(t *testing.T, m *disk.Mem, l *wal.Log, fault error) {
	before := m.Ops()
	err := l.Append(wal.Batch{HardState: hard(9, 9, 9)}, true)
	require.Error(t, err)
	require.Equal(t, err, l.Release(1<<40))
	if !errors.Is(err, wal.ErrClosed) {
		require.ErrorIs(t, err, fault)
	}
	require.Equal(t, before, m.Ops())
	if !errors.Is(err, wal.ErrClosed) {
		require.ErrorIs(t, l.Close(), fault)
		require.NotContains(t, m.Names(), "/wal/closed", "a log that failed is not marked as closed")
	}
}

// TestFailuresInsideRecovery fails every operation of Open after a power cut, then opens again, with and without another
// power cut between: repairs that were not seen to be durable are done again.
func TestFailuresInsideRecovery(t *testing.T) {
	fault := errors.New("injected")
	failed := 0
	for seed := range fewer(6) {
		ops := opsOf(t, seed, crashSteps)
		for n := 4 + seed; n <= ops; n += 13 {
			for op := uint64(1); ; op++ {
				m := disk.NewMem(seed*1000 + n + op<<32)
				d := newDriver(m, seed)
				at(m, n, powerCut(m))
				require.Error(t, d.run(crashSteps))
				once := false
				at(m, op, func(disk.Op) error {
					if once {
						return nil
					}
					once = true
					return fault
				})
				l, rec, err := wal.Open(d.config)
				m.SetFault(nil)
				if err == nil {
					require.NoError(t, d.check(rec))
					require.NoError(t, l.Close())
				} else if !errors.Is(err, wal.ErrNotFound) {
					require.ErrorIs(t, err, fault)
					failed++
				}
				if op%2 == 0 {
					m.Crash()
				}
				require.NoError(t, d.reopen(m), "seed %d op %d, failure %d", seed, n, op)
				if err == nil || !once {
					break
				}
			}
		}
	}
	t.Logf("%d failures inside Open", failed)
	require.Greater(t, failed, int(fewer(500))/2)
}

// TestZerosThatWereNotSynced: the sync that ends the discarding of a torn batch fails and leaves zeros that only the page
// cache knows. The next Open reads zeros, and must write them again all the same: otherwise the torn bytes come back with
// the next power cut, behind a batch that was acknowledged in between.
func TestZerosThatWereNotSynced(t *testing.T) {
	fault := errors.New("injected")
	for seed := range uint64(40) {
		m := disk.NewMem(seed)
		c := config(m, 16384)
		l := mustCreate(t, c, wal.Base{})
		for i := range uint64(2) { // three sectors each; the second one loses its last
			require.NoError(t, l.Append(wal.Batch{Entries: []*raftpb.Entry{entry(i+1, 1, bytes.Repeat([]byte{7}, 1200))}}, true))
		}
		name := "/wal/0000000000000001.wal"
		b, err := m.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, m.WriteFile(name, append(b[:7*sector:7*sector], make([]byte, len(b)-7*sector)...)))
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSync && op.Name == name {
				return fault
			}
			return nil
		})
		_, _, err = wal.Open(c)
		require.ErrorIs(t, err, fault)
		m.SetFault(nil)
		l, rec := mustOpen(t, c)
		require.Equal(t, "0@0: 1@1", spans(rec))
		appendRun(t, l, 2, 2, 2, 10)
		_, rec = reopened(t, c, m)
		require.Equal(t, "0@0: 1@1 2@2", spans(rec))
		require.Nil(t, rec.Torn)
	}
}

// TestShortRead: a file that ends before its length is an error, not damage and not an end.
func TestShortRead(t *testing.T) {
	m := disk.NewMem(1)
	d := newDriver(m, 1)
	require.NoError(t, d.run(20))
	reads := 0
	m.SetFault(func(op disk.Op) error {
		if op.Kind == disk.OpRead {
			reads++
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	_, _, err := wal.Open(d.config)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NotZero(t, reads)
}
