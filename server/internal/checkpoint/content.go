package checkpoint

import (
	"hash/crc32"

	bolt "go.etcd.io/bbolt"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// content describes a set of rows independently of their order, so that it can follow single changes: how many there
// are, and the sum of a hash of each. Both checksums of a row find every change of up to 32 bits in a row for certain;
// mixing makes the sum one of independent numbers, so that changes of several rows do not cancel out.
type content struct{ rows, sum uint64 }

func (c *content) add(bucket, k, v []byte) {
	c.rows++
	c.sum += rowHash(bucket, k, v)
}

func (c *content) remove(bucket, k, v []byte) {
	c.rows--
	c.sum -= rowHash(bucket, k, v)
}

func rowHash(bucket, k, v []byte) uint64 {
	a := crc32.Update(crc32.Update(crc32.Checksum(bucket, castagnoli), castagnoli, k), castagnoli, v)
	b := crc32.Update(crc32.Update(crc32.ChecksumIEEE(bucket), crc32.IEEETable, k), crc32.IEEETable, v)
	h := uint64(a)<<32 | uint64(b)
	h ^= uint64(len(k))<<48 ^ uint64(len(v)) // where the key ends
	// The finisher of splitmix64.
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// table is a bucket in a write transaction that keeps content up to date. Values must stay unchanged until the commit.
type table struct {
	bucket  *bolt.Bucket
	name    []byte
	content *content
}

// insert puts a row that is known not to exist.
func (t table) insert(k, v []byte) error {
	t.content.add(t.name, k, v)
	return t.bucket.Put(k, v)
}

// set puts a row in place of the one that may be there.
func (t table) set(k, v []byte) error {
	if old := t.bucket.Get(k); old != nil {
		t.content.remove(t.name, k, old)
	}
	return t.insert(k, v)
}

// delete removes a row if it is there.
func (t table) delete(k []byte) error {
	old := t.bucket.Get(k)
	if old == nil {
		return nil
	}
	t.content.remove(t.name, k, old)
	return t.bucket.Delete(k)
}
