package wal

import (
	"errors"

	"go.etcd.io/raft/v3/raftpb"
)

// Inspection is what a log holds that nobody has opened.
type Inspection struct {
	Recovery // as Open would return it; Torn has no Copy, as nothing was cut off
	Identity Identity
	Segments int
	Bytes    int64  // of the segments
	Batch    uint64 // number of the last one
	Clean    bool   // the log was closed by a clean stop
}

// Inspect reads the log, all of it, as Open does, and changes nothing. Its errors are those of Open. With a zero Identity in
// c, the log's own is taken. Nobody may have the log open.
func Inspect(c Config) (Inspection, error) {
	c, err := c.withDefaults()
	if err != nil {
		return Inspection{}, err
	}
	if c.Identity == (Identity{}) {
		if c.Identity, err = readIdentity(c); err != nil {
			return Inspection{}, err
		}
	}
	o := &opening{config: c}
	if err := errors.Join(o.read(), o.close()); err != nil {
		return Inspection{}, err
	}
	i := Inspection{
		Recovery: Recovery{Base: o.base, Entries: o.entries}, Identity: c.Identity,
		Segments: len(o.held), Batch: o.next - 1, Clean: o.mark != nil,
	}
	for _, s := range o.held {
		i.Bytes += s.size
	}
	if o.wrote {
		hs := o.hard
		i.HardState = &raftpb.HardState{Term: &hs.term, Vote: &hs.vote, Commit: &hs.commit}
	}
	if o.used > o.end {
		i.Torn = &Torn{File: c.path(segmentName(o.header.number)), Offset: o.end, Bytes: o.used - o.end}
	}
	return i, nil
}

// readIdentity reads whose log it is from the oldest segment.
func readIdentity(c Config) (Identity, error) {
	d, err := listDirectory(c)
	if err != nil {
		return Identity{}, err
	}
	if len(d.segments) == 0 {
		return Identity{}, nil // read finds the words
	}
	name := c.path(segmentName(d.segments[0]))
	f, err := c.FS.Open(name)
	if err != nil {
		return Identity{}, err
	}
	b := make([]byte, headerBytes)
	if err := errors.Join(readFull(f, b, 0), f.Close()); err != nil {
		return Identity{}, &DamageError{File: name, Reason: "the segment ends inside its header"}
	}
	var h segmentHeader
	if _, reason := h.decode(b); reason != "" {
		return Identity{}, &DamageError{File: name, Reason: reason}
	}
	return h.identity, nil
}
