package shard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

type simWorker struct {
	*sim
	id       string
	up       bool
	leaving  bool
	shards   map[int]*Shard
	inUse    []int // as far as it has heard
	old      []int
	settings int64 // their revision
	jobs     []*simRun
}

type simRun struct {
	s    *Shard
	j    Job
	it   *Item
	tx   bool
	busy bool
}

func (x *sim) boot() *simWorker {
	x.born++
	w := &simWorker{sim: x, id: fmt.Sprintf("w%d", x.born), up: true, shards: make(map[int]*Shard)}
	x.txn(Txn{Then: []Op{put(WorkerKey(w.id), []byte("1"))}})
	return w
}

func (w *simWorker) shard(n int) *Shard {
	if w.shards[n] == nil {
		w.shards[n] = New(n, w.id, w.limits)
	}
	if w.leaving {
		w.shards[n].Drain()
	}
	w.shards[n].HoldGroups = len(w.old) > 0 && slices.Contains(w.inUse, n)
	return w.shards[n]
}

// hear learns of the configuration, sooner or later.
func (w *simWorker) hear() {
	if kv := w.m[ConfigKey]; kv.Mod != w.settings {
		w.settings, w.inUse, w.old = kv.Mod, slices.Clone(w.sim.shards), slices.Clone(w.sim.old)
	}
}

// leave ends a worker in order: it gives back what it has, then its shards, then
// its key.
func (w *simWorker) leave() bool {
	idle, owned := len(w.jobs) == 0, false
	for _, n := range slices.Sorted(maps.Keys(w.shards)) {
		s := w.shard(n)
		w.collect(s)
		w.pump(s)
		idle = idle && s.Idle()
		owned = owned || s.Owned()
	}
	switch {
	case !idle:
	case owned:
		for _, n := range slices.Sorted(maps.Keys(w.shards)) {
			w.shards[n].Release()
			w.pump(w.shards[n])
		}
	default:
		w.txn(Txn{Then: []Op{del(WorkerKey(w.id))}})
		return true
	}
	return false
}

func (w *simWorker) alive(worker string) bool { _, ok := w.m[WorkerKey(worker)]; return ok }

func (w *simWorker) step() {
	if !w.up {
		return
	}
	if w.settings == 0 || w.r.Intn(8) == 0 {
		w.hear()
	}
	known := append(slices.Clone(w.old), w.inUse...)
	s := w.shard(known[w.r.Intn(len(known))])
	switch w.r.Intn(5) {
	case 0:
		w.look(s)
	case 1:
		w.watch(s)
	case 2:
		w.start(s)
	default:
		w.finish()
	}
	w.collect(s)
	if w.up {
		w.pump(s)
	}
}

// look learns of tokens and sessions, and may take or steal the shard.
func (w *simWorker) look(s *Shard) {
	kv := w.m[TokenKey(s.N)]
	token := ParseToken(kv)
	if kv.Create == 0 {
		token.Mod = 0
	}
	if s.Owned() {
		if kv.Create != 0 {
			s.Moved(token)
		}
		s.Gone(w.alive)
		if w.r.Intn(30) == 0 {
			s.Flag()
		}
		if w.r.Intn(6) == 0 {
			s.Sweep(w.rev - 12)
		}
		if w.r.Intn(20) == 0 {
			s.Tidy()
		}
		return
	}
	switch {
	case token.Worker == "":
		s.Take(token, false)
	case !w.alive(token.Worker):
		s.Take(token, true)
	case w.r.Intn(25) == 0:
		w.seen.Steals++
		s.Take(token, false)
	}
}

// watch tells the shard a part of what its watches have to say.
func (w *simWorker) watch(s *Shard) {
	if !s.Owned() {
		return
	}
	if s.Watched() < w.compacted {
		s.Restart(w.rev)
	}
	kvs := w.since(ItemsOf(s.N), s.Watched(), w.rev)
	rev := w.rev
	if len(kvs) > 1 && w.r.Intn(2) == 0 {
		cut := kvs[w.r.Intn(len(kvs))].Mod // a revision is never torn apart
		for len(kvs) > 0 && kvs[len(kvs)-1].Mod > cut {
			kvs = kvs[:len(kvs)-1]
		}
		rev = cut
	}
	if len(kvs) > 0 || w.r.Intn(4) == 0 {
		s.See(kvs, rev)
	}
	if s.Foreign() && w.r.Intn(2) == 0 {
		s.Journals(w.list(JournalsOf(s.N)))
	}
}

// start starts what may start, until a worker has four at work.
func (w *simWorker) start(s *Shard) {
	suspect := true
	for _, other := range w.shards {
		suspect = suspect && !other.Suspect()
	}
	for _, j := range s.Deadly() {
		s.Settle(j, End{Kind: Dead, Error: "killed workers"}, w.now)
	}
	if len(w.jobs) >= 4 {
		return
	}
	j, ok := s.Start(w.now, suspect, nil)
	if !ok {
		return
	}
	it := j.Item()
	w.jobs = append(w.jobs, &simRun{s: s, j: j, it: it, tx: string(it.Payload) == "tx"})
	w.runs[it.Job]++
	if w.trace != nil {
		w.trace("%s starts %s group %q payload %s", w.id, it.Job, it.Group, it.Payload)
	}
	w.begin(it)
	if string(it.Payload) == "poison" {
		w.crash()
	}
}

// begin checks what holds when a job starts.
func (w *simWorker) begin(it *Item) {
	if w.due[it.Job] > w.now {
		w.fail("job %s starts %d ms early", it.Job, w.due[it.Job]-w.now)
	}
	if it.Group == "" {
		return
	}
	for _, kv := range w.list(ItemPrefix) {
		other, _ := DecodeItem(kv)
		if other.Group == it.Group && !w.dead[it.Job] && !w.dead[other.Job] && w.before(other.Job, it.Job) {
			w.fail("job %s of group %s starts before %s has ended", it.Job, it.Group, other.Job)
		}
	}
}

// before says whether a job was committed before another, of the same group.
func (x *sim) before(a, b string) bool {
	var first, second int64
	for _, h := range x.hist {
		if h.kv.Create == 0 || h.kv.Create != h.kv.Mod || !strings.HasPrefix(h.kv.Key, ItemPrefix) {
			continue
		}
		it, _ := DecodeItem(h.kv)
		if it.Job == a && first == 0 {
			first = h.kv.Mod
		}
		if it.Job == b && second == 0 {
			second = h.kv.Mod
		}
	}
	return first != 0 && second != 0 && (first < second || first == second && a < b)
}

func (w *simWorker) crash() {
	w.seen.Crashes++
	w.up = false
	for _, run := range w.jobs {
		w.killed[run.it.Job]++
	}
	w.jobs = nil
}

// finish ends a job in one way or another.
func (w *simWorker) finish() {
	if len(w.jobs) == 0 {
		return
	}
	run := w.jobs[w.r.Intn(len(w.jobs))]
	if run.busy || run.j.Over() {
		return
	}
	roll := w.r.Intn(12)
	switch {
	case roll == 0 && run.it.Failures < 3:
		w.seen.Retries++
		run.s.Settle(run.j, End{Kind: Retry, At: w.now + int64(w.r.Intn(500)), Error: "failed"}, w.now)
	case roll == 1 && run.it.Group == "" && w.r.Intn(4) == 0:
		run.s.Settle(run.j, End{Kind: Dead, Error: "unwanted"}, w.now)
	case roll == 2:
		run.s.Settle(run.j, End{Kind: Return}, w.now)
	case run.tx:
		if !w.commit(run) {
			return
		}
		run.busy = true
		return
	default:
		run.s.Settle(run.j, End{Kind: Done}, w.now)
	}
	w.forget(run)
}

func (w *simWorker) forget(run *simRun) {
	w.jobs = slices.DeleteFunc(w.jobs, func(r *simRun) bool { return r == run })
}

// commit ends a job in a transaction that has an effect.
func (w *simWorker) commit(run *simRun) bool {
	guard, ops, ok := run.s.TxGuard(run.j)
	if !ok {
		return false
	}
	w.seen.Txs++
	s, c := run.s, run.j.Claim
	journal := JournalKey(s.N, w.id)
	t := Txn{If: guard, Then: append(ops, put(effectPrefix+run.it.Job, nil)), Else: []Op{get(journal), get(c.Key)}}
	w.send(t, nil, func(a *Answer) {
		if !w.up {
			return
		}
		w.forget(run)
		if a.Succeeded {
			s.TxDone(run.j, Committed, a.Revision, KV{}, KV{})
		} else if !s.TxDone(run.j, Unguarded, a.Revision, a.Results[0].one(), a.Results[1].one()) && !run.j.Over() {
			s.Settle(run.j, End{Kind: Return}, w.now)
		}
		w.collect(s)
	})
	return true
}

// collect takes what a shard has to say.
func (w *simWorker) collect(s *Shard) {
	for _, j := range s.Ended {
		w.ended[j.Claim.Item.part(j.Part).Job]++
	}
	for _, j := range s.Lost {
		w.jobs = slices.DeleteFunc(w.jobs, func(r *simRun) bool { return r.j == j && !r.busy })
	}
	s.Ended, s.Lost = nil, nil
}

// pump sends what the shard wants to be sent.
func (w *simWorker) pump(s *Shard) {
	claimed := 0
	for _, other := range w.shards {
		claimed += other.Claimed()
	}
	for _, r := range s.Next(w.now, 8-claimed) {
		w.share(r, func(a *Answer) {
			if w.up {
				r.Answer(a)
				w.collect(s)
			}
		})
	}
}
