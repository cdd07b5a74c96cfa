package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/interop/harness"
)

const stepTimeout = 15 * time.Second

// ctlStep is one command line of etcdctl.
type ctlStep struct {
	args  string // split at blanks; "$1" stands for what an earlier step caught, '~' in a word for a blank
	stdin string
	// catch, where given, names a part of the output for later steps.
	catch *regexp.Regexp
	// lines makes it a command that does not end: it is interrupted when it
	// has printed so many lines.
	lines int
	// holds starts the command and leaves it running, once it has printed
	// lines, until the script ends.
	holds bool
}

// ctlScript is what somebody would type in a row.
type ctlScript struct {
	name  string
	steps []ctlStep
}

// ctl runs etcdctl against one side.
type ctl struct {
	path      string
	endpoints string
	caught    []string
	running   []*runningCtl
}

func newCtl(t *testing.T, s *side) *ctl {
	t.Helper()
	path, err := harness.Build(testContext(t), harness.ToolEtcdctl)
	require.NoError(t, err)
	return &ctl{path: path, endpoints: strings.Join(s.cluster.Endpoints(), ",")}
}

func (c *ctl) command(ctx context.Context, step ctlStep) *exec.Cmd {
	args := []string{"--endpoints=" + c.endpoints}
	for word := range strings.FieldsSeq(step.args) {
		word = strings.ReplaceAll(word, "~", " ")
		for i, caught := range c.caught {
			word = strings.ReplaceAll(word, "$"+string(rune('1'+i)), caught)
		}
		args = append(args, word)
	}
	cmd := exec.CommandContext(ctx, c.path, args...)
	cmd.Stdin = strings.NewReader(step.stdin)
	return cmd
}

// run executes a step and returns all that a user would see of it.
func (c *ctl) run(ctx context.Context, step ctlStep) (string, error) {
	if step.lines > 0 {
		return c.runLines(ctx, step)
	}
	cmd := c.command(ctx, step)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	text := out.String()
	if exit != nil {
		text += "[" + exit.String() + "]\n"
	}
	if step.catch != nil {
		m := step.catch.FindStringSubmatch(text)
		if m == nil {
			return "", errors.New("nothing to catch in " + text)
		}
		c.caught = append(c.caught, m[1])
	}
	return text, nil
}

// runningCtl is an etcdctl that does not end by itself.
type runningCtl struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func (c *ctl) start(ctx context.Context, step ctlStep) (*runningCtl, error) {
	cmd := c.command(ctx, step)
	r, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &runningCtl{cmd: cmd, out: bufio.NewReader(r)}, nil
}

// read returns the next n lines of output.
func (r *runningCtl) read(n int) (string, error) {
	var out strings.Builder
	for range n {
		line, err := r.out.ReadString('\n')
		out.WriteString(line)
		if err != nil {
			return out.String(), err
		}
	}
	return out.String(), nil
}

// interrupt ends the command as a user does, and waits for its end.
func (r *runningCtl) interrupt() error {
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_, copyErr := io.Copy(io.Discard, r.out)
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return errors.Join(copyErr, err)
}

func (c *ctl) runLines(ctx context.Context, step ctlStep) (string, error) {
	started := ctx
	if step.holds {
		started = context.WithoutCancel(ctx) // finish ends it
	}
	r, err := c.start(started, step)
	if err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { r.cmd.Process.Kill() })
	defer stop()
	text, err := r.read(step.lines)
	if step.holds && err == nil {
		c.running = append(c.running, r)
		return text, nil
	}
	return text, errors.Join(err, r.interrupt())
}

// finish interrupts what still runs.
func (c *ctl) finish() error {
	var errs []error
	for _, r := range c.running {
		errs = append(errs, r.interrupt())
	}
	c.running, c.caught = nil, nil
	return errors.Join(errs...)
}

// What two clusters may rightly differ in: ids, addresses, terms and sizes.
var ctlNoise = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID|id|leader|raftTerm|raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|dbSizeQuota)":-?\d+`), `"$1":N`},
	{regexp.MustCompile(`\b[0-9a-f]{14,16}\b`), "ID"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`"(ClusterID|MemberID|RaftTerm)" : \d+`), `"$1" : N`},
	{regexp.MustCompile(`remaining\(\d+s\)`), "remaining(N)"},
	{regexp.MustCompile(`"ttl":\d+`), `"ttl":N`},
	{regexp.MustCompile(`"ts":"[^"]*"`), `"ts":T`},
	{regexp.MustCompile(`"target":"[^"]*"`), `"target":T`},
	{regexp.MustCompile(`[\d.]+ [kMG]?B\b`), "SIZE"},
	{regexp.MustCompile(`\d+%`), "SHARE"},
	{regexp.MustCompile(`\b3\.7\.\d+`), "3.7"},
	{regexp.MustCompile(`(true|false), (true|false), \d+, \d+, \d+`), "$1, $2, TERM, INDEX, APPLIED"},
}

func quiet(s string) string {
	for _, n := range ctlNoise {
		s = n.pattern.ReplaceAllString(s, n.with)
	}
	return s
}

// TestEtcdctl types the same commands to etcdctl on both servers. What it
// prints must be the same.
func TestEtcdctl(t *testing.T) {
	reference, subject := startBoth(t, 1)
	both := [2]*ctl{newCtl(t, reference), newCtl(t, subject)}
	for _, script := range ctlScripts {
		t.Run(script.name, func(t *testing.T) {
			ctx := testContext(t)
			for _, step := range script.steps {
				var out [2]string
				var errs [2]error
				var wg sync.WaitGroup
				ctx, cancel := context.WithTimeout(ctx, stepTimeout)
				for i, c := range both {
					wg.Go(func() { out[i], errs[i] = c.run(ctx, step) })
				}
				wg.Wait()
				cancel()
				require.NoError(t, errs[0], "reference: etcdctl %s\n%s", step.args, out[0])
				require.NoError(t, errs[1], "subject: etcdctl %s\n%s", step.args, out[1])
				require.Equal(t, quiet(out[0]), quiet(out[1]), "etcdctl %s", step.args)
				t.Logf("etcdctl %s\n%s", step.args, out[1])
			}
			for _, c := range both {
				require.NoError(t, c.finish())
			}
		})
	}
}
