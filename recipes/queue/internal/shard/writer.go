package shard

import "strconv"

// Draft is an item that is to be put into the queue.
type Draft struct {
	Shard int
	Due   int64 // ms since 1970; 0 for a lane
	Item  *Item // with Job and Lane set
	// Unique is the hash of a key that must be free; the item's own one if the job
	// frees it, else the lease does.
	Unique      string
	UniqueLease int64
}

func (d *Draft) record() string {
	_, _, record, _ := ParseJobID(d.Item.Job)
	return record
}

func (d *Draft) key() string {
	if d.Due > 0 {
		return DueKey(d.Shard, d.Due, d.record())
	}
	return ItemKey(d.Shard, d.Item.Lane, d.record())
}

// Put returns what puts the item into the queue, and the conditions: that no
// reader has passed its place, and that its unique key is free.
func (d *Draft) Put(planted Fault) (guard []Compare, ops []Op) {
	if d.Due == 0 && planted != BlindEnqueue {
		guard = append(guard, Compare{Key: MarkKey(d.Shard, d.Item.Lane), Field: Value, Less: true, Value: []byte(d.record())})
	}
	ops = append(ops, put(d.key(), d.Item.Encode()))
	if d.Unique != "" {
		u := put(UniqueKey(d.Unique), []byte(d.Item.Job))
		u.Lease = d.UniqueLease
		guard, ops = append(guard, missing(u.Key)), append(ops, u)
	}
	return guard, ops
}

// Writer puts items into the queue in batches that are numbered, one after the
// other. A key of its own has the number of the last one, so that a batch whose
// answer was lost can be sent again: it is executed once.
type Writer struct {
	ID      string // names its key
	Lease   int64  // that the key ends with
	Planted Fault

	mod    int64
	number int64
}

// Verdict is what came of a batch.
type Verdict uint8

// The verdicts.
const (
	Written     Verdict = iota
	Stale               // the items need newer records
	Reconfigure         // the queue's configuration has changed
	Duplicate           // a unique key is taken: the answer names the jobs
	Lost                // the writer's key is gone: nothing was executed if it was sent once
)

// Batch returns the transaction that writes the items, all or none, if the
// configuration is still as it was at config.
func (w *Writer) Batch(items []*Draft, config int64) Txn {
	key := ProducerKey(w.ID)
	t := Txn{If: []Compare{modIs(ConfigKey, config)}, Else: []Op{get(key), get(ConfigKey)}}
	if w.Planted != BlindBatch {
		t.If = append(t.If, modIs(key, w.mod))
	}
	mine := put(key, []byte(strconv.FormatInt(w.number+1, 10)))
	mine.Lease = w.Lease
	t.Then = append(t.Then, mine)
	marks := make(map[string]bool)
	for _, n := range items {
		guard, ops := n.Put(w.Planted)
		for _, c := range guard {
			// Records of one writer only grow: the first of a lane is the smallest.
			if c.Field == Value && marks[c.Key] {
				continue
			}
			marks[c.Key] = true
			t.If = append(t.If, c)
		}
		if n.Unique != "" {
			t.Else = append(t.Else, get(UniqueKey(n.Unique)))
		}
		t.Then = append(t.Then, ops...)
	}
	return t
}

// Judge reads the answer of a batch: its verdict, its revision if it is written,
// and for each unique item the job that has its key.
func (w *Writer) Judge(a *Answer, config int64) (v Verdict, rev int64, taken []string) {
	if a.Succeeded {
		w.mod, w.number = a.Revision, w.number+1
		return Written, a.Revision, nil
	}
	mine, conf := a.Results[0].one(), a.Results[1].one()
	switch {
	case mine.Mod != w.mod && string(mine.Value) == strconv.FormatInt(w.number+1, 10):
		w.mod, w.number = mine.Mod, w.number+1
		return Written, mine.Mod, nil
	case mine.Mod != w.mod:
		return Lost, a.Revision, nil
	case conf.Mod != config:
		return Reconfigure, a.Revision, nil
	}
	v = Stale
	for _, r := range a.Results[2:] {
		kv := r.one()
		taken = append(taken, string(kv.Value))
		if kv.Key != "" {
			v = Duplicate
		}
	}
	return v, a.Revision, taken
}

// Tick fires a cron entry's tick, in ms since 1970, once whoever asks for it.
func Tick(name string, tick int64, d *Draft, config int64) Txn {
	key := CronKey(name)
	value := []byte(Bound(tick))
	d.Due = tick
	_, ops := d.Put(0)
	return Txn{
		If:   []Compare{{Key: key, Field: Value, Less: true, Value: value}, modIs(ConfigKey, config)},
		Then: append([]Op{put(key, value)}, ops...),
		Else: []Op{get(key), get(ConfigKey)},
	}
}

// TickOf reads the value of a cron entry: its last tick.
func TickOf(value []byte) int64 {
	ms, err := strconv.ParseUint(string(value), 16, 63)
	if err != nil {
		return 0
	}
	return int64(ms)
}

// Redrive moves a dead letter back into the queue, with all its attempts before
// it. The job keeps its name, and its shard as long as that is in use: home tells
// the shard for the one in its name.
func Redrive(dead KV, now int64, home func(n int) int, config int64) (Txn, error) {
	it, err := DecodeItem(dead)
	if err != nil {
		return Txn{}, err
	}
	n, _, record, ok := ParseJobID(it.Job)
	if !ok {
		return Txn{}, ErrDamaged
	}
	it.Failures, it.Crashes, it.Unique = 0, 0, ""
	return Txn{
		If:   []Compare{createIs(dead.Key, dead.Create), modIs(ConfigKey, config)},
		Then: []Op{del(dead.Key), put(DueKey(home(n), now, record), it.Encode())},
		Else: []Op{get(dead.Key), get(ConfigKey)},
	}, nil
}
