package shard

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
)

// sim is a fleet over a store, in one thread: what happens next is drawn from a
// seed. Requests and answers are lost, come late or twice; workers die, or live
// on after their session; tokens are stolen; history is compacted.
type sim struct {
	*store
	r      *rand.Rand
	now    int64
	faults float64
	limits Limits
	plant  Fault
	shards []int // in use
	old    []int // that were, and may have items

	net     []*packet
	shares  bool     // workers share transactions
	parcels []parcel // that wait for that
	writers []*simWriter
	workers []*simWorker
	born    int // workers so far

	fates
	seen   counts
	broken string
	trace  func(format string, args ...any) // of a replay
}

// fates are what is known of jobs, by their names.
type fates struct {
	want   map[string]bool // whose writer was told that they are in
	due    map[string]int64
	runs   map[string]int
	ended  map[string]int  // by a plain end that was confirmed
	killed map[string]int  // workers that died while they ran it
	dead   map[string]bool // that was redriven
}

// counts are what happened in a run, so that a quiet one can be told.
type counts struct {
	Lost, Late, Twice, Crashes, Zombies, Steals, Retries, Redriven, Compactions, Drains, Reshards, Txs, Shared int
}

// packet is a request on its way.
type packet struct {
	txn     Txn
	done    func(*Answer) // nil once nobody waits for it
	again   func()        // the sender's clock has run out
	answer  *Answer
	applied bool
}

func newSim(seed int64, plant Fault) *sim {
	x := &sim{
		store: newStore(), r: rand.New(rand.NewSource(seed)), faults: 0.08, plant: plant, now: 1_000,
		limits: Limits{Lanes: 2, Crashes: 4, Group: 1, Planted: plant}, shards: []int{0, 1, 2},
		fates: fates{
			want: make(map[string]bool), due: make(map[string]int64), runs: make(map[string]int),
			ended: make(map[string]int), killed: make(map[string]int), dead: make(map[string]bool),
		},
	}
	x.shares = seed%2 == 0
	if seed%3 == 0 {
		x.limits.Weights = []int{3, 1}
	}
	x.configure()
	for i := range 3 {
		x.writers = append(x.writers, &simWriter{sim: x, left: 14, seed: 1, tag: uint32(i + 1)})
		x.workers = append(x.workers, x.boot())
	}
	return x
}

// configure writes the configuration: which shards are in use, with marks.
func (x *sim) configure() {
	t := Txn{Then: []Op{put(ConfigKey, []byte(fmt.Sprint(x.shards)))}}
	for _, n := range x.shards {
		for lane := range x.limits.Lanes {
			mark := MarkKey(n, lane)
			t.Then = append(t.Then, nest(Txn{If: []Compare{missing(mark)}, Then: []Op{put(mark, []byte(Bound(0)))}}))
		}
	}
	x.txn(t)
}

func (x *sim) fail(format string, args ...any) {
	if x.broken == "" {
		x.broken = fmt.Sprintf(format, args...)
	}
}

// send puts a request on its way; it is sent again until it is answered.
func (x *sim) send(t Txn, again *bool, done func(*Answer)) {
	p := &packet{txn: t, done: done}
	p.again = func() {
		if again != nil {
			*again = true
		}
		x.send(t, again, done)
	}
	x.net = append(x.net, p)
}

// step of the network: a random packet gets on, or is lost, late or doubled.
func (x *sim) deliver() {
	if len(x.net) == 0 {
		return
	}
	i := x.r.Intn(len(x.net))
	p := x.net[i]
	remove := func() {
		x.net[i] = x.net[len(x.net)-1]
		x.net = x.net[:len(x.net)-1]
	}
	roll := x.r.Float64()
	switch {
	case !p.applied && roll < x.faults:
		x.seen.Lost++
		remove()
		if p.done != nil {
			p.again()
		}
	case p.done != nil && roll < 2*x.faults: // the sender gives up: it may be executed late, or was
		x.seen.Late++
		p.done = nil
		if p.applied {
			remove()
		}
		p.again()
	case !p.applied:
		p.answer, p.applied = x.txn(p.txn), true
		if x.trace != nil && writes(p.txn) {
			x.trace("rev %d ok=%v %s", p.answer.Revision, p.answer.Succeeded, p.txn.describe())
		}
		if roll > 1-x.faults/4 && writes(p.txn) { // executed once more, much later
			x.seen.Twice++
			x.net = append(x.net, &packet{txn: p.txn, again: func() {}})
		}
		if p.done == nil {
			x.drop(p)
		}
	default:
		remove()
		p.done(p.answer)
	}
}

func (x *sim) drop(p *packet) {
	x.net = slices.DeleteFunc(x.net, func(q *packet) bool { return q == p })
}

// describe tells what a transaction writes, for a trace.
func (t Txn) describe() string {
	var b strings.Builder
	for _, c := range t.If {
		fmt.Fprintf(&b, "[%s %d %v %d %s] ", c.Key, c.Field, c.Less, c.Rev, c.Value)
	}
	for _, op := range t.Then {
		switch {
		case op.Kind == Put && strings.HasPrefix(op.Key, ClaimPrefix):
			entries, _ := DecodeJournal(op.Value)
			fmt.Fprintf(&b, "journal %s:", op.Key)
			for _, e := range entries {
				fmt.Fprintf(&b, " %s@%d f%d c%d p%v %s %x;", e.Key, e.Create, e.Failures, e.Crashes, e.Parked, e.Group, e.Done)
			}
		case op.Kind == Put:
			fmt.Fprintf(&b, "put %s; ", op.Key)
		case op.Kind == Delete:
			fmt.Fprintf(&b, "del %s; ", op.Key)
		case op.Kind == Nest:
			fmt.Fprintf(&b, "(%s) ", op.Txn.describe())
		}
	}
	return b.String()
}

func writes(t Txn) bool {
	return slices.ContainsFunc(t.Then, func(op Op) bool { return op.Kind != Get })
}

// ---- writers

type simWriter struct {
	*sim
	w      *Writer
	tag    uint32
	seed   int64
	count  uint32
	config int64
	shards []int
	batch  []*Draft
	busy   bool
	left   int
}

func (p *simWriter) id() string {
	p.count++
	return fmt.Sprintf("%s-%08x-%08x", Bound(p.seed), p.tag, p.count)
}

// next makes up a batch: plain messages, chunks, delayed ones, groups.
func (p *simWriter) next() {
	p.batch = nil
	for range 1 + p.r.Intn(3) {
		d := &Draft{Item: &Item{Lane: p.r.Intn(p.limits.Lanes)}}
		switch p.r.Intn(6) {
		case 0:
			d.Item.Chunk = 2 + p.r.Intn(3)
			var parts [][]byte
			for i := range d.Item.Chunk {
				parts = append(parts, p.payload(i == 1))
			}
			d.Item.Payload = Pack(parts)
		case 1, 2:
			d.Item.Group, d.Item.Lane = fmt.Sprintf("g%d", p.r.Intn(4)), 0
			d.Item.Payload = p.payload(true)
		case 3:
			d.Due = p.now + int64(p.r.Intn(3000))
			d.Item.Payload = p.payload(false)
		default:
			d.Item.Payload = p.payload(true)
		}
		p.batch = append(p.batch, d)
	}
	p.place()
}

func (p *simWriter) payload(poison bool) []byte {
	switch n := p.r.Intn(60); {
	case poison && n == 0:
		return []byte("poison")
	case n < 20:
		return []byte("plain")
	}
	return []byte("tx")
}

// place decides about shards and names.
func (p *simWriter) place() {
	for _, d := range p.batch {
		d.Shard = p.shards[p.r.Intn(len(p.shards))]
		if d.Item.Group != "" {
			d.Shard = p.shards[int(d.Item.Group[1]-'0')%len(p.shards)]
		}
		d.Item.Job = JobID(d.Shard, d.Item.Lane, p.id())
	}
}

func (p *simWriter) step() {
	if p.busy || p.left == 0 {
		return
	}
	if p.shards == nil {
		kv := p.m[ConfigKey]
		p.config, p.shards = kv.Mod, slices.Clone(p.sim.shards)
	}
	if p.w == nil {
		p.w = &Writer{ID: fmt.Sprintf("p%d", p.tag), Planted: p.plant}
	}
	if p.batch == nil {
		p.next()
	}
	p.busy = true
	batch, config := p.batch, p.config
	p.send(p.w.Batch(batch, config), nil, func(a *Answer) {
		p.busy = false
		switch v, rev, _ := p.w.Judge(a, config); v {
		case Written:
			p.written(batch, rev)
			p.batch, p.left = nil, p.left-1
			if p.r.Intn(3) > 0 { // sometimes it has an old view for long
				p.seed = max(p.seed, rev)
			}
		case Stale:
			p.seed = a.Revision
			p.place()
		case Reconfigure:
			p.shards = nil
			kv := p.m[ConfigKey]
			p.config, p.shards = kv.Mod, slices.Clone(p.sim.shards)
			p.place()
		default:
			p.fail("writer got %d", v)
		}
	})
}

func (p *simWriter) written(batch []*Draft, rev int64) {
	for _, d := range batch {
		for i := range d.Item.parts() {
			job := d.Item.part(i).Job
			p.want[job] = true
			p.due[job] = d.Due
		}
	}
}

// ---- workers

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
