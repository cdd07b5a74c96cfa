package wal

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/latchkey-go/latchkey/server/internal/disk"
)

// rotate writes a batch as the first of a new segment, in an order that leaves one of three states after a crash:
//
//  1. Everything before the batch is synced: from here on damage in the old segment can not be a torn end.
//  2. The new segment's header and the batch are written to a file of zeros under a temporary name and synced, then the
//     file gets its name and the name is synced. Before that the batch is not in the log; from then on it is, whole: a
//     segment is never seen without a header or its first batch, so a segment that lacks one is damaged, never torn.
//  3. The old segment is sealed, and that is synced. A crash before leaves an old segment without a seal, which Open
//     accepts when the new one has one batch only, and seals. So a seal says that a next segment was there, for Open
//     to miss, and the lack of one before a second batch is damage.
//
// A Reset is the same step: its header tells that all that came before is forgotten, the batch in it has the HardState
// that goes with the snapshot, and both come into being with the name. Until then the log is the old one, which the
// caller's checkpoint may be ahead of; after it, the log starts after the snapshot, which the caller made durable before.
func (l *Log) rotate(b *Batch, cut Base) error {
	if err := l.flush(); err != nil {
		return err
	}
	file, seed, end, chain := l.file, l.seed, l.end, l.chain
	if err := l.begin(b, cut, b.Reset != nil); err != nil {
		return err
	}
	seal := frame{kind: kindSeal, batch: l.batch, synced: l.synced, chain: chain}
	buf := l.room(sealBytes)
	seal.encode(buf, seed, nil)
	if _, err := file.WriteAt(buf, end); err != nil {
		return errors.Join(fmt.Errorf("write seal: %w", err), file.Close())
	}
	if err := file.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync seal: %w", err), file.Close())
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	return nil
}

// begin makes the next segment with its first batch, durably, and goes on in it. The log is whole without any older
// segment, so the batch brings the HardState along.
func (l *Log) begin(b *Batch, base Base, reset bool) error {
	if b.HardState == nil && l.wrote {
		b.HardState = &raftpb.HardState{Term: &l.hard.term, Vote: &l.hard.vote, Commit: &l.hard.commit}
	}
	need := frameBytes(payloadBytes(b.Entries))
	number, size := uint64(1), min(firstSegmentBytes, l.config.SegmentBytes)
	if n := len(l.held); n > 0 {
		number, size = l.held[n-1].number+1, l.nextSize()
	}
	file, temp, size, err := l.blank(size, headerBytes+need+sealBytes)
	if err != nil {
		return err
	}
	h := segmentHeader{
		identity: l.config.Identity, number: number, batch: l.batch + 1, base: base, reset: reset,
		salt: l.config.Salt(), size: size, previous: l.chain,
	}
	buf := l.room(headerBytes + need)
	h.encode(buf)
	chain := l.encode(buf[headerBytes:], b, h.seed(), h.chain)
	if err := l.place(file, buf, temp, segmentName(number)); err != nil {
		_ = file.Close() // the log has failed already, with err
		return err
	}
	if reset {
		for i := range l.held {
			l.held[i].max = 0 // no entry of theirs counts: the next Release may have them
		}
		l.base, l.terms = base, terms{}
	}
	l.held = append(l.held, segment{number: number, size: size, base: base, reset: reset})
	l.file, l.seed, l.end = file, h.seed(), headerBytes+need
	l.took(b, base, chain, need)
	l.synced = l.batch
	l.stats.Syncs++
	l.stats.Rotated++
	return nil
}

// place writes the beginning of a segment and gives the file its name.
func (l *Log) place(file disk.File, buf []byte, temp, name string) error {
	if _, err := file.WriteAt(buf, 0); err != nil {
		return fmt.Errorf("write first batch of a segment: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync first batch of a segment: %w", err)
	}
	if err := l.config.FS.Rename(l.config.path(temp), l.config.path(name)); err != nil {
		return fmt.Errorf("name segment: %w", err)
	}
	if err := l.config.FS.SyncDir(l.config.Dir); err != nil {
		return fmt.Errorf("sync name of segment: %w", err)
	}
	return nil
}
