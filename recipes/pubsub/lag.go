package pubsub

import (
	"context"
	"fmt"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

// Lag tells how far a group is behind its topic.
type Lag struct {
	// Messages is how many messages of the topic's are behind the cursors. Those
	// that are being handled, or were handled and not stored yet, are among them.
	Messages   int64
	Partitions []PartitionLag
}

// PartitionLag is the part of one partition.
type PartitionLag struct {
	Partition int
	Owner     string // the member that has it, or empty
	After     Offset // all messages up to it are handled
	Messages  int64
}

// Lag counts the messages that the group has not handled. It reads their keys, not
// the messages. [ErrNoTopic] when there is no such group.
func (g *group) Lag(ctx context.Context) (Lag, error) {
	out, err := g.lag(ctx)
	if err != nil {
		return Lag{}, fmt.Errorf("lag of group %q of topic %q: %w", g.name, g.topic.name, err)
	}
	return out, nil
}

func (g *group) lag(ctx context.Context) (Lag, error) {
	if g.err != nil {
		return Lag{}, g.err
	}
	first, end := g.keys.live()
	res, err := g.topic.client.Txn().Then(
		client.OpGet(g.keys.cursors(), client.Prefix()), client.OpGet(first, client.Range(end)),
	).Commit(ctx)
	if err != nil {
		return Lag{}, err
	}
	cursors := res.Results[0].Get.KVs
	if len(cursors) != g.topic.partitions {
		return Lag{}, ErrNoTopic
	}
	live := make(map[string]client.KV)
	for _, kv := range res.Results[1].Get.KVs {
		live[kv.Key] = kv
	}
	owners := g.roster(live).owners
	var out Lag
	for p, kv := range cursors {
		cur, err := parseCursor(kv.Value)
		if err != nil {
			return Lag{}, err
		}
		n, err := g.topic.countAfter(ctx, p, cur, res.Revision)
		if err != nil {
			return Lag{}, err
		}
		out.Messages += n
		out.Partitions = append(out.Partitions, PartitionLag{
			Partition: p, Owner: owners[p].member, After: cur.After, Messages: n,
		})
	}
	return out, nil
}

// countAfter counts the messages of a partition that a cursor has not handled, up
// to a revision. A record that is handled in part counts as a whole, less what the
// cursor says.
func (t *topic) countAfter(ctx context.Context, p int, cur cursor, until client.Revision) (int64, error) {
	n := -int64(len(cur.Acked))
	for b, err := range sequence.NewKeyReader(t.client, t.keys.one(p)).Read(ctx, cur.position()) {
		if err != nil {
			return 0, feedError(err)
		}
		for _, e := range b.Entries {
			if e.Revision > until || endOf(e).Compare(cur.After) <= 0 {
				continue
			}
			messages, _, last := readNote(e.Note)
			if e.Revision == cur.After.Revision {
				// Exact as long as the commit was to this partition alone.
				messages = min(messages, int64(e.ID.Count+last-cur.After.Index))
			}
			n += messages
		}
		if b.Position.Revision >= until {
			break
		}
	}
	return max(n, 0), nil
}
