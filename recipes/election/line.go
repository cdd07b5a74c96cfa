package election

import (
	"context"
	"errors"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/fence"
	"github.com/latchkey-go/latchkey/recipes/internal/contender"
)

// besideMax bounds the keys beside the candidates that are read at once: their
// records, and requests. Of more candidates, some are overlooked by those who
// look for one to pass their turn to.
const besideMax = 10_000

// errPassed ends a candidacy whose turn has come and was passed on.
var errPassed = errors.New("the turn was passed on")

// line is how a candidate waits for its turn, and judges then whether to take
// it: the rule of the roll, from the inside.
type line struct {
	claim  *contender.Claim
	keys   keys
	own    string // the last part of our key
	record record

	// Set when it is our turn, and we take it.
	revision client.Revision // at which we were found to lead
	named    bool            // by a hand-over: nobody preempts us
	requests []client.KV     // that were there already
}

// Reads reads the newest candidates before us, and what stands beside all of
// them.
func (l *line) Reads(token client.Revision) []client.Op {
	from, to := l.keys.beside()
	return []client.Op{contender.OpOlder(l.keys.candidates(), token), client.OpGet(from, to, client.Limit(besideMax))}
}

// Blocker returns the end of the candidate before us.
func (l *line) Blocker(ctx context.Context, v contender.View) (*contender.Wait, error) {
	older, err := l.claim.Older(ctx, l.keys.candidates(), v, v.Results[0].Get)
	if err != nil {
		return nil, err
	}
	if older != nil {
		return contender.End(older.Key), nil
	}
	return nil, l.take(ctx, v)
}

// take takes the turn, or returns errPassed if it is another's.
func (l *line) take(ctx context.Context, v contender.View) error {
	records, next := make(map[string]record), succession{}
	for _, kv := range v.Results[1].Get.KVs {
		if id, ok := l.keys.recordID(kv.Key); ok {
			records[id] = decodeRecord(kv.Value)
		} else if kv.Key == l.keys.next() {
			next = decodeSuccession(kv.Value)
		} else if strings.HasPrefix(kv.Key, l.keys.requests(fence.Token(v.Token))) {
			l.requests = append(l.requests, kv)
		}
	}
	l.revision = v.Revision
	if l.named = next.To == l.own && next.Term == fence.Token(v.Token); l.named {
		return nil
	}
	if next.To != "" && next.To != l.own {
		switch term, err := l.stands(ctx, next.To, v.Revision); {
		case err != nil:
			return err
		case term != 0 && term == next.Term:
			return errPassed
		}
	}
	for _, id := range rivals(records, l.record.Priority) {
		switch term, err := l.stands(ctx, id, v.Revision); {
		case err != nil:
			return err
		case term != 0:
			return errPassed
		}
	}
	return nil
}

// stands returns a candidate's term, zero for one that does not stand.
func (l *line) stands(ctx context.Context, id string, rev client.Revision) (fence.Token, error) {
	res, err := l.claim.Get(ctx, l.keys.candidate(id), client.AtRevision(rev), client.KeysOnly())
	if err != nil || len(res.KVs) == 0 {
		return 0, err
	}
	return fence.Token(res.KVs[0].CreateRevision), nil
}
