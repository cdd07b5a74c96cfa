package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// scaleGroup names all scenarios of scale together.
const scaleGroup = "scale"

// settleTime is between the end of the work and the look at the memory: what a
// server gives back by itself, it gives back in that time.
const settleTime = 5 * time.Second

// scaleScenario fills fresh clusters and says what that took, and what they hold
// then. It is no rate: each figure is one number a cluster.
type scaleScenario struct {
	name string
	what string
	fill func(ctx context.Context, s *scaleRun) error
}

var scaleScenarios = []scaleScenario{
	{"keys1m", "1,000,000 keys of 256 bytes: resident memory, and restarts of a member", fillKeys},
	{"leases1m", "1,000,000 idle leases: resident memory", fillLeases},
	{"streams100k", "100,000 watch streams of one watch each: resident memory", fillStreams},
	{"watches1m", "1,000,000 watches on 1,000 streams: resident memory", fillWatches},
}

// findScale returns one scenario of scale by its name, or all.
func findScale(name string) []scaleScenario {
	if name == scaleGroup {
		return scaleScenarios
	}
	i := slices.IndexFunc(scaleScenarios, func(s scaleScenario) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return scaleScenarios[i : i+1]
}

// figure is one number of a scenario of scale.
type figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

// Scale is what was measured of one cluster.
type Scale struct {
	Scenario string       `json:"scenario"`
	Kind     harness.Kind `json:"kind"`
	Pair     int          `json:"pair"`
	Figures  []figure     `json:"figures"`
}

// scaleRun is a scenario on one cluster.
type scaleRun struct {
	*env
	result *Scale
	factor float64 // of the scenario's own number
	// profiles is the directory for what the memory is made of; "" for none.
	profiles string
	idle     int64         // resident bytes of a member before
	usage    harness.Usage // before
}

// number is how many of n there are to be.
func (s *scaleRun) number(n int) int { return max(1, int(float64(n)*s.factor)) }

func (s *scaleRun) note(name, unit string, value float64) {
	s.result.Figures = append(s.result.Figures, figure{name, unit, value})
}

// noteMemory notes the memory of a member, the median of all, once it has settled.
func (s *scaleRun) noteMemory(ctx context.Context, what string) error {
	if err := wait(ctx, settleTime); err != nil {
		return err
	}
	resident, peak, err := s.resident()
	if err != nil {
		return err
	}
	s.note("resident "+what, "MB", float64(resident)/(1<<20))
	s.note("  of that since the start", "MB", float64(resident-s.idle)/(1<<20))
	s.note("  most at any time", "MB", float64(peak)/(1<<20))
	if s.profiles == "" || s.cluster.Kind != harness.Latchkey {
		return nil
	}
	return memoryAll(ctx, s.cluster, s.profiles, s.result.Scenario)
}

// resident returns the resident bytes of a member, now and at most; the medians.
func (s *scaleRun) resident() (now, most int64, err error) {
	_, each, err := s.cluster.Usage()
	if err != nil {
		return 0, 0, err
	}
	var current, peak []float64
	for _, u := range each {
		current = append(current, float64(u.RSS))
		peak = append(peak, float64(u.PeakRSS))
	}
	return int64(median(current)), int64(median(peak)), nil
}

// measureScales measures every scenario of scale on fresh clusters, one at a
// time: the memory of two would not be on the machine together.
func measureScales(ctx context.Context, o *options, r *Report) error {
	for pair := range o.scalePairs() {
		for i, s := range o.scales {
			for j := range o.kinds {
				kind := o.kinds[(j+i+pair)%len(o.kinds)]
				result, err := measureScale(ctx, o, s, kind, pair)
				if result != nil {
					r.Scales = append(r.Scales, result)
				}
				if err != nil {
					return fmt.Errorf("%s on %s: %w", s.name, kind, err)
				}
			}
		}
	}
	return nil
}

// scalePairs is the number of pairs; there are none without scenarios.
func (o *options) scalePairs() int {
	if len(o.scales) == 0 {
		return 0
	}
	return o.pairs
}

func measureScale(ctx context.Context, o *options, s scaleScenario, kind harness.Kind, pair int) (result *Scale, err error) {
	c, err := harness.Start(ctx, harness.Config{Kind: kind, Members: o.members, Flags: slices.Concat(o.flags[kind], scaleFlags[kind])})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	e, err := openEnv(c, scaleWorkers, o.conns, false, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	run := &scaleRun{env: e, factor: o.scale, profiles: o.profiles, result: &Scale{Scenario: s.name, Kind: kind, Pair: pair}}
	if run.idle, _, err = run.resident(); err != nil {
		return nil, err
	}
	if run.usage, _, err = c.Usage(); err != nil {
		return nil, err
	}
	err = s.fill(ctx, run)
	for _, f := range run.result.Figures {
		progress("pair %d/%d  %-12s %-8s %-30s %10.1f %s", pair+1, o.pairs, s.name, kind, f.Name, f.Value, f.Unit)
	}
	return run.result, err
}

// writeScales prints a row for each figure.
func (r *Report) writeScales(w io.Writer) error {
	if len(r.Scales) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join([]string{"scenario", "a member's, or of the whole", "etcd", "latchkey", "ratio"}, "\t"))
	for _, s := range scaleScenarios {
		etcd, latchkey := r.figuresOf(s.name, harness.Etcd), r.figuresOf(s.name, harness.Latchkey)
		for _, name := range etcd.orderedWith(latchkey) {
			e, l := etcd.values[name], latchkey.values[name]
			cells := []string{s.name, name, etcd.text(name), latchkey.text(name), ""}
			if len(e) > 0 && len(l) > 0 && median(e) > 0 {
				cells[4] = fmt.Sprintf("%.2fx", median(l)/median(e))
			}
			fmt.Fprintln(t, strings.Join(cells, "\t"))
		}
	}
	return t.Flush()
}

// figures are those of one scenario on one kind, over the pairs.
type figures struct {
	names  []string // in the order in which they were noted
	units  map[string]string
	values map[string][]float64
}

func (r *Report) figuresOf(scenario string, kind harness.Kind) figures {
	f := figures{units: make(map[string]string), values: make(map[string][]float64)}
	for _, s := range r.Scales {
		if s.Scenario != scenario || s.Kind != kind {
			continue
		}
		for _, one := range s.Figures {
			if len(f.values[one.Name]) == 0 {
				f.names = append(f.names, one.Name)
			}
			f.units[one.Name] = one.Unit
			f.values[one.Name] = append(f.values[one.Name], one.Value)
		}
	}
	return f
}

// orderedWith returns the names of both.
func (f figures) orderedWith(other figures) []string {
	names := slices.Clone(f.names)
	for _, name := range other.names {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func (f figures) text(name string) string {
	if len(f.values[name]) == 0 {
		return "-"
	}
	v := median(f.values[name])
	if v < 10 {
		return fmt.Sprintf("%.2f %s", v, f.units[name])
	}
	return fmt.Sprintf("%.0f %s", v, f.units[name])
}
