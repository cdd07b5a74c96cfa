package sequence

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
)

// floor is the floor as it was at one revision.
type floor struct {
	bound   string
	written client.Revision // when it was raised to that
	now     client.Revision // when it was read
}

// source is where a reader reads a log: the store, or a test's.
type source interface {
	// floor reads the floor; ErrMissing when there is none.
	floor(ctx context.Context) (floor, error)
	// pages reads windows of the log as it was at a revision.
	pages(ctx context.Context, at client.Revision, windows []window) ([]page, error)
	// values reads the values of entries as they were at a revision.
	values(ctx context.Context, at client.Revision, entries []Entry) ([][]byte, error)
	// watch yields what happens to entries and floor from a revision on.
	watch(ctx context.Context, from client.Revision) iter.Seq2[client.WatchBatch, error]
}

// store is the source that a client reads.
type store struct {
	client   *client.Client
	log      Log
	keysOnly bool
}

func (s store) floor(ctx context.Context) (floor, error) {
	if s.log.Floor == "" {
		res, err := s.client.Get(ctx, s.log.Under, client.CountOnly())
		if err != nil {
			return floor{}, err
		}
		return floor{now: res.Revision}, nil
	}
	res, err := s.client.Get(ctx, s.log.Floor)
	if err != nil {
		return floor{}, err
	}
	if len(res.KVs) == 0 {
		return floor{}, fmt.Errorf("read floor %q: %w", s.log.Floor, ErrMissing)
	}
	kv := res.KVs[0]
	return floor{bound: string(kv.Value), written: kv.ModRevision, now: res.Revision}, nil
}

func (s store) pages(ctx context.Context, at client.Revision, windows []window) ([]page, error) {
	gets := make([]client.Op, len(windows))
	for i, w := range windows {
		lane := s.log.Lanes[w.lane]
		opts := []client.GetOption{client.Range(lane + w.end), client.AtRevision(at), client.Limit(w.limit)}
		if s.keysOnly {
			opts = append(opts, client.KeysOnly())
		}
		gets[i] = client.OpGet(lane+w.first, opts...)
	}
	results, err := s.read(ctx, gets)
	if err != nil {
		return nil, err
	}
	out := make([]page, len(results))
	for i, res := range results {
		out[i].more = res.Get.More
		for _, kv := range res.Get.KVs {
			if e, ok := s.log.entry(windows[i].lane, kv); ok {
				out[i].entries = append(out[i].entries, e)
			}
		}
	}
	return out, nil
}

func (s store) values(ctx context.Context, at client.Revision, entries []Entry) ([][]byte, error) {
	gets := make([]client.Op, len(entries))
	for i, e := range entries {
		gets[i] = client.OpGet(Key(s.log.Lanes[e.Lane], e.ID, e.Note), client.AtRevision(at))
	}
	results, err := s.read(ctx, gets)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(results))
	for i, res := range results {
		if len(res.Get.KVs) == 0 {
			return nil, fmt.Errorf("entry %s is not where it was at revision %d", entries[i].ID, at)
		}
		out[i] = res.Get.KVs[0].Value
	}
	return out, nil
}

// read executes reads, in transactions of as many as a server takes.
func (s store) read(ctx context.Context, gets []client.Op) ([]client.OpResult, error) {
	var out []client.OpResult
	for len(gets) > 0 {
		n := min(len(gets), readsMax)
		res, err := s.client.Txn().Then(gets[:n]...).Commit(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, res.Results...)
		gets = gets[n:]
	}
	return out, nil
}

func (s store) watch(ctx context.Context, from client.Revision) iter.Seq2[client.WatchBatch, error] {
	return s.client.WatchBatches(ctx, s.log.Under, client.Prefix(), client.FromRevision(from), client.WithProgress())
}

// entry makes an entry of a key below a lane; ok is false for a key that is none.
func (l Log) entry(lane int, kv client.KV) (e Entry, ok bool) {
	id, note, ok := splitKey(strings.TrimPrefix(kv.Key, l.Lanes[lane]))
	return Entry{Lane: lane, ID: id, Note: note, Value: kv.Value, Revision: kv.CreateRevision}, ok
}

// splitKey reads a key without its lane.
func splitKey(key string) (id ID, note string, ok bool) {
	text, note, noted := key, "", false
	if len(key) > idLength {
		text, note = key[:idLength], key[idLength:]
		note, noted = strings.CutPrefix(note, noteMark)
		if !noted {
			return ID{}, "", false
		}
	}
	id, err := ParseID(text)
	return id, note, err == nil
}

// lane returns the lane of a key; -1 when it stands in none.
func (l *Log) lane(key string) int {
	for i, prefix := range l.Lanes {
		if strings.HasPrefix(key, prefix) {
			return i
		}
	}
	if l.Found == nil {
		return -1
	}
	lane := l.Found(key)
	if lane == "" {
		return -1
	}
	l.Lanes = append(slices.Clip(l.Lanes), lane)
	return len(l.Lanes) - 1
}
