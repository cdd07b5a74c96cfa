package pubsub

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

const (
	// trimPause is the time between passes of all processes; trimPauseMin is, when
	// this one has published a quarter of a bound since.
	trimPause    = segmentAge
	trimPauseMin = 500 * time.Millisecond
	// trimTimeout bounds a pass that a publisher makes by the way.
	trimTimeout = 5 * time.Second
	// trimKeys are deleted in one transaction, and trimSlices of them in a pass.
	trimKeys   = 1000
	trimSlices = 50
)

// trimmer cuts a topic to its bounds, in passes that whoever publishes makes by the
// way: one at a time over all processes, as each pass begins by taking its turn.
type trimmer struct {
	topic     *topic
	retention atomic.Pointer[Retention] // as the latest pass has seen it
	messages  atomic.Int64              // published here since the latest pass
	bytes     atomic.Int64
	next      atomic.Int64 // when a pass is due, in milliseconds since 1970
	turn      sync.Mutex   // one pass at a time
}

func newTrimmer(t *topic, r Retention) *trimmer {
	tr := &trimmer{topic: t}
	tr.retention.Store(&r)
	tr.next.Store(time.Now().Add(trimPause).UnixMilli())
	return tr
}

// published counts what was published, and makes a pass when one is due. What
// becomes of it is nobody's business: the next one makes up for it.
func (tr *trimmer) published(ctx context.Context, messages, bytes int) {
	n, b := tr.messages.Add(int64(messages)), tr.bytes.Add(int64(bytes))
	apart, due := passDue(*tr.retention.Load(), time.Now().UnixMilli(), tr.next.Load(), n, b)
	if !due || !tr.turn.TryLock() {
		return
	}
	defer tr.turn.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), trimTimeout)
	defer cancel()
	_, _ = tr.pass(ctx, apart)
}

// passDue says whether a pass is to be made, and how long ago the latest one of all
// processes has to be then. next is when one is due by the clock; messages and bytes
// were published here since the latest.
func passDue(r Retention, now, next, messages, bytes int64) (apart time.Duration, due bool) {
	if r.Messages > 0 && messages > r.Messages/4 || r.Bytes > 0 && bytes > r.Bytes/4 {
		return trimPauseMin, now >= next-(trimPause-trimPauseMin).Milliseconds()
	}
	return trimPause - time.Second, now >= next
}

// Trimmed tells what a pass has done.
type Trimmed struct {
	// Before is the offset before which messages are gone, or on their way.
	Before Offset
	// Keys is how many keys were deleted.
	Keys int64
}

// Trim cuts the topic to its bounds at once. Publishers do so by the way, some
// seconds apart, so nobody has to call it. It returns no error when another process
// is at it.
func (t *topic) Trim(ctx context.Context) (Trimmed, error) {
	t.trimmer.turn.Lock()
	defer t.trimmer.turn.Unlock()
	out, err := t.trimmer.pass(ctx, 0)
	if err != nil {
		return out, fmt.Errorf("trim topic %q: %w", t.name, err)
	}
	return out, nil
}

// SetRetention changes the bounds of the topic. None at all means unlimited.
func (t *topic) SetRetention(ctx context.Context, r Retention) error {
	config, err := json.Marshal(settings{Partitions: t.partitions, Retention: r})
	if err != nil {
		return err
	}
	k := t.keys.config()
	res, err := t.client.Txn().If(client.Exists(k)).Then(client.OpPut(k, config)).Commit(ctx)
	if err == nil && !res.Succeeded {
		err = ErrNoTopic
	}
	if err != nil {
		return fmt.Errorf("set retention of topic %q: %w", t.name, err)
	}
	t.trimmer.retention.Store(&r)
	return nil
}

// past is what a pass has read at its beginning.
type past struct {
	history   history
	changed   client.Revision // of history's key; zero when there is none
	floor     string
	floorAt   client.Revision
	retention Retention
	now       client.Revision
}

// read reads what is known of the topic's past.
func (tr *trimmer) read(ctx context.Context) (past, error) {
	k := tr.topic.keys
	res, err := tr.topic.client.Txn().Then(
		client.OpGet(k.config()), client.OpGet(k.floor()), client.OpGet(k.segments()),
	).Commit(ctx)
	if err != nil {
		return past{}, err
	}
	p := past{now: res.Revision}
	config, floor, segments := res.Results[0].Get.KVs, res.Results[1].Get.KVs, res.Results[2].Get.KVs
	if len(config) == 0 || len(floor) == 0 {
		return past{}, ErrNoTopic
	}
	var s settings
	if err := json.Unmarshal(config[0].Value, &s); err != nil {
		return past{}, fmt.Errorf("settings: %w", err)
	}
	p.retention = s.Retention
	p.floor, p.floorAt = string(floor[0].Value), floor[0].ModRevision
	if len(segments) > 0 {
		p.changed = segments[0].ModRevision
		if err := json.Unmarshal(segments[0].Value, &p.history); err != nil {
			return past{}, fmt.Errorf("segments: %w", err)
		}
	}
	return p, nil
}

// pass closes a segment, raises the floor to where the pass before began, cuts off
// segments and deletes their keys. It does nothing when the latest pass, of whatever
// process, is not so long ago.
func (tr *trimmer) pass(ctx context.Context, apart time.Duration) (Trimmed, error) {
	now := time.Now().UnixMilli()
	p, err := tr.read(ctx)
	if err != nil {
		return Trimmed{}, err
	}
	tr.retention.Store(&p.retention)
	h := &p.history
	tr.next.Store(now + trimPause.Milliseconds())
	if now-h.At < apart.Milliseconds() {
		return Trimmed{}, nil
	}
	before := *h
	h.At = now
	if ok, err := tr.save(ctx, &p, ""); err != nil || !ok {
		return Trimmed{}, err
	}
	tr.messages.Store(0)
	tr.bytes.Store(0)
	s := segment{Until: p.now, At: now, Floor: p.floor}
	if s.Messages, s.Bytes, err = tr.count(ctx, before, p); err != nil {
		return Trimmed{}, err
	}
	handled := client.Revision(0)
	if p.retention.Interest {
		if handled, err = tr.topic.handled(ctx, p.now); err != nil {
			return Trimmed{}, err
		}
	}
	h.add(s)
	h.Revision = p.now
	h.cut(p.retention, now, handled)
	raise := sequence.Bound(before.Revision)
	if raise <= p.floor {
		raise = ""
	}
	out := Trimmed{Before: Offset{Revision: h.Trimmed.Until + 1}}
	if ok, err := tr.save(ctx, &p, raise); err != nil || !ok {
		return out, err
	}
	if h.Deleted >= h.Trimmed.Floor {
		return out, nil
	}
	done := false
	if out.Keys, done, err = tr.delete(ctx, h.Deleted, h.Trimmed.Floor); err != nil || !done {
		return out, err
	}
	h.Deleted = h.Trimmed.Floor
	_, err = tr.save(ctx, &p, "")
	return out, err
}

// save writes the history, and raises the floor if a bound is given, unless
// somebody else has changed them.
func (tr *trimmer) save(ctx context.Context, p *past, raise string) (bool, error) {
	k := tr.topic.keys
	value, err := json.Marshal(p.history)
	if err != nil {
		return false, err
	}
	ops := []client.Op{client.OpPut(k.segments(), value)}
	if raise != "" {
		ops = append(ops, client.OpPut(k.floor(), []byte(raise)))
		for i := range tr.topic.partitions {
			ops = append(ops, client.OpPut(k.laneFloor(i), []byte(raise)))
		}
	}
	res, err := tr.topic.client.Txn().If(
		client.ModRevision(k.segments()).Equal(p.changed),
		client.ModRevision(k.floor()).Equal(p.floorAt),
	).Then(ops...).Commit(ctx)
	if err != nil || !res.Succeeded {
		return false, err
	}
	p.changed = res.Revision
	return true, nil
}

// count counts what was published between two passes, from the notes in the keys,
// unless no bound needs it.
func (tr *trimmer) count(ctx context.Context, before history, p past) (messages, bytes int64, err error) {
	if p.retention.Messages == 0 && p.retention.Bytes == 0 {
		return 0, 0, nil
	}
	from := sequence.Position{Revision: before.Revision, From: before.before(func(segment) bool { return true }).Floor}
	for b, err := range sequence.NewKeyReader(tr.topic.client, tr.topic.log).Read(ctx, from) {
		if err != nil {
			return 0, 0, err
		}
		for _, e := range b.Entries {
			if e.Revision <= p.now {
				n, size, _ := readNote(e.Note)
				messages += n
				bytes += size
			}
		}
		if b.Position.Revision >= p.now {
			break
		}
	}
	return messages, bytes, nil
}

// delete deletes the records between two bounds, and says whether it is through
// with them. They are all of segments that were cut off, as what was committed later
// stands above.
func (tr *trimmer) delete(ctx context.Context, from, to string) (deleted int64, done bool, err error) {
	c := tr.topic.client
	slices := 0
	for p := 0; p < tr.topic.partitions; slices++ {
		if slices == trimSlices {
			return deleted, false, nil // the next pass goes on
		}
		lane := tr.topic.keys.lane(p)
		res, err := c.Get(ctx, lane+from, client.Range(lane+to), client.Limit(trimKeys), client.KeysOnly())
		if err != nil {
			return deleted, false, err
		}
		if len(res.KVs) > 0 {
			last := res.KVs[len(res.KVs)-1].Key
			gone, err := c.Delete(ctx, lane+from, client.Range(last+"\x00"))
			if err != nil {
				return deleted, false, err
			}
			deleted += gone.Deleted
		}
		if !res.More {
			p++
		}
	}
	return deleted, true, nil
}

// handled returns the revision up to which all groups and durable names have
// handled the topic.
func (t *topic) handled(ctx context.Context, now client.Revision) (client.Revision, error) {
	out := now
	c := t.client
	res, err := c.Get(ctx, t.keys.durables(), client.Prefix())
	if err != nil {
		return 0, err
	}
	for _, kv := range res.KVs {
		rev, err := t.handledBy(ctx, kv.Value, t.log.Lanes, now)
		if err != nil {
			return 0, err
		}
		out = min(out, rev)
	}
	groups, err := t.Groups(ctx)
	if err != nil {
		return 0, err
	}
	for _, name := range groups {
		g := t.keys.group(name)
		res, err := c.Get(ctx, g.cursors(), client.Prefix())
		if err != nil {
			return 0, err
		}
		for _, kv := range res.KVs {
			p, err := strconv.Atoi(strings.TrimPrefix(kv.Key, g.cursors()))
			if err != nil || p >= t.partitions {
				continue
			}
			rev, err := t.handledBy(ctx, kv.Value, t.log.Lanes[p:p+1], now)
			if err != nil {
				return 0, err
			}
			out = min(out, rev)
		}
	}
	return out, nil
}

// handledBy returns the revision up to which a cursor has handled lanes: now, when
// nothing follows it.
func (t *topic) handledBy(ctx context.Context, value []byte, lanes []string, now client.Revision) (client.Revision, error) {
	cur, err := parseCursor(value)
	if err != nil {
		return 0, err
	}
	l := sequence.Log{Lanes: lanes, Floor: t.keys.floor(), Under: t.keys.log()}
	for b, err := range sequence.NewKeyReader(t.client, l).Read(ctx, cur.position()) {
		if err != nil {
			return 0, err
		}
		for _, e := range b.Entries {
			if endOf(e).Compare(cur.After) > 0 {
				return min(e.Revision-1, now), nil
			}
		}
		if b.Position.Revision >= now {
			break
		}
	}
	return now, nil
}

// note is what a record's key tells of the record: messages, bytes, and the index
// of the last message in its commit.
func note(messages, bytes int, last uint64) string {
	return fmt.Sprintf("%x-%x-%x", messages, bytes, last)
}

func readNote(note string) (messages, bytes int64, last uint64) {
	parts := append(strings.Split(note, "-"), "", "", "")
	messages, _ = strconv.ParseInt(parts[0], 16, 64)
	bytes, _ = strconv.ParseInt(parts[1], 16, 64)
	last, _ = strconv.ParseUint(parts[2], 16, 64)
	return messages, bytes, last
}

// endOf returns the offset of a record's last message, by its key.
func endOf(e sequence.Entry) Offset {
	_, _, last := readNote(e.Note)
	return Offset{Revision: e.Revision, Index: e.ID.Count + last}
}
