package presence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/retry"
)

// settle makes the store hold what it is to hold, with the lease of the session.
// It returns nil as well when the session or the presence has ended, and an
// error when the key can no longer be kept.
func (p *Presence) settle(s *client.Session) error {
	for n := 0; p.ctx.Err() == nil && s.Err() == nil; {
		next := p.value
		if p.pending != nil {
			var err error
			if next, err = p.pending.next(p.value); err != nil {
				p.reply(err)
				continue
			}
		}
		switch settled, err := p.write(s, next); {
		case settled:
			p.set(next)
			p.live.Store(next != nil)
			if p.pending != nil {
				p.reply(nil)
			}
			return nil
		case err == nil: // somebody else was faster: look at what is there
		case errors.Is(err, ErrTaken):
			if err := p.taken(s, err); err != nil {
				return err
			}
		case errors.Is(err, client.ErrClosed):
			return err
		case errors.Is(err, client.ErrLeaseNotFound):
			p.await(s.Context()) // the session is about to learn of it
		case p.pending != nil && !retry.Temporary(err):
			first := p.value == nil && p.stored.ModRevision == 0
			p.reply(err)
			if first {
				return err
			}
		default:
			retry.Pause(p.ctx, n)
			n++
		}
	}
	return nil
}

// taken deals with a key that is somebody else's: who may wait waits until it is
// free, if he has never had it.
func (p *Presence) taken(s *client.Session, err error) error {
	var taken *TakenError
	if !p.cfg.Wait || p.value != nil || !errors.As(err, &taken) {
		if p.pending != nil {
			p.reply(err)
		}
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	defer context.AfterFunc(s.Context(), cancel)()
	for _, err := range p.cfg.Client.Watch(ctx, p.cfg.Key, client.FromRevision(taken.Revision+1), client.WithoutPuts()) {
		if err != nil {
			retry.Pause(ctx, 0) // look again; it may be gone, and compacted
		}
		break
	}
	return nil
}

// await waits until ctx or the presence ends.
func (p *Presence) await(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-p.ctx.Done():
	}
}

// write makes one attempt to have next in the store. settled says that it is
// there, or that nothing is there if next is nil. Otherwise, and without an error,
// stored and value have become what was found, and it is to be tried anew.
func (p *Presence) write(s *client.Session, next []byte) (settled bool, err error) {
	if next == nil && p.stored.ModRevision == 0 && !p.unsure {
		return true, nil
	}
	op := client.OpDelete(p.cfg.Key)
	if next != nil {
		if bytes.Equal(next, p.stored.Value) && p.stored.Lease == s.ID() {
			return true, nil
		}
		op = client.OpPut(p.cfg.Key, next, client.WithLease(s.ID()))
	}
	// Not with our own context: when it ends, the outcome must be known all the same.
	res, err := p.cfg.Client.Txn().
		If(client.ModRevision(p.cfg.Key).Equal(p.stored.ModRevision)).
		Then(op).
		Else(client.OpGet(p.cfg.Key)).
		Commit(s.Context())
	switch {
	case err != nil:
		if errors.Is(err, client.ErrUncertain) {
			p.unsure = true
			if p.stored.ModRevision == 0 {
				p.suspect = time.Now().Add(suspectFor)
			}
		}
		return false, err
	case !res.Succeeded:
		p.unsure, p.seen = false, res.Revision
		return p.found(s, res.Results[0].Get, next)
	}
	p.unsure, p.seen = false, res.Revision
	p.stored = client.KV{}
	if next != nil {
		p.stored = client.KV{Key: p.cfg.Key, Value: next, ModRevision: res.Revision, Lease: s.ID()}
	}
	return true, nil
}

// found takes over what is there instead of what we thought. It may be what an
// attempt of ours has written whose answer was lost.
func (p *Presence) found(s *client.Session, res *client.GetResult, next []byte) (settled bool, err error) {
	if len(res.KVs) == 0 {
		p.stored = client.KV{}
		return next == nil, nil
	}
	kv := res.KVs[0]
	if !p.cfg.Mine(kv.Value) {
		return false, &TakenError{KV: kv, Revision: p.seen}
	}
	p.stored = kv
	if next != nil && bytes.Equal(kv.Value, next) {
		return kv.Lease == s.ID(), nil
	}
	p.set(kv.Value) // others have edited it
	return false, nil
}

// set notes what is kept from now on.
func (p *Presence) set(value []byte) {
	if !bytes.Equal(value, p.value) {
		p.value = value
		p.cfg.Changed(value)
	}
}

// delete makes sure that the key is not there as ours; again and again until an
// answer comes or the session ends, which takes the key along.
func (p *Presence) delete(s *client.Session) error {
	for n := 0; ; n++ {
		settled, err := p.write(s, nil)
		switch {
		case settled, errors.Is(err, ErrTaken):
			return nil
		case s.Err() != nil:
			return fmt.Errorf("remove key %s: the session ended before an answer came: %w", p.cfg.Key, s.Err())
		case err != nil:
			retry.Pause(s.Context(), n)
		}
	}
}

// sweep removes the key again if a creation makes it that was given up, until
// none can arrive any more.
func (p *Presence) sweep(s *client.Session) {
	if !time.Now().Before(p.suspect) {
		return
	}
	ctx, cancel := context.WithDeadline(s.Context(), p.suspect)
	defer cancel()
	for n := 0; ctx.Err() == nil; n++ {
		res, err := p.cfg.Client.Get(ctx, p.cfg.Key)
		if err != nil {
			retry.Pause(ctx, n)
			continue
		}
		if len(res.KVs) > 0 && p.cfg.Mine(res.KVs[0].Value) {
			p.stored, p.seen = res.KVs[0], res.Revision
			_ = p.delete(s) // what stays behind ends with the session
			continue
		}
		for _, err := range p.cfg.Client.Watch(ctx, p.cfg.Key, client.FromRevision(res.Revision+1), client.WithoutDeletes()) {
			if err != nil {
				retry.Pause(ctx, n)
			}
			break
		}
	}
}
