package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// Memory is what the members of one cluster held at the end of a pair.
type Memory struct {
	Kind     harness.Kind `json:"kind"`
	Pair     int          `json:"pair"`
	RSS      []int64      `json:"rss"`      // a member each, bytes
	PeakRSS  []int64      `json:"peak_rss"` // a member each, bytes
	Settled  []int64      `json:"settled"`  // the same as RSS, settleTime later
	AfterOps int64        `json:"after_ops"`
}

// Report is everything that was measured.
type Report struct {
	Machine   Machine           `json:"machine"`
	Versions  map[string]string `json:"versions"`
	Command   string            `json:"command"`
	Runs      []*Run            `json:"runs"`
	Memory    []Memory          `json:"memory"`
	Failovers []Failover        `json:"failovers"`
	Scales    []*Scale          `json:"scales"`
	Pairs     int               `json:"pairs"`
	Window    time.Duration     `json:"window_ns"`
}

// side collects one kind's runs of one scenario, by pair.
type side map[int]*Run

func (r *Report) sideOf(scenario string, kind harness.Kind) side {
	out := make(side)
	for _, run := range r.Runs {
		if run.Scenario == scenario && run.Kind == kind {
			out[run.Pair] = run
		}
	}
	return out
}

func (s side) values(f func(*Run) float64) []float64 {
	var out []float64
	for _, run := range s {
		out = append(out, f(run))
	}
	return out
}

// ratios pairs each run with the other side's run of the same pair.
func ratios(num, den side, f func(*Run) float64) []float64 {
	var out []float64
	for pair, n := range num {
		if d, ok := den[pair]; ok && f(d) > 0 {
			out = append(out, f(n)/f(d))
		}
	}
	slices.Sort(out)
	return out
}

func (s side) latency() *histogram {
	all := &histogram{}
	for _, run := range s {
		all.merge(run.latency)
	}
	return all
}

func rate(r *Run) float64        { return r.Rate() }
func microsPerOp(r *Run) float64 { return float64(r.CPUPerOp()) / float64(time.Microsecond) }
func cpuPercent(r *Run) float64 {
	return 100 * r.ServerCPU.Seconds() / r.Window.Seconds()
}

// write prints the table.
func (r *Report) write(w io.Writer) error {
	fmt.Fprintf(w, "%s\n%s\n", r.Machine.Date, r.Machine)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(w, "%s: %s\n", name, r.Versions[name])
	}
	fmt.Fprintf(w, "%d pairs, windows of %v, %d-byte values; ratios are latchkey/etcd, the median of the pairs [95 %% interval]\n\n",
		r.Pairs, r.Window, valueBytes)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, strings.Join([]string{"scenario", "etcd/s", "latchkey/s", "ratio", "[95 %]",
		"etcd p50", "p99", "latchkey p50", "p99", "etcd CPU us/op", "latchkey", "ratio", ""}, "\t"))
	for _, s := range allScenarios() {
		r.writeRow(t, s)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, run := range r.Runs {
		if run.Note != "" {
			fmt.Fprintf(w, "%s on %s, pair %d: %s\n", run.Scenario, run.Kind, run.Pair+1, run.Note)
		}
	}
	r.writeMemory(w)
	if err := r.writeScales(w); err != nil {
		return err
	}
	r.writeFailovers(w)
	r.writeNoise(w)
	return nil
}

func (r *Report) writeRow(w io.Writer, s scenario) {
	etcd, latchkey := r.sideOf(s.name, harness.Etcd), r.sideOf(s.name, harness.Latchkey)
	if len(etcd)+len(latchkey) == 0 {
		return
	}
	if s.name == "idle" {
		fmt.Fprintf(w, "%s\t%s\t%s\t\t\t\t\t\t\t\t\t\t\n", s.name,
			idleText(etcd), idleText(latchkey))
		return
	}
	cells := []string{s.name, countText(etcd), countText(latchkey)}
	ratio := ratios(latchkey, etcd, rate)
	if len(ratio) > 0 {
		low, high := spread(ratio)
		cells = append(cells, fmt.Sprintf("%.2fx", median(ratio)), fmt.Sprintf("[%.2f-%.2f]", low, high))
	} else {
		cells = append(cells, "", "")
	}
	cells = append(cells, latencyText(etcd)...)
	cells = append(cells, latencyText(latchkey)...)
	cells = append(cells, cpuText(etcd), cpuText(latchkey))
	if c := ratios(latchkey, etcd, microsPerOp); len(c) > 0 {
		cells = append(cells, fmt.Sprintf("%.2fx", median(c)))
	} else {
		cells = append(cells, "")
	}
	fmt.Fprintln(w, strings.Join(append(cells, ""), "\t"))
}

func idleText(s side) string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%% CPU", median(s.values(cpuPercent)))
}

func countText(s side) string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", median(s.values(rate)))
}

func cpuText(s side) string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", median(s.values(microsPerOp)))
}

func latencyText(s side) []string {
	if len(s) == 0 {
		return []string{"-", "-"}
	}
	h := s.latency()
	return []string{durationText(h.quantile(0.5)), durationText(h.quantile(0.99))}
}

// durationText keeps three digits and one of two units.
func durationText(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.2fms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.0fms", d.Seconds()*1e3)
}

func (r *Report) writeMemory(w io.Writer) {
	for _, kind := range []harness.Kind{harness.Etcd, harness.Latchkey} {
		var resident, peak, settled []float64
		for _, m := range r.Memory {
			if m.Kind != kind {
				continue
			}
			for i := range m.RSS {
				resident = append(resident, float64(m.RSS[i])/(1<<20))
				peak = append(peak, float64(m.PeakRSS[i])/(1<<20))
				settled = append(settled, float64(m.Settled[i])/(1<<20))
			}
		}
		if len(resident) > 0 {
			fmt.Fprintf(w, "\nresident memory of a %s member after all scenarios: median %.0f MB, most %.0f MB, peak %.0f MB; %v later %.0f MB",
				kind, median(resident), slices.Max(resident), slices.Max(peak), settleTime, median(settled))
		}
	}
	fmt.Fprintln(w)
}

func (r *Report) writeFailovers(w io.Writer) {
	gaps := make(map[string][]float64)
	failed := make(map[string]int64)
	for _, f := range r.Failovers {
		name := fmt.Sprintf("%s, longest gap of a 1 kHz writer, %s through the %s", f.Fault, f.Kind, f.Client)
		gaps[name] = append(gaps[name], float64(f.Gap)/float64(time.Millisecond))
		failed[name] += f.Failed
	}
	for _, name := range slices.Sorted(maps.Keys(gaps)) {
		g := gaps[name]
		fmt.Fprintf(w, "%s: median %.0f ms, least %.0f, most %.0f of %d (%d puts reported as failed)\n",
			name, median(g), slices.Min(g), slices.Max(g), len(g), failed[name])
	}
}

// writeNoise says what might make the figures worthless.
func (r *Report) writeNoise(w io.Writer) {
	var steal float64
	var errs int64
	for _, run := range r.Runs {
		steal = max(steal, run.Steal)
		errs += run.Errors
	}
	fmt.Fprintf(w, "most steal in a window %.1f %%; failed operations %d; made by: %s\n", 100*steal, errs, r.Command)
}
