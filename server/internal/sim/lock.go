package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	lockPrefix  = "lock/"
	resourceKey = "resource"
	retryEvery  = 60 * time.Millisecond
)

// locker is a client of the lock recipe: a lease, a key under it, its turn when no older key is left, and writes that
// name the token. It renews its lease as long as it lives, which now and then it does not for too long.
type locker struct {
	s  *sim
	id int

	home     *node // that it talks to until it is disappointed
	round    int   // of begin; what was asked for in an earlier one does not count
	lease    int64
	key      string
	token    int64
	deadline time.Duration // of the client's trust in its lease
	paused   time.Duration // until then it does nothing
}

func isLock(key string) bool { return strings.HasPrefix(key, lockPrefix) }

func parseToken(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (l *locker) ttl() time.Duration { return time.Duration(l.s.TTL) * time.Second }

// then runs fn in this round, later, and not while the client is paused.
func (l *locker) then(d time.Duration, fn func()) {
	round := l.round
	l.s.after(d, func() {
		switch {
		case round != l.round:
		case l.paused > l.s.now:
			l.then(l.paused-l.s.now, fn)
		default:
			fn()
		}
	})
}

// call runs fn on some member until one answers. fn calls its argument with what is to be done at the client.
func (l *locker) call(fn func(n *node, reply func(func()))) {
	over, round, n := false, l.round, l.home
	l.s.ask(n, func() {
		fn(n, func(then func()) {
			l.s.answer(func() {
				if !over && round == l.round {
					over = true
					l.then(0, then)
				}
			})
		})
	})
	l.then(clientTimeout, func() {
		if !over && l.s.load {
			over, l.home = true, l.s.pick()
			l.call(fn)
		}
	})
}

// begin starts anew with a fresh lease.
func (l *locker) begin() {
	l.round++
	if !l.s.load {
		return
	}
	l.lease, l.token = 1+l.s.rng.Int64N(1<<62), 0
	l.key = fmt.Sprintf("%s%x", lockPrefix, l.lease)
	lease, sent := l.lease, l.s.now
	data := encode(state.KindLeaseGrant, &pb.LeaseGrantRequest{ID: lease, TTL: l.s.TTL})
	l.call(func(n *node, reply func(func())) {
		n.propose(data, 0, func(o outcome, r *state.Result) {
			if o != applied || r == nil {
				return
			}
			if r.Err == nil {
				l.s.truth.renewed(lease, sent)
			}
			reply(func() { // an error says that an earlier attempt has succeeded
				l.deadline = sent + l.ttl()
				if l.keepAlive() {
					l.enqueue()
				}
			})
		})
	})
}

// keepAlive renews the lease now and again, until the client can no longer trust in it and begins anew.
func (l *locker) keepAlive() bool {
	if !l.s.load { // all clients have gone
		l.round++
		return false
	}
	if l.s.now > l.deadline {
		l.home = l.s.pick()
		l.s.counts.LocksLost++
		l.begin()
		return false
	}
	if l.s.chance(l.s.LockerPauses * 0.2) {
		l.paused = l.s.now + l.s.around(l.ttl()*3/2)
	}
	round, lease, sent, n := l.round, l.lease, l.s.now, l.home
	l.s.ask(n, func() {
		n.renew(lease, sent, 2, func() {
			l.s.answer(func() {
				if round == l.round {
					l.deadline = max(l.deadline, sent+l.ttl())
				}
			})
		})
	})
	l.then(l.ttl()/5, func() { l.keepAlive() })
	return true
}

// enqueue creates the key. If it is there already, an earlier attempt did.
func (l *locker) enqueue() {
	key := []byte(l.key)
	create := &pb.Compare{
		Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0},
	}
	lease := l.lease
	l.call(func(n *node, reply func(func())) {
		// Each attempt writes a value of its own: two may succeed, when the first was undone in between.
		put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: key, Value: []byte(l.s.value()), Lease: lease},
		}}
		data := encode(state.KindTxn, &pb.TxnRequest{Compare: []*pb.Compare{create}, Success: []*pb.RequestOp{put}})
		n.propose(data, 0, func(o outcome, r *state.Result) {
			if o == applied && r != nil {
				reply(l.look)
			}
		})
	})
}

// lockQueue is the lock's keys, oldest first.
func lockQueue(view *state.View) []*mvccpb.KeyValue {
	resp, err := view.Range(&pb.RangeRequest{
		Key: []byte(lockPrefix), RangeEnd: []byte("lock0"),
		SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND,
	})
	if err != nil {
		panic(err)
	}
	return resp.GetKvs()
}

// look finds the client's place in the queue: holder, waiting for the one before it, or out of it.
func (l *locker) look() {
	l.call(func(n *node, reply func(func())) {
		n.read(func(r *reading) {
			kvs := lockQueue(r.view)
			revision := r.view.Revision()
			reply(func() {
				before := ""
				for _, kv := range kvs {
					if string(kv.GetKey()) == l.key {
						l.token = kv.GetCreateRevision()
						if before == "" {
							l.hold(revision)
						} else {
							l.wait(before)
						}
						return
					}
					before = string(kv.GetKey())
				}
				l.begin() // the lease has ended
			})
		})
	})
}

// wait waits until the key before is gone, on any member, and then looks again: by then its own may be gone, too.
func (l *locker) wait(before string) {
	l.call(func(n *node, reply func(func())) {
		view := n.mach.View()
		gone := view.Get(before) == nil
		reply(func() {
			switch {
			case !gone:
				l.then(retryEvery, func() { l.wait(before) })
			case l.s.Mutant.is(LockUnchecked):
				l.hold(view.Revision())
			default:
				l.look()
			}
		})
	})
}

// hold does what the lock is for, then gives it back or crashes.
func (l *locker) hold(revision int64) {
	l.s.truth.locked(l.id, l.key, l.token, revision)
	left := 1 + l.s.rng.IntN(4)
	var work func()
	work = func() {
		if left--; left < 0 {
			l.release()
			return
		}
		l.guardedWrite()
		l.then(l.s.around(ms(60)), work)
	}
	work()
}

// guardedWrite writes the token if the lock's key is still the one that it names.
func (l *locker) guardedWrite() {
	guard := &pb.Compare{
		Key: []byte(l.key), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_CreateRevision{CreateRevision: l.token},
	}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(resourceKey), Value: strconv.AppendInt(nil, l.token, 10)},
	}}
	data := encode(state.KindTxn, &pb.TxnRequest{Compare: []*pb.Compare{guard}, Success: []*pb.RequestOp{put}})
	n := l.home
	l.s.ask(n, func() {
		n.propose(data, 0, func(o outcome, r *state.Result) {
			if txn, ok := resultOf[*pb.TxnResponse](o, r); ok && txn.GetSucceeded() {
				l.s.counts.GuardedWrites++
			}
		})
	})
}

func (l *locker) release() {
	if l.s.chance(0.2) { // a crash: the lease ends by itself
		l.round++
		l.then(l.s.around(ms(200)), l.begin)
		return
	}
	data := encode(state.KindLeaseRevoke, &pb.LeaseRevokeRequest{ID: l.lease})
	l.call(func(n *node, reply func(func())) {
		n.propose(data, 0, func(o outcome, r *state.Result) {
			if o == applied {
				reply(func() {
					l.round++
					l.then(l.s.around(ms(50)), l.begin)
				})
			}
		})
	})
}

func resultOf[M any](o outcome, r *state.Result) (m M, ok bool) {
	if o != applied || r == nil || r.Err != nil {
		return m, false
	}
	m, ok = r.Response.(M)
	return m, ok
}
