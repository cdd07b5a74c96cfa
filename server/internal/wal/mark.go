package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const markBytes = sectorBytes

var markMagic = [8]byte{'L', 'A', 'T', 'C', 'H', 'E', 'N', 'D'}

// mark is the file that a clean stop leaves: where the log ends. The next start removes it, durably, before the first
// batch. While it is there, a log that ends elsewhere has lost something, and nothing in it is torn.
type mark struct {
	identity Identity
	segment  uint64 // number of the last one
	end      int64  // of the last batch in it
	batch    uint64 // number of the last batch
	chain    uint32 // after the last batch
}

// write makes the mark, durably and at once: it is never seen in part.
func (m *mark) write(c Config) error {
	b := make([]byte, markBytes)
	copy(b, markMagic[:])
	le := binary.LittleEndian
	le.PutUint32(b[8:], formatVersion)
	le.PutUint64(b[16:], m.identity.ClusterID)
	le.PutUint64(b[24:], m.identity.MemberID)
	le.PutUint64(b[32:], m.segment)
	le.PutUint64(b[40:], uint64(m.end))
	le.PutUint64(b[48:], m.batch)
	le.PutUint32(b[56:], m.chain)
	le.PutUint32(b[markBytes-4:], crc32.Checksum(b[:markBytes-4], castagnoli))
	if err := writeFile(c, markTemp, b); err != nil {
		return fmt.Errorf("write mark: %w", err)
	}
	if err := c.FS.Rename(c.path(markTemp), c.path(markName)); err != nil {
		return fmt.Errorf("name mark: %w", err)
	}
	if err := c.FS.SyncDir(c.Dir); err != nil {
		return fmt.Errorf("sync name of mark: %w", err)
	}
	return nil
}

// readMark reads the mark. No crash leaves half of one, so one that does not verify is damage.
func readMark(c Config) (*mark, error) {
	name := c.path(markName)
	file, err := c.FS.Open(name)
	if err != nil {
		return nil, fmt.Errorf("wal: open mark: %w", err)
	}
	b := make([]byte, markBytes+1)
	n, err := file.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("wal: read mark: %w", err)
	}
	le := binary.LittleEndian
	if n != markBytes || [8]byte(b) != markMagic || crc32.Checksum(b[:markBytes-4], castagnoli) != le.Uint32(b[markBytes-4:]) {
		return nil, &DamageError{File: name, Reason: "the mark of the last clean stop is damaged; " +
			"without this file the stop counts as a crash, after which the end of the log may pass for torn"}
	}
	if v := le.Uint32(b[8:]); v != formatVersion {
		return nil, fmt.Errorf("%w %d in %s", ErrVersion, v, name)
	}
	m := &mark{
		identity: Identity{ClusterID: le.Uint64(b[16:]), MemberID: le.Uint64(b[24:])},
		segment:  le.Uint64(b[32:]), end: int64(le.Uint64(b[40:])), batch: le.Uint64(b[48:]), chain: le.Uint32(b[56:]),
	}
	if m.identity != c.Identity {
		return nil, foreign(name, m.identity, c.Identity)
	}
	return m, nil
}

func foreign(name string, found, want Identity) error {
	return fmt.Errorf("%w: %s is of cluster %x, member %x; this is cluster %x, member %x",
		ErrForeign, name, found.ClusterID, found.MemberID, want.ClusterID, want.MemberID)
}

// writeFile makes a file, durably but for its name.
func writeFile(c Config, name string, b []byte) error {
	file, err := c.FS.Create(c.path(name))
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(b, 0); err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
