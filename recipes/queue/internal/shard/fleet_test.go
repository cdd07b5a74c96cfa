package shard

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// expire ends sessions: soon those of workers that are no more, now and then one
// whose worker lives, which does not know it.
func (x *sim) expire(calm bool) {
	for _, kv := range x.list(WorkerPrefix) {
		id := Record(kv.Key)
		lives := false
		for _, w := range x.workers {
			lives = lives || w.up && w.id == id
		}
		if !lives && (calm || x.r.Intn(3) == 0) || lives && !calm && x.r.Intn(400) == 0 {
			if lives {
				x.seen.Zombies++
			}
			x.txn(Txn{Then: []Op{del(kv.Key)}})
		}
	}
}

// upkeep boots workers that are down or have noticed that their session is over,
// and crashes some.
func (x *sim) upkeep(calm bool) {
	i := x.r.Intn(len(x.workers))
	w := x.workers[i]
	switch {
	case w.up && w.leaving:
		if w.leave() {
			x.seen.Drains++
			w.up = false
			x.workers[i] = x.boot()
		}
	case w.up && !calm && x.r.Intn(120) == 0:
		w.leaving = true
	case !w.up && x.r.Intn(8) == 0, w.up && !w.alive(w.id) && x.r.Intn(12) == 0:
		w.up = false
		x.workers[i] = x.boot()
	case w.up && !calm && x.r.Intn(150) == 0:
		w.crash()
	case !calm && x.r.Intn(60) == 0:
		x.seen.Compactions++
		x.compacted = x.rev
	}
}

// redrive gives a dead letter another chance now and then.
func (x *sim) redrive() {
	for _, kv := range x.list(DeadPrefix) {
		it, err := DecodeItem(kv)
		if err != nil || string(it.Payload) == "poison" || x.dead[it.Job] {
			continue
		}
		t, err := Redrive(kv, x.now, x.home, x.m[ConfigKey].Mod)
		if err != nil {
			x.fail("redrive %s: %v", kv.Key, err)
			return
		}
		job := it.Job
		x.dead[job] = true
		x.seen.Redriven++
		x.send(t, nil, func(a *Answer) {
			if _, still := x.m[DeadKey(job)]; !a.Succeeded && still {
				delete(x.dead, job) // the configuration has changed: once more
			}
		})
		return
	}
}

// reshard cuts the queue anew, or forgets shards that are empty.
func (x *sim) reshard(calm bool) {
	if len(x.old) > 0 {
		for _, n := range x.old {
			if len(x.list(ItemsOf(n))) > 0 {
				return
			}
		}
		x.old = nil
		x.configure()
		return
	}
	if calm || x.seen.Reshards > 2 {
		return
	}
	x.seen.Reshards++
	next := slices.Max(x.shards) + 1
	x.old, x.shards = x.shards, nil
	for i := range 2 + x.r.Intn(3) {
		x.shards = append(x.shards, next+i)
	}
	x.configure()
}

// home is where redriven jobs go.
func (x *sim) home(n int) int {
	if slices.Contains(x.old, n) || slices.Contains(x.shards, n) {
		return n
	}
	return x.shards[0]
}

// tick fires a cron entry, from all over the fleet.
func (x *sim) tick() {
	const name = "nightly"
	if _, ok := x.m[CronKey(name)]; !ok {
		x.txn(Txn{Then: []Op{put(CronKey(name), []byte(Bound(0)))}})
	}
	tick := x.now / 2000 * 2000
	if tick == 0 || string(x.m[CronKey(name)].Value) >= Bound(tick) {
		return
	}
	for range 3 {
		job := JobID(x.shards[0], 0, fmt.Sprintf("%s-0000cafe-%08x", Bound(1), x.r.Uint32()))
		d := &Draft{Shard: x.shards[0], Item: &Item{Job: job, Payload: []byte("tx"), Header: map[string]string{"tick": fmt.Sprint(tick)}}}
		x.send(Tick(name, tick, d, x.m[ConfigKey].Mod), nil, func(*Answer) {})
	}
}

// one step of the whole.
func (x *sim) step(calm bool) {
	x.now += int64(x.r.Intn(2))
	if len(x.parcels) > 0 && x.r.Intn(8) == 0 {
		x.ship()
	}
	switch x.r.Intn(14) {
	case 0, 1:
		x.writers[x.r.Intn(len(x.writers))].step()
	case 2, 3, 4, 5, 6:
		x.workers[x.r.Intn(len(x.workers))].step()
	case 7:
		x.upkeep(calm)
	case 8:
		x.expire(calm)
	case 9:
		if x.r.Intn(20) == 0 {
			x.redrive()
		} else if !calm && x.r.Intn(10) == 0 {
			x.tick()
		} else if x.r.Intn(20) == 0 {
			x.reshard(calm)
		}
	default:
		x.deliver()
	}
}

// settled says that everything that was put in has come to an end.
func (x *sim) settled() bool {
	for _, p := range x.writers {
		if p.left > 0 || p.busy {
			return false
		}
	}
	return len(x.list(ItemPrefix)) == 0 && len(x.net) == 0 && len(x.parcels) == 0
}

// run lets things happen: first with faults, then until all is done.
func (x *sim) run() {
	for n := 0; n < 6000 && x.broken == ""; n++ {
		x.step(false)
	}
	x.faults = 0
	for n := 0; n < 200_000 && x.broken == ""; n++ {
		x.step(true)
		if n%50 == 0 && x.settled() {
			break
		}
	}
	if x.broken == "" {
		x.verdict()
	}
}

// verdict judges the end.
func (x *sim) verdict() {
	if !x.settled() {
		x.fail("not drained: %d items, %d packets", len(x.list(ItemPrefix)), len(x.net))
		return
	}
	first := make(map[string]*Item) // as each message was first written
	ticks := make(map[string]int)
	for _, h := range x.hist {
		if h.kv.Create == 0 || h.kv.Create != h.kv.Mod || !strings.HasPrefix(h.kv.Key, ItemPrefix) {
			continue
		}
		it, _ := DecodeItem(h.kv)
		for i := range it.parts() {
			one := it.part(i)
			if first[one.Job] == nil {
				first[one.Job] = one
				if tick := one.Header["tick"]; tick != "" {
					ticks[tick]++
				}
			}
		}
	}
	for tick, n := range ticks {
		if n != 1 {
			x.fail("tick %s fired %d times", tick, n)
		}
	}
	for job := range x.want {
		if first[job] == nil {
			x.fail("job %s was promised and never written", job)
		}
	}
	for job, it := range first {
		x.judge(job, it)
	}
	x.judgeOrder(first)
}

func (x *sim) judge(job string, it *Item) {
	_, dead := x.m[DeadKey(job)]
	effects := x.effects[job]
	switch string(it.Payload) {
	case "poison":
		if !dead || x.killed[job] > x.limits.Crashes {
			x.fail("poison %s: dead %v, killed %d", job, dead, x.killed[job])
		}
	case "tx":
		if dead == (effects == 1) || effects > 1 {
			x.fail("job %s: %d effects, dead %v", job, effects, dead)
		}
	default:
		if !dead && x.runs[job] == 0 {
			x.fail("job %s: never ran", job)
		}
	}
	if kv := x.m[DeadKey(job)]; dead && string(it.Payload) != "poison" {
		letter, _ := DecodeItem(kv)
		if letter.LastError == "killed workers" && x.killed[job] < x.limits.Crashes-1 {
			x.fail("innocent %s is dead with %d crashes, %d of them its own", job, letter.Crashes, x.killed[job])
		}
	}
}

// judgeOrder wants the effects of each group in the order in which its jobs were
// written.
func (x *sim) judgeOrder(first map[string]*Item) {
	last := make(map[string]string)
	for _, job := range x.log {
		it := first[job]
		if it == nil || it.Group == "" || x.dead[job] {
			continue
		}
		if prev := last[it.Group]; prev != "" && !x.before(prev, job) {
			x.fail("group %s: %s took effect before %s", it.Group, prev, job)
		}
		last[it.Group] = job
	}
}

var replay = flag.Int64("model.seed", 0, "replay one seed of the model, with its trace")

func TestModelReplay(t *testing.T) {
	if *replay == 0 {
		return
	}
	x := newSim(*replay, 0)
	x.trace = t.Logf
	x.run()
	require.Empty(t, x.broken)
}

func runSeed(seed int64, plant Fault) *sim {
	x := newSim(seed, plant)
	x.run()
	return x
}

func TestModel(t *testing.T) {
	const parts = 4
	seeds := 1000
	if testing.Short() {
		seeds = 200
	}
	type result struct {
		seen         counts
		jobs, reruns int
		broken       string
	}
	results := make(chan result, parts)
	for part := range parts {
		go func() {
			var res result
			for seed := int64(part + 1); seed <= int64(seeds) && res.broken == ""; seed += parts {
				x := runSeed(seed, 0)
				if x.broken != "" {
					res.broken = fmt.Sprintf("seed %d: %s", seed, x.broken)
				}
				res.seen.add(x.seen)
				for _, n := range x.runs {
					res.jobs++
					if n > 1 {
						res.reruns++
					}
				}
			}
			results <- res
		}()
	}
	var all result
	for range parts {
		res := <-results
		require.Empty(t, res.broken)
		all.seen.add(res.seen)
		all.jobs, all.reruns = all.jobs+res.jobs, all.reruns+res.reruns
	}
	t.Logf("%d seeds, %d jobs, %d of them ran more than once, %+v", seeds, all.jobs, all.reruns, all.seen)
	require.Greater(t, all.reruns, all.jobs/50, "too little happened")
	for name, n := range map[string]int{
		"crashes": all.seen.Crashes, "lost requests": all.seen.Lost, "doubled ones": all.seen.Twice,
		"shared": all.seen.Shared / 5, "drains": all.seen.Drains, "reshardings": all.seen.Reshards, "zombies": 10 * all.seen.Zombies,
	} {
		require.Greater(t, n, seeds, name)
	}
}

// A seed is the whole of what happens: a failure can be replayed.
func TestModelIsReplayable(t *testing.T) {
	for seed := int64(1); seed <= 5; seed++ {
		a, b := runSeed(seed, 0), runSeed(seed, 0)
		require.Equal(t, a.rev, b.rev)
		require.Equal(t, a.log, b.log)
		require.Equal(t, a.seen, b.seen)
	}
}

func (c *counts) add(o counts) {
	c.Lost += o.Lost
	c.Late += o.Late
	c.Twice += o.Twice
	c.Crashes += o.Crashes
	c.Zombies += o.Zombies
	c.Steals += o.Steals
	c.Retries += o.Retries
	c.Redriven += o.Redriven
	c.Compactions += o.Compactions
	c.Drains += o.Drains
	c.Reshards += o.Reshards
	c.Txs += o.Txs
	c.Shared += o.Shared
}

// Each defect that is planted is found within so many seeds.
func TestModelFindsDefects(t *testing.T) {
	for name, plant := range map[string]Fault{
		"ends without comparing the item":    BlindEnd,
		"marks without looking":              BlindMark,
		"enqueues below the mark":            BlindEnqueue,
		"claims without comparing the token": BlindClaim,
		"crashes are not counted":            UncountedCrash,
		"chunks go with their first":         ForgottenPart,
		"groups overtake":                    EarlyGroup,
		"batches without a number":           BlindBatch,
		"moves of shards are shared":         blindShare,
	} {
		t.Run(name, func(t *testing.T) {
			for seed := int64(1); seed <= 400; seed++ {
				if x := runSeed(seed, plant); x.broken != "" {
					t.Logf("seed %d: %s", seed, x.broken)
					return
				}
			}
			t.Fatal("not found")
		})
	}
}
