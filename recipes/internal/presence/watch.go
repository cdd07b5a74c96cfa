package presence

import (
	"context"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// idle waits until there is something to settle: a change that is asked for, a
// key that others have touched, or the end of the session or of the presence.
func (p *Presence) idle(s *client.Session) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	defer context.AfterFunc(s.Context(), cancel)()
	var touched chan sighting // nil while the key is not to be there: what happens to it is not our business
	if p.stored.ModRevision != 0 {
		touched = make(chan sighting, 1)
		known := sighting{p.stored, p.seen}
		go func() { touched <- p.watch(ctx, known) }()
	}
	select {
	case p.pending = <-p.changes:
	case <-ctx.Done():
	case seen := <-touched:
		p.take(seen)
		return
	}
	if touched != nil {
		cancel()
		p.take(<-touched)
	}
}

// sighting is the key as it was at a revision.
type sighting struct {
	kv   client.KV // ModRevision zero when there was none
	seen client.Revision
}

// watch returns the key as it was found after somebody has touched it, or known
// if ctx ended first.
func (p *Presence) watch(ctx context.Context, known sighting) sighting {
	for ev, err := range p.cfg.Client.Watch(ctx, p.cfg.Key, client.FromRevision(known.seen+1)) {
		switch {
		case ctx.Err() != nil:
			return known
		case err != nil:
			return p.look(ctx, known)
		case ev.Type == client.EventDelete:
			return sighting{seen: ev.KV.ModRevision}
		default:
			return sighting{ev.KV, ev.KV.ModRevision}
		}
	}
	return known
}

// look reads the key, as its events can not be had.
func (p *Presence) look(ctx context.Context, known sighting) sighting {
	for n := 0; ; n++ {
		res, err := p.cfg.Client.Get(ctx, p.cfg.Key)
		switch {
		case err == nil && len(res.KVs) == 0:
			return sighting{seen: res.Revision}
		case err == nil:
			return sighting{res.KVs[0], res.Revision}
		case !retry.Pause(ctx, n):
			return known
		}
	}
}

// take takes over how the key was found.
func (p *Presence) take(found sighting) {
	p.seen = found.seen
	switch kv := found.kv; {
	case kv.ModRevision == p.stored.ModRevision:
	case kv.ModRevision == 0:
		p.stored = kv
		p.live.Store(false)
		if time.Since(p.healed) > healPause {
			p.heals = 0
		}
		if p.heals > 0 {
			retry.Pause(p.ctx, p.heals)
		}
		p.healed = time.Now()
		p.heals++
	case p.cfg.Mine(kv.Value):
		p.stored = kv
		p.set(kv.Value)
	default:
		p.live.Store(false)
		p.end(&TakenError{KV: kv, Revision: found.seen})
	}
}
