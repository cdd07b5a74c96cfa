package pubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

const (
	// MessageBytesMax bounds a message: value, key and headers as they are stored.
	MessageBytesMax = 1 << 20
	// publishTimeout bounds a Publish whose context has no deadline.
	publishTimeout = 10 * time.Second
	// reseedsMax bounds how often an id is made anew because the floor has passed
	// it: each answer tells a newer revision, so once should do.
	reseedsMax = 16
)

// PublishOption is an option of Publish, PublishTx and Publisher.Publish.
type PublishOption func(*publication)

// publication is what the options of a message make.
type publication struct {
	key    string
	keyed  bool
	header Header
	dedup  string
}

// Key sets the message's key. Without, it is what WithKey says.
func Key(key string) PublishOption {
	return func(p *publication) { p.key, p.keyed = key, true }
}

// WithHeader adds a header.
func WithHeader(name, value string) PublishOption {
	return func(p *publication) {
		if p.header == nil {
			p.header = Header{}
		}
		p.header[name] = value
	}
}

// DedupID names the message: another one with the same name is not published within
// the topic's dedup window, 2 minutes unless WithDedupWindow says otherwise.
func DedupID(id string) PublishOption { return func(p *publication) { p.dedup = id } }

// draft makes a message of a value.
func (t *Topic[T]) draft(v T, opts []PublishOption) (*draft, publication, error) {
	var p publication
	for _, o := range opts {
		o(&p)
	}
	if !p.keyed && t.keyOf != nil {
		p.key = t.keyOf(v)
	}
	b, err := t.codec.Encode(v)
	if err != nil {
		return nil, p, fmt.Errorf("encode message: %w", err)
	}
	d := &draft{key: p.key, header: p.header, payload: b}
	if d.bytes() > MessageBytesMax {
		return nil, p, fmt.Errorf("%d bytes: %w", d.bytes(), ErrTooLarge)
	}
	d.partition = -1
	if p.key != "" {
		d.partition = t.partitionOf(p.key)
	}
	return d, p, nil
}

// Publish publishes a message and returns its offset, once it is on the disks of
// most members. It is published once: an answer that is lost is resolved, by asking
// again until ctx ends. A ctx without a deadline is bounded by 10 s.
//
// Errors: [ErrDuplicate]; [ErrTooLarge]; [ErrNoTopic]; client.ErrUncertain when ctx
// ended before it was known; and those of the client: then it was not published.
func (t *Topic[T]) Publish(ctx context.Context, v T, opts ...PublishOption) (Offset, error) {
	d, p, err := t.draft(v, opts)
	var at Offset
	if err == nil {
		at, err = t.topic.publish(ctx, d, p.dedup)
	}
	if err != nil {
		return Offset{}, fmt.Errorf("publish to topic %q: %w", t.name, err)
	}
	return at, nil
}

// publish commits one message.
func (t *topic) publish(ctx context.Context, d *draft, dedup string) (Offset, error) {
	if d.partition < 0 {
		d.partition = t.anyPartition()
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, publishTimeout)
		defer cancel()
	}
	w := newWrite([]*draft{d}, time.Now().UnixMilli())
	w.dedup = dedup
	at, err := t.write(ctx, w)
	if err == nil {
		t.trimmer.published(ctx, 1, w.bytes)
	}
	return at, err
}

// PublishTx stages a message in a transaction of [client.Client.Update]: it is
// published if and when the transaction commits, at its revision. Staged messages
// cost two conditions and an operation each, of which a server takes 128 by default.
//
// Errors: [ErrDuplicate], with a read of the transaction; [ErrTooLarge]; and those
// of the codec and of reads. A duplicate leaves the transaction as it was; the
// others make it fail if fn overlooks them.
func (t *Topic[T]) PublishTx(tx *client.Tx, v T, opts ...PublishOption) error {
	d, p, err := t.draft(v, opts)
	if err == nil {
		err = t.topic.publishTx(tx, d, p.dedup)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("publish to topic %q: %w", t.name, err)
	if !errors.Is(err, ErrDuplicate) {
		tx.BeforeCommit(func() error { return err })
	}
	return err
}

func (t *topic) publishTx(tx *client.Tx, d *draft, dedup string) error {
	if d.partition < 0 {
		d.partition = t.anyPartition()
	}
	in := tx.In(t.client)
	w := newWrite([]*draft{d}, time.Now().UnixMilli())
	id := t.mint.Next(t.client.Seen(), w.messages)
	if dedup != "" {
		key := t.keys.dedup(dedupHash(dedup))
		kv, err := in.Get(key)
		if err == nil {
			return duplicate(dedup, kv)
		}
		if !errors.Is(err, client.ErrNotFound) {
			return err
		}
		lease, err := t.dedup.lease(tx.Context())
		if err != nil {
			return err
		}
		in.Put(key, []byte(id.String()), client.WithLease(lease))
	}
	r := w.records[0]
	key := sequence.Key(t.keys.lane(r.partition), id, r.note)
	in.If(client.Value(t.keys.floor()).Less([]byte(id.String())), client.Missing(key))
	in.Put(key, r.value)
	tx.AfterCommit(func(client.Revision) { t.trimmer.published(tx.Context(), w.messages, w.bytes) })
	return nil
}

// write is one commit to the log: a record for each partition that it has messages
// for, under the same id.
type write struct {
	records  []record
	messages int
	bytes    int
	dedup    string // only with one message
}

// record is the part of a write that goes to one partition.
type record struct {
	partition int
	note      string
	value     []byte
}

// newWrite makes records of messages, whose order is that of their offsets.
func newWrite(drafts []*draft, ms int64) *write {
	w := &write{messages: len(drafts)}
	var order []int
	parts := make(map[int][]*draft, 1)
	for i, d := range drafts {
		d.index = uint64(i)
		if parts[d.partition] == nil {
			order = append(order, d.partition)
		}
		parts[d.partition] = append(parts[d.partition], d)
	}
	for _, p := range order {
		value := encodeRecord(parts[p], ms)
		w.bytes += len(value)
		last := parts[p][len(parts[p])-1].index
		w.records = append(w.records, record{partition: p, note: note(len(parts[p]), len(value), last), value: value})
	}
	return w
}

// write commits records and returns the offset of the first message.
//
// The same transaction is sent until its outcome is known: its conditions, that the
// floor is below the id and that the keys are new, let it be executed once only. A
// record is deleted only below the floor, so that late repetitions can not bring it
// back.
func (t *topic) write(ctx context.Context, w *write) (Offset, error) {
	var uncertain error
	id := t.mint.Next(t.client.Seen(), w.messages)
	for n, reseeds := 0, 0; ; n++ {
		res, err := t.send(ctx, w, id)
		switch {
		case err == nil && res.Succeeded:
			return Offset{Revision: res.Revision, Index: id.Count}, nil
		case err == nil:
			at, err := t.refused(res, w, id, uncertain)
			if !errors.Is(err, errReseed) {
				return at, err
			}
			if reseeds++; reseeds > reseedsMax {
				return Offset{}, fmt.Errorf("the floor passed %d ids: %w", reseeds, client.ErrConflict)
			}
			id = t.mint.Next(t.client.Seen(), w.messages)
		case errors.Is(err, client.ErrLeaseNotFound) && w.dedup != "" && uncertain == nil && n < reseedsMax:
			t.dedup.forget()
		case errors.Is(err, client.ErrUncertain):
			if uncertain = err; !retry.Backoff(ctx, n) {
				return Offset{}, err
			}
		case uncertain != nil: // what this attempt says does not tell of the one before
			if !retry.Backoff(ctx, n) {
				return Offset{}, uncertain
			}
		default:
			return Offset{}, err
		}
	}
}

// errReseed: the id was refused, and another may not be.
var errReseed = errors.New("id is below the floor")

// send commits a write under an id.
func (t *topic) send(ctx context.Context, w *write, id sequence.ID) (*client.TxnResult, error) {
	txn := t.client.Txn()
	for i, r := range w.records {
		compares, put := t.log.Append(t.keys.lane(r.partition), id, r.note, r.value)
		if i > 0 {
			compares = compares[1:] // the floor is the same for all
		}
		txn.If(compares...).Then(put)
	}
	first := w.records[0]
	txn.Else(
		client.OpGet(t.keys.floor()),
		client.OpGet(sequence.Key(t.keys.lane(first.partition), id, first.note), client.KeysOnly()),
	)
	if w.dedup != "" {
		lease, err := t.dedup.lease(ctx)
		if err != nil {
			return nil, err
		}
		key := t.keys.dedup(dedupHash(w.dedup))
		txn.If(client.Missing(key)).Then(client.OpPut(key, []byte(id.String()), client.WithLease(lease)))
		txn.Else(client.OpGet(key))
	}
	return txn.Commit(ctx)
}

// refused tells why a write was not executed: perhaps because it was before.
func (t *topic) refused(res *client.TxnResult, w *write, id sequence.ID, uncertain error) (Offset, error) {
	floor, key := res.Results[0].Get.KVs, res.Results[1].Get.KVs
	switch {
	case len(key) > 0 && uncertain != nil:
		return Offset{Revision: key[0].CreateRevision, Index: id.Count}, nil
	case len(floor) == 0:
		return Offset{}, errors.Join(ErrNoTopic, uncertain)
	}
	if w.dedup != "" && len(res.Results[2].Get.KVs) > 0 {
		kv := res.Results[2].Get.KVs[0]
		if string(kv.Value) == id.String() {
			return Offset{Revision: kv.CreateRevision, Index: id.Count}, nil
		}
		return Offset{}, duplicate(w.dedup, kv)
	}
	if uncertain != nil {
		// It may have been executed, and trimmed since.
		return Offset{}, uncertain
	}
	return Offset{}, errReseed
}
