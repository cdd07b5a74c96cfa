package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// failoverName is the fault that is measured by default.
const failoverName = "failover"

// options is the command line.
type options struct {
	scenarios []scenario
	scales    []scaleScenario
	faults    []fault
	kinds     []harness.Kind
	pairs     int
	trials    int
	duration  time.Duration
	clients   int
	conns     int
	members   int
	scale     float64
	flags     map[harness.Kind][]string
	jsonPath  string
	profiles  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	opts, err := parse(args)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	report := &Report{
		Machine:  describeMachine(),
		Versions: make(map[string]string),
		Command:  "go run ./bench " + strings.Join(args, " "),
		Pairs:    opts.pairs,
		Window:   opts.duration,
	}
	for _, kind := range opts.kinds {
		if report.Versions[string(kind)], err = version(ctx, kind); err != nil {
			return err
		}
	}
	err = measureAll(ctx, opts, report)
	if len(report.Runs)+len(report.Failovers)+len(report.Scales) > 0 {
		err = errors.Join(err, report.write(os.Stdout))
	}
	if opts.jsonPath != "" {
		err = errors.Join(err, writeJSON(opts.jsonPath, report))
	}
	return err
}

func parse(args []string) (*options, error) {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	for _, s := range allScenarios() {
		names = append(names, s.name)
	}
	for _, f := range faults {
		names = append(names, f.name)
	}
	names = append(names, scaleGroup)
	for _, s := range scaleScenarios {
		names = append(names, s.name)
	}
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	list := fs.String("scenario", groups[0].name+","+failoverName, "`list` of scenarios and groups of them, comma separated")
	only := fs.String("only", "", "measure one `kind` alone: etcd or latchkey")
	fs.IntVar(&o.pairs, "pairs", 10, "pairs of runs")
	fs.IntVar(&o.trials, "trials", 20, "faults a side and client")
	fs.DurationVar(&o.duration, "duration", 5*time.Second, "measured window of a run")
	fs.IntVar(&o.clients, "clients", 0, "concurrent clients; 0 for each scenario's own number")
	fs.IntVar(&o.conns, "conns", 16, "gRPC clients that the concurrent clients share")
	fs.IntVar(&o.members, "members", 3, "members of each cluster")
	fs.Float64Var(&o.scale, "scale", 1, "`factor` for the numbers of the scenarios of scale")
	fs.StringVar(&o.jsonPath, "json", "", "write everything measured to this `file`")
	fs.StringVar(&o.profiles, "profile", "", "write profiles of latchkey's members to this `directory`: of the CPU over all scenarios, and of the memory after them")
	etcdFlags := fs.String("etcd-flags", "", "further server `flags` for etcd")
	ourFlags := fs.String("latchkey-flags", "", "further server `flags` for latchkey")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.flags = map[harness.Kind][]string{
		harness.Etcd:     strings.Fields(*etcdFlags),
		harness.Latchkey: strings.Fields(*ourFlags),
	}
	if o.profiles != "" {
		o.flags[harness.Latchkey] = append(o.flags[harness.Latchkey], profileFlag)
	}
	switch harness.Kind(*only) {
	case "":
		o.kinds = []harness.Kind{harness.Etcd, harness.Latchkey}
	case harness.Etcd, harness.Latchkey:
		o.kinds = []harness.Kind{harness.Kind(*only)}
	default:
		return nil, fmt.Errorf("-only %q: want etcd or latchkey", *only)
	}
	for name := range strings.SplitSeq(*list, ",") {
		found, scales := findScenarios(name), findScale(name)
		o.scenarios = append(o.scenarios, found...)
		o.scales = append(o.scales, scales...)
		fault := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		switch {
		case fault >= 0:
			o.faults = append(o.faults, faults[fault])
		case len(found)+len(scales) == 0:
			return nil, fmt.Errorf("-scenario: no %q; there are %s", name, strings.Join(names, ", "))
		}
	}
	if o.pairs < 1 || o.trials < 1 || o.duration <= 0 || o.conns < 1 || o.members < 1 || o.clients < 0 || o.scale <= 0 {
		return nil, errors.New("counts and durations must be positive")
	}
	return o, nil
}

func measureAll(ctx context.Context, o *options, r *Report) error {
	if len(o.scenarios) > 0 {
		for pair := range o.pairs {
			if err := measurePair(ctx, o, r, pair); err != nil {
				return fmt.Errorf("pair %d: %w", pair+1, err)
			}
		}
	}
	if err := measureScales(ctx, o, r); err != nil {
		return err
	}
	for _, f := range o.faults {
		if err := measureFailovers(ctx, o, r, f); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts one fresh cluster of each kind.
func startAll(ctx context.Context, o *options) (clusters []*harness.Cluster, closeAll func() error, err error) {
	closeAll = func() error {
		var errs []error
		for _, c := range clusters {
			errs = append(errs, c.Close())
		}
		return errors.Join(errs...)
	}
	for _, kind := range o.kinds {
		c, err := harness.Start(ctx, harness.Config{Kind: kind, Members: o.members, Flags: o.flags[kind]})
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		clusters = append(clusters, c)
	}
	return clusters, closeAll, nil
}

func measurePair(ctx context.Context, o *options, r *Report, pair int) (err error) {
	clusters, closeAll, err := startAll(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	ops := make(map[harness.Kind]int64)
	if o.profiles != "" {
		for _, c := range clusters {
			if c.Kind != harness.Latchkey {
				continue
			}
			all := time.Duration(len(o.scenarios)*len(clusters)) * (warmUp + o.duration)
			profiled := make(chan error, 1)
			go func() { profiled <- profileAll(ctx, c, o.profiles, pair, all) }()
			defer func() { err = errors.Join(err, <-profiled) }()
		}
	}
	for i, s := range o.scenarios {
		for j := range clusters {
			// A B, then B A: whatever drifts over minutes hits both alike.
			c := clusters[(j+i+pair)%len(clusters)]
			if run, _ := s.on(c.Kind); run == nil {
				continue
			}
			run, err := measureOne(ctx, o, s, c)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", s.name, c.Kind, err)
			}
			run.Pair = pair
			ops[c.Kind] += run.Ops
			r.Runs = append(r.Runs, run)
			progress("pair %d/%d  %-12s %-8s %9.0f/s  p50 %v  p99 %v  CPU %v/op, client's %v/op  load %s  errors %d", pair+1, o.pairs,
				s.name, c.Kind, run.Rate(), run.P50.Round(time.Microsecond), run.P99.Round(time.Microsecond),
				run.CPUPerOp().Round(time.Microsecond), run.perOp(run.ClientCPU).Round(time.Microsecond), run.Load, run.Errors)
		}
	}
	return measureMemory(ctx, o, r, clusters, ops, pair)
}

// measureMemory notes what the members hold after everything, and once they have
// had nothing to do for a while.
func measureMemory(ctx context.Context, o *options, r *Report, clusters []*harness.Cluster, ops map[harness.Kind]int64, pair int) error {
	first := len(r.Memory)
	for _, c := range clusters {
		_, each, err := c.Usage()
		if err != nil {
			return err
		}
		m := Memory{Kind: c.Kind, Pair: pair, AfterOps: ops[c.Kind]}
		for _, u := range each {
			m.RSS = append(m.RSS, u.RSS)
			m.PeakRSS = append(m.PeakRSS, u.PeakRSS)
		}
		r.Memory = append(r.Memory, m)
	}
	if err := wait(ctx, settleTime); err != nil {
		return err
	}
	for i, c := range clusters {
		_, each, err := c.Usage()
		if err != nil {
			return err
		}
		for _, u := range each {
			r.Memory[first+i].Settled = append(r.Memory[first+i].Settled, u.RSS)
		}
		if o.profiles != "" && c.Kind == harness.Latchkey {
			if err := memoryAll(ctx, c, o.profiles, strconv.Itoa(pair)); err != nil {
				return err
			}
		}
	}
	return nil
}

func measureOne(ctx context.Context, o *options, s scenario, c *harness.Cluster) (*Run, error) {
	workers := s.workers
	if o.clients > 0 && workers > 0 {
		workers = o.clients
	}
	conns := o.conns
	if s.conns > 0 {
		conns = s.conns
	}
	run, ours := s.on(c.Kind)
	if ours && s.shared {
		conns = 1
	}
	e, err := openEnv(c, workers, conns, ours, o.duration)
	if err != nil {
		return nil, err
	}
	r, err := run(ctx, e)
	if err = errors.Join(err, e.Close()); err != nil {
		return nil, err
	}
	r.Scenario, r.Kind = s.name, c.Kind
	return r, nil
}

func measureFailovers(ctx context.Context, o *options, r *Report, of fault) (err error) {
	clusters, closeAll, err := startAll(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	for trial := range o.trials {
		for i := range clusters {
			c := clusters[(i+trial)%len(clusters)]
			for _, p := range putters {
				client, err := p.open(c)
				if err != nil {
					return err
				}
				f, err := failoverTrial(ctx, of, c, client)
				if err = errors.Join(err, client.Close()); err != nil {
					return fmt.Errorf("%s of %s through the %s: %w", of.name, c.Kind, p.name, err)
				}
				f.Client, f.Trial = p.name, trial
				r.Failovers = append(r.Failovers, f)
				progress("%s %d/%d  %-8s %s: gap %v, %d succeeded, %d failed", of.name, trial+1, o.trials,
					c.Kind, p.name, f.Gap.Round(time.Millisecond), f.Done, f.Failed)
			}
		}
	}
	return nil
}

// version asks the binary itself.
func version(ctx context.Context, kind harness.Kind) (string, error) {
	tool, arg := harness.ToolEtcd, "--version"
	if kind == harness.Latchkey {
		tool = harness.ToolLatchkey
	}
	path, err := harness.Build(ctx, tool)
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, arg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w\n%s", kind, err, out)
	}
	return strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), ", "), nil
}

func writeJSON(path string, r *Report) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
