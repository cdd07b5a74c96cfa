package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue/internal/shard"
)

const (
	listPage    = 128
	cancelKept  = 30 * time.Second // for how long workers can learn of a cancellation
	purgePerTxn = 60
	statsMax    = 8 // counts that are begun before one comes to its end
)

// State is where a job is.
type State string

// The states of a job.
const (
	Ready   State = "ready"
	Delayed State = "delayed" // waits for its time, be it scheduled or after a failure
	Running State = "running" // claimed by a worker: it runs, or is next to
	Dead    State = "dead"
)

// Info is a job as it stands in the store.
type Info struct {
	ID        ID
	State     State
	Payload   []byte
	Messages  int // more than 1 for a chunk of a Producer, which is listed as one
	Attempts  int // that have failed
	Crashes   int
	Enqueued  time.Time
	Due       time.Time // of a delayed job
	Group     string
	Priority  int
	Header    map[string]string
	LastError string
	Worker    string // that has claimed it

	key    string
	create client.Revision
	unique string
}

func infoOf(kv client.KV, claims map[string]claimed, now int64) Info {
	it, err := shard.DecodeItem(kvOf(kv))
	in := Info{
		ID: ID(it.Job), State: Ready, Payload: it.Payload, Messages: max(1, it.Chunk), Attempts: it.Failures, Crashes: it.Crashes,
		Enqueued: time.UnixMilli(it.Enqueued), Group: it.Group, Priority: it.Lane, Header: it.Header, LastError: it.LastError,
		key: kv.Key, create: kv.CreateRevision, unique: it.Unique,
	}
	if err != nil {
		in.LastError = err.Error()
	}
	if due := shard.DueTime(kv.Key); due > 0 {
		in.Due = time.UnixMilli(due)
		if due > now {
			in.State = Delayed
		}
	}
	if c, ok := claims[kv.Key]; ok && c.entry.Create == int64(kv.CreateRevision) {
		in.State, in.Worker = Running, c.worker
		in.Attempts, in.Crashes = in.Attempts+c.entry.Failures, in.Crashes+c.entry.Crashes
	}
	return in
}

type claimed struct {
	worker string
	entry  shard.Entry
}

// claims reads all journals.
func (q *core) claims(ctx context.Context, rev client.Revision) (map[string]claimed, client.Revision, error) {
	out := make(map[string]claimed)
	for kv, err := range q.pages(ctx, shard.ClaimPrefix, &rev) {
		if err != nil {
			return nil, 0, err
		}
		entries, err := shard.DecodeJournal(kv.Value)
		if err != nil {
			return nil, 0, fmt.Errorf("journal %q: %w", kv.Key, err)
		}
		for _, e := range entries {
			out[e.Key] = claimed{worker: shard.Record(kv.Key), entry: e}
		}
	}
	return out, rev, nil
}

// pages yields the keys below a prefix, page by page, all of one revision, which
// is set by the first page if it is zero.
func (q *core) pages(ctx context.Context, prefix string, rev *client.Revision) iter.Seq2[client.KV, error] {
	return func(yield func(client.KV, error) bool) {
		end := shard.PrefixEnd(prefix)
		for from := prefix; ; {
			res, err := q.client.Get(ctx, from, client.Range(end), client.Limit(listPage), client.AtRevision(*rev))
			if err != nil {
				yield(client.KV{}, err)
				return
			}
			if *rev == 0 {
				*rev = res.Revision
			}
			for _, kv := range res.KVs {
				if !yield(kv, nil) {
					return
				}
			}
			if !res.More {
				return
			}
			from = res.KVs[len(res.KVs)-1].Key + "\x00"
		}
	}
}

// Filter chooses jobs. The zero value chooses all that are in the queue.
type Filter struct {
	State State  // empty for any but dead
	Group string // empty for any
	Limit int    // of what is yielded; 0 for no limit
}

func (f Filter) match(in *Info) bool {
	return (f.State == "" || f.State == in.State) && (f.Group == "" || f.Group == in.Group)
}

// Items yields the jobs in the queue, read page by page at one revision: shard by
// shard, the delayed ones of each behind the others. An error ends it, as
// [client.ErrCompacted] does when the loop takes longer than the history lasts.
func (q *core) Items(ctx context.Context, f Filter) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		claims, rev, err := q.claims(ctx, 0)
		if err != nil {
			yield(Info{}, err)
			return
		}
		n, now := 0, time.Now().UnixMilli()
		for kv, err := range q.pages(ctx, shard.ItemPrefix, &rev) {
			if err != nil {
				yield(Info{}, fmt.Errorf("list queue %q: %w", q.name, err))
				return
			}
			in := infoOf(kv, claims, now)
			if !f.match(&in) {
				continue
			}
			if !yield(in, nil) {
				return
			}
			if n++; f.Limit > 0 && n >= f.Limit {
				return
			}
		}
	}
}

// find returns the key of a job that is in the queue.
func (q *core) find(ctx context.Context, id ID) (client.KV, error) {
	n, lane, record, ok := shard.ParseJobID(string(id))
	if !ok {
		return client.KV{}, fmt.Errorf("%w: %q is no job's id", ErrNotFound, id)
	}
	kv, err := q.client.GetOne(ctx, shard.ItemKey(n, lane, record))
	if !errors.Is(err, client.ErrNotFound) {
		return kv, err
	}
	chunk, _, _ := strings.Cut(record, ".")
	if chunk != record { // it may still be in its chunk
		if kv, err := q.client.GetOne(ctx, shard.ItemKey(n, lane, chunk)); err == nil {
			return kv, nil
		}
	}
	// One that was delayed or retried stands where its time is, which the id does
	// not tell.
	var rev client.Revision
	for kv, err := range q.pages(ctx, shard.DueOf(n), &rev) {
		if err != nil {
			return client.KV{}, err
		}
		if shard.Record(kv.Key) == record {
			return kv, nil
		}
	}
	return client.KV{}, ErrNotFound
}

// Get returns a job that is in the queue, or [ErrNotFound]. It reads all delayed jobs
// of a shard if the job is one of them, or is not there.
func (q *core) Get(ctx context.Context, id ID) (Info, error) {
	kv, err := q.find(ctx, id)
	if err != nil {
		return Info{}, fmt.Errorf("get job %s: %w", id, err)
	}
	claims, _, err := q.claims(ctx, 0)
	if err != nil {
		return Info{}, fmt.Errorf("get job %s: %w", id, err)
	}
	return infoOf(kv, claims, time.Now().UnixMilli()), nil
}

// Cancel removes a job from the queue. If it runs, the context of its handler ends
// with [ErrCancelled], and nothing that it ends with is executed. A message that is
// still in a Producer's chunk can not be cancelled alone: [ErrNotFound].
func (q *core) Cancel(ctx context.Context, id ID) error {
	for {
		kv, err := q.find(ctx, id)
		if err != nil {
			return fmt.Errorf("cancel job %s: %w", id, err)
		}
		it, err := shard.DecodeItem(kvOf(kv))
		if err != nil || it.Job != string(id) {
			return fmt.Errorf("cancel job %s: %w", id, ErrNotFound)
		}
		lease, err := q.leases.get(ctx, cancelKept)
		if err != nil {
			return fmt.Errorf("cancel job %s: %w", id, err)
		}
		ops := []client.Op{client.OpDelete(kv.Key), client.OpPut(shard.CancelKey(string(id)), nil, client.WithLease(lease))}
		if it.Unique != "" {
			ops = append(ops, freeUnique(it.Unique, id))
		}
		res, err := q.client.Txn().If(client.CreateRevision(kv.Key).Equal(kv.CreateRevision)).Then(ops...).Commit(ctx)
		if err != nil {
			return fmt.Errorf("cancel job %s: %w", id, err)
		}
		if res.Succeeded {
			return nil
		}
		// It has moved or ended meanwhile.
	}
}

// freeUnique deletes a unique key if it is the job's.
func freeUnique(hash string, id ID) client.Op {
	key := shard.UniqueKey(hash)
	return client.OpTxn([]client.Compare{client.Value(key).Equal([]byte(id))}, []client.Op{client.OpDelete(key)}, nil)
}

// Pause stops the queue: after Pause has returned, no job is claimed or started
// until Resume; those that run go on. Enqueuing is not affected.
func (q *core) Pause(ctx context.Context) error {
	_, err := q.client.Put(ctx, shard.PauseKey, []byte(time.Now().UTC().Format(time.RFC3339)))
	return q.wrap("pause", err)
}

// Resume ends a pause.
func (q *core) Resume(ctx context.Context) error {
	_, err := q.client.Delete(ctx, shard.PauseKey)
	return q.wrap("resume", err)
}

func (q *core) wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s queue %q: %w", what, q.name, err)
	}
	return nil
}

// Purge deletes jobs, in steps, and returns how many. Running ones are left alone
// unless the filter asks for them. Dead letters have their own, see [Queue.Dead].
// It goes on over compactions, so it may take what comes meanwhile as well.
func (q *core) Purge(ctx context.Context, f Filter) (n int, err error) {
	for limit := f.Limit; ; f.Limit = limit - n {
		var done int
		done, err = q.purgePass(ctx, f)
		n += done
		if !errors.Is(err, client.ErrCompacted) || limit > 0 && n >= limit {
			break
		}
	}
	if err == nil {
		// Workers read again what they know of the queue.
		_, err = q.client.Put(ctx, shard.PurgeKey, nil)
	}
	return n, q.wrap("purge", err)
}

// purgePass deletes what there is at one revision.
func (q *core) purgePass(ctx context.Context, f Filter) (n int, err error) {
	var batch []Info
	flush := func() error {
		done, err := q.purge(ctx, batch)
		n, batch = n+done, nil
		return err
	}
	for in, err := range q.Items(ctx, f) {
		if err != nil {
			return n, err
		}
		if in.State == Running && f.State != Running {
			continue
		}
		if batch = append(batch, in); len(batch) == purgePerTxn {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	return n, flush()
}

func (q *core) purge(ctx context.Context, batch []Info) (n int, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	var ops []client.Op
	for _, in := range batch {
		gone := []client.Op{client.OpDelete(in.key)}
		if in.unique != "" {
			gone = append(gone, freeUnique(in.unique, in.ID))
		}
		ops = append(ops, client.OpTxn([]client.Compare{client.CreateRevision(in.key).Equal(in.create)}, gone, nil))
	}
	res, err := q.client.Txn().Then(ops...).Commit(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range res.Results {
		if r.Txn.Succeeded {
			n++
		}
	}
	return n, nil
}

// Worker is a member of the queue's fleet.
type Worker struct {
	ID          string
	Host        string
	PID         int
	Concurrency int
	Since       time.Time
	Shards      int // that it has
}

// Stats are counts of a queue at one revision, except that the counts are read
// one after the other.
type Stats struct {
	Ready, Delayed, Running, Dead int
	Paused                        bool
	Shards                        int
	Priorities                    int
	Workers                       []Worker
	// Oldest is when the oldest job that nobody has claimed was enqueued, among the
	// first of each shard; zero if there is none.
	Oldest time.Time
}

// Stats counts the jobs. It reads the counts of the store, not the jobs, and all
// claims; delayed jobs that are due count as delayed. When history is compacted
// meanwhile it counts anew, a few times.
func (q *core) Stats(ctx context.Context) (st Stats, err error) {
	for range statsMax {
		if st, err = q.stats(ctx); !errors.Is(err, client.ErrCompacted) {
			break
		}
	}
	return st, q.wrap("stats of", err)
}

func (q *core) stats(ctx context.Context) (st Stats, err error) {
	conf, err := q.load(ctx)
	if err != nil {
		return st, err
	}
	st.Shards, st.Priorities = conf.Shards, conf.Lanes
	claims, rev, err := q.claims(ctx, 0)
	if err != nil {
		return st, err
	}
	for _, n := range conf.all() {
		items, err := q.count(ctx, shard.ItemsOf(n), rev)
		if err != nil {
			return st, err
		}
		due, err := q.count(ctx, shard.DueOf(n), rev)
		if err != nil {
			return st, err
		}
		st.Ready, st.Delayed = st.Ready+items-due, st.Delayed+due
		if err := q.oldest(ctx, n, conf.Lanes, rev, claims, &st); err != nil {
			return st, err
		}
	}
	if err := q.running(ctx, claims, rev, &st); err != nil {
		return st, err
	}
	if st.Dead, err = q.count(ctx, shard.DeadPrefix, rev); err != nil {
		return st, err
	}
	return st, q.fleetStats(ctx, rev, &st)
}

func (q *core) count(ctx context.Context, prefix string, rev client.Revision) (int, error) {
	res, err := q.client.Get(ctx, prefix, client.Prefix(), client.CountOnly(), client.AtRevision(rev))
	if err != nil {
		return 0, err
	}
	return int(res.Count), nil
}

// oldest looks at the first job of each lane that is not claimed.
func (q *core) oldest(ctx context.Context, n, lanes int, rev client.Revision, claims map[string]claimed, st *Stats) error {
	for lane := range lanes {
		res, err := q.client.Get(ctx, shard.LaneOf(n, lane), client.Prefix(), client.Limit(4), client.AtRevision(rev))
		if err != nil {
			return err
		}
		for _, kv := range res.KVs {
			if _, ok := claims[kv.Key]; ok {
				continue
			}
			it, err := shard.DecodeItem(kvOf(kv))
			if at := time.UnixMilli(it.Enqueued); err == nil && (st.Oldest.IsZero() || at.Before(st.Oldest)) {
				st.Oldest = at
			}
			break
		}
	}
	return nil
}

// running counts the claims whose items are there: those that have ended may
// still stand in a journal.
func (q *core) running(ctx context.Context, claims map[string]claimed, rev client.Revision, st *Stats) error {
	var ops []client.Op
	var creates []int64
	var due []bool
	flush := func() error {
		if len(ops) == 0 {
			return nil
		}
		res, err := q.client.Txn().Then(ops...).Commit(ctx)
		if err != nil {
			return err
		}
		for i, r := range res.Results {
			if len(r.Get.KVs) == 0 || int64(r.Get.KVs[0].CreateRevision) != creates[i] {
				continue
			}
			st.Running++
			if due[i] {
				st.Delayed--
			} else {
				st.Ready--
			}
		}
		ops, creates, due = nil, nil, nil
		return nil
	}
	for key, c := range claims {
		ops = append(ops, client.OpGet(key, client.KeysOnly(), client.AtRevision(rev)))
		creates, due = append(creates, c.entry.Create), append(due, shard.DueTime(key) > 0)
		if len(ops) == purgePerTxn {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (q *core) fleetStats(ctx context.Context, rev client.Revision, st *Stats) error {
	owned := make(map[string]int)
	for kv, err := range q.pages(ctx, shard.ManagePrefix, &rev) {
		switch {
		case err != nil:
			return err
		case kv.Key == shard.PauseKey:
			st.Paused = true
		case strings.HasPrefix(kv.Key, shard.TokenPrefix):
			owned[shard.ParseToken(kvOf(kv)).Worker]++
		case strings.HasPrefix(kv.Key, shard.WorkerPrefix):
			var b badge
			_ = json.Unmarshal(kv.Value, &b) // only for people to read
			st.Workers = append(st.Workers, Worker{
				ID: shard.Record(kv.Key), Host: b.Host, PID: b.PID, Concurrency: b.Concurrency, Since: b.Since,
			})
		}
	}
	for i := range st.Workers {
		st.Workers[i].Shards = owned[st.Workers[i].ID]
	}
	return nil
}
