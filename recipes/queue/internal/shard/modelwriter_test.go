package shard

import (
	"fmt"
	"slices"
)

type simWriter struct {
	*sim
	w      *Writer
	tag    uint32
	seed   int64
	count  uint32
	config int64
	shards []int
	batch  []*Draft
	busy   bool
	left   int
}

func (p *simWriter) id() string {
	p.count++
	return fmt.Sprintf("%s-%08x-%08x", Bound(p.seed), p.tag, p.count)
}

// next makes up a batch: plain messages, chunks, delayed ones, groups.
func (p *simWriter) next() {
	p.batch = nil
	for range 1 + p.r.Intn(3) {
		d := &Draft{Item: &Item{Lane: p.r.Intn(p.limits.Lanes)}}
		switch p.r.Intn(6) {
		case 0:
			d.Item.Chunk = 2 + p.r.Intn(3)
			var parts [][]byte
			for i := range d.Item.Chunk {
				parts = append(parts, p.payload(i == 1))
			}
			d.Item.Payload = Pack(parts)
		case 1, 2:
			d.Item.Group, d.Item.Lane = fmt.Sprintf("g%d", p.r.Intn(4)), 0
			d.Item.Payload = p.payload(true)
		case 3:
			d.Due = p.now + int64(p.r.Intn(3000))
			d.Item.Payload = p.payload(false)
		default:
			d.Item.Payload = p.payload(true)
		}
		p.batch = append(p.batch, d)
	}
	p.place()
}

func (p *simWriter) payload(poison bool) []byte {
	switch n := p.r.Intn(60); {
	case poison && n == 0:
		return []byte("poison")
	case n < 20:
		return []byte("plain")
	}
	return []byte("tx")
}

// place decides about shards and names.
func (p *simWriter) place() {
	for _, d := range p.batch {
		d.Shard = p.shards[p.r.Intn(len(p.shards))]
		if d.Item.Group != "" {
			d.Shard = p.shards[int(d.Item.Group[1]-'0')%len(p.shards)]
		}
		d.Item.Job = JobID(d.Shard, d.Item.Lane, p.id())
	}
}

func (p *simWriter) step() {
	if p.busy || p.left == 0 {
		return
	}
	if p.shards == nil {
		kv := p.m[ConfigKey]
		p.config, p.shards = kv.Mod, slices.Clone(p.sim.shards)
	}
	if p.w == nil {
		p.w = &Writer{ID: fmt.Sprintf("p%d", p.tag), Planted: p.plant}
	}
	if p.batch == nil {
		p.next()
	}
	p.busy = true
	batch, config := p.batch, p.config
	p.send(p.w.Batch(batch, config), nil, func(a *Answer) {
		p.busy = false
		switch v, rev, _ := p.w.Judge(a, config); v {
		case Written:
			p.written(batch, rev)
			p.batch, p.left = nil, p.left-1
			if p.r.Intn(3) > 0 { // sometimes it has an old view for long
				p.seed = max(p.seed, rev)
			}
		case Stale:
			p.seed = a.Revision
			p.place()
		case Reconfigure:
			p.shards = nil
			kv := p.m[ConfigKey]
			p.config, p.shards = kv.Mod, slices.Clone(p.sim.shards)
			p.place()
		default:
			p.fail("writer got %d", v)
		}
	})
}

func (p *simWriter) written(batch []*Draft, rev int64) {
	for _, d := range batch {
		for i := range d.Item.parts() {
			job := d.Item.part(i).Job
			p.want[job] = true
			p.due[job] = d.Due
		}
	}
}

// ---- workers
