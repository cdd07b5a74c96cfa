package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/discovery"
)

const (
	defaultServiceTTL   = 10 * time.Second
	defaultServiceDrain = 5 * time.Second
	defaultServiceCheck = 2 * time.Second
)

const registerLong = `Register an instance of a service, and keep it registered while a command runs, or until this one is interrupted.

The registration comes back by itself after a loss of the connection, of the lease or of the key. Watchers see at most
one time to live after this command was cut off that the instance is lost. With --check, the instance is registered only
while ADDR accepts connections.

At SIGINT, SIGTERM, and when somebody drains the instance (latchkey service drain), watchers are told first; after the
time of --drain the command gets the signal, or SIGTERM. The instance is taken out of the service when it has ended. If
another instance takes the id, the command is stopped, with SIGKILL after the grace. Without one, the id is printed.

The command finds the id in LATCHKEY_SERVICE_ID. Clients of package recipes/discovery and of etcd's naming package find
the instance.

Exit codes: that of the command, 128 and the number for one that a signal ended, and
  125  the instance could not be registered, or another one has taken its id
  126  the command can not be executed
  127  there is no such command
  2    wrong use`

// registerOptions are the flags of service register.
type registerOptions struct {
	id, zone, version, meta string
	weight                  uint32
	ttl, drain, grace       time.Duration
	check, wait             bool
}

func newServiceCommand(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "service",
		Short: "register services, and find them",
		Example: `  latchkey service register mail 10.0.0.1:8080 -- ./mail --listen=10.0.0.1:8080
  latchkey service list mail
  latchkey service watch mail --output=json
  latchkey service drain mail 7QZ2`,
		RunE: runGroup,
	}
	c.AddCommand(a.serviceRegister(), a.serviceList(), a.serviceWatch(), a.serviceDrain())
	return c
}

func (a *app) serviceRegister() *cobra.Command {
	var o registerOptions
	c := &cobra.Command{
		Use:   "register NAME ADDR [flags] [-- COMMAND [ARGS]]",
		Short: "register an instance while a command runs",
		Long:  registerLong,
		Example: `  latchkey service register mail 10.0.0.1:8080 --check -- ./mail --listen=10.0.0.1:8080
  latchkey service register mail 10.0.0.1:8080 --zone=east --weight=3 --meta='{"shard":7}'`,
		Args: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			if dash < 0 && len(args) != 2 || dash >= 0 && (dash != 2 || len(args) == 2) {
				return usageErrorf("latchkey service register takes a name and an address: %s", c.UseLine())
			}
			if o.meta != "" && !json.Valid([]byte(o.meta)) {
				return usageErrorf("--meta %s is not JSON", o.meta)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.runRegistered(c.Context(), args[0], args[1], args[2:], o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.id, "id", "", "what the instance is called in the service (random)")
	f.StringVar(&o.zone, "zone", "", "where it runs, for clients that prefer their own zone")
	f.StringVar(&o.version, "app-version", "", "the version of the program, for people")
	f.StringVar(&o.meta, "meta", "", "what its clients are told besides, as JSON")
	f.Uint32Var(&o.weight, "weight", 1, "its share of the requests, relative to the others'")
	f.BoolVar(&o.check, "check", false, "register it only while ADDR accepts connections")
	f.BoolVar(&o.wait, "wait", false, "wait while another instance has the id")
	f.DurationVar(&o.ttl, "ttl", defaultServiceTTL, "how long it stays registered after this command was cut off")
	f.DurationVar(&o.drain, "drain", defaultServiceDrain, "time between telling watchers and stopping the command")
	f.DurationVar(&o.grace, "grace", defaultLockGrace, "time between SIGTERM and SIGKILL when the id is lost")
	return a.addGlobals(c)
}

// instance makes the instance of the flags.
func (o registerOptions) instance(name, addr string) discovery.Instance[json.RawMessage] {
	in := discovery.Instance[json.RawMessage]{
		Service: name, ID: o.id, Addr: addr, Zone: o.zone, Version: o.version, Weight: o.weight,
	}
	if o.meta != "" {
		in.Meta = json.RawMessage(o.meta)
	}
	return in
}

func (o registerOptions) options(addr string) []discovery.RegisterOption {
	opts := []discovery.RegisterOption{discovery.WithDrainTimeout(o.drain)}
	if o.wait {
		opts = append(opts, discovery.WithWait())
	}
	if o.check {
		opts = append(opts, discovery.WithHealth(discovery.Health{Every: defaultServiceCheck, Check: func(ctx context.Context) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			return conn.Close()
		}}))
	}
	return opts
}

// runRegistered keeps an instance registered while the command runs. It returns an
// exitCode for all but success.
func (a *app) runRegistered(ctx context.Context, name, addr string, argv []string, o registerOptions) error {
	c, err := a.connectAs(client.Config{SessionTTL: o.ttl})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.Close(); cerr != nil {
			fmt.Fprintf(a.errOut, "latchkey: %s\n", messageOf(cerr))
		}
	}()
	if o.id == "" {
		o.id = rand.Text()
	}
	k := newRegistrar(ctx)
	go k.keep(ctx, c, o.instance(name, addr), o.options(addr), a.timeout)
	code, err := exitFailed, error(nil)
	// What is not there before it listens can not be waited for before it is started.
	if o.check && len(argv) > 0 {
		code, err = a.runBeside(k, argv, o)
	} else if err = <-k.registered; err == nil {
		code, err = a.runBeside(k, argv, o)
	}
	k.finish()
	<-k.ended
	if k.err != nil {
		fmt.Fprintf(a.errOut, "latchkey: %s\n", messageOf(k.err))
	}
	switch i, ok := signalOf(ctx); {
	case code == exitOK && err == nil:
		return nil
	case code == exitFailed && ok:
		return exitCode{code: i.code()} // what failed, failed because of the signal
	}
	return exitCode{code, a.explain(err)}
}

// runBeside runs the command, or waits without one, until it ends or is to.
func (a *app) runBeside(k *registrar, argv []string, o registerOptions) (int, error) {
	if len(argv) == 0 {
		fmt.Fprintf(a.out, "%s\n", o.id)
		select {
		case <-k.stop.Done():
			if i, ok := signalOf(k.stop); ok && !k.drained {
				return i.code(), nil
			}
			return exitOK, nil
		case <-k.held.Done():
			return exitFailed, context.Cause(k.held)
		}
	}
	g := &guarded{argv: argv, in: a.in, out: a.out, errOut: a.errOut, grace: o.grace}
	g.env = append(append(g.env, a.environ...), "LATCHKEY_SERVICE_ID="+o.id)
	code, err := g.run(k.stop, k.held)
	if errors.Is(err, errLost) {
		err = context.Cause(k.held)
	}
	return code, err
}

// registrar keeps an instance registered beside a command.
type registrar struct {
	stop       context.Context // ends, because of a signal, when the command is to stop
	end        context.CancelCauseFunc
	held       context.Context // ends when the command may run no longer
	lose       context.CancelCauseFunc
	registered chan error    // gets one result
	finished   chan struct{} // closed when the command has ended
	ended      chan struct{} // closed when the instance is out of the service
	drained    bool          // an operator wanted it; readable once stop is done
	err        error         // of taking it out; readable once ended is closed
}

func newRegistrar(ctx context.Context) *registrar {
	k := &registrar{registered: make(chan error, 1), finished: make(chan struct{}), ended: make(chan struct{})}
	k.stop, k.end = context.WithCancelCause(context.WithoutCancel(ctx))
	k.held, k.lose = context.WithCancelCause(context.WithoutCancel(ctx))
	return k
}

// finish says that the command has ended.
func (k *registrar) finish() {
	close(k.finished)
	k.end(nil)
}

// keep registers the instance, and takes it out when the command has ended.
func (k *registrar) keep(ctx context.Context, c *client.Client, in discovery.Instance[json.RawMessage],
	opts []discovery.RegisterOption, timeout time.Duration,
) {
	defer close(k.ended)
	defer k.lose(nil)
	registering, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(k.stop, func() { cancel(context.Cause(k.stop)) })()
	r, err := discovery.Register(registering, c, in, opts...)
	k.registered <- err
	if err != nil {
		if i, ok := signalOf(ctx); ok {
			k.end(i)
		} else {
			k.lose(err)
		}
		<-k.finished
		return
	}
	why := interrupted{syscall.SIGTERM}
	select {
	case <-k.finished:
	case <-r.Context().Done():
		k.lose(context.Cause(r.Context()))
	case <-ctx.Done():
		why, _ = signalOf(ctx)
		_ = r.Drain(k.stop) // who can not be told finds out when the key is gone
	case <-r.Draining():
		k.drained = true
		_ = r.Drain(k.stop)
	}
	k.end(why)
	<-k.finished
	closing, cancelClosing := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancelClosing()
	if err := r.Close(closing); !errors.Is(context.Cause(r.Context()), discovery.ErrDuplicateID) {
		k.err = err
	}
}

func (a *app) serviceList() *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:     "list NAME",
		Short:   "print the instances of a service",
		Long:    "Print the instances of a service as they are registered now: id, address and state, a line each.",
		Example: "  latchkey service list mail --output=table",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				s, err := discovery.List[json.RawMessage](c.Context(), cl, args[0])
				if err != nil {
					return err
				}
				for _, key := range s.Invalid {
					fmt.Fprintf(a.errOut, "latchkey: the value of key %s is no instance\n", key)
				}
				return a.print(instancesAnswer(s.Instances))
			})
		},
	})
}

func (a *app) serviceWatch() *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "watch NAME",
		Short: "print how a service changes",
		Long: `Print the instances of a service, and then every change until the command is interrupted: joined, changed, left (after
it was drained), or lost. In JSON, one object to a line.`,
		Example: "  latchkey service watch mail --output=json",
		Args:    exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				for s, err := range discovery.Watch[json.RawMessage](c.Context(), cl, args[0]) {
					if err != nil {
						return err
					}
					if err := a.printChanges(s); err != nil {
						return err
					}
				}
				return nil
			})
		},
	})
}

func (a *app) serviceDrain() *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "drain NAME ID",
		Short: "tell an instance to finish",
		Long: `Tell an instance to drain: clients send it nothing new from now on, and the instance learns that it is to finish. One
that was registered by latchkey service register ends.`,
		Example: "  latchkey service drain mail 7QZ2",
		Args:    exactly("NAME", "ID"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(cl *client.Client) error {
				if err := discovery.Drain(c.Context(), cl, args[0], args[1]); err != nil {
					return err
				}
				return a.print(answer{
					simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "Instance %s drains\n", args[1]) },
					json:   map[string]any{"service": args[0], "id": args[1], "state": discovery.Draining.String()},
				})
			})
		},
	})
}

// instanceJSON is an instance in JSON.
type instanceJSON struct {
	ID      string          `json:"id"`
	Addr    string          `json:"addr"`
	State   string          `json:"state"`
	Weight  uint32          `json:"weight"`
	Zone    string          `json:"zone,omitempty"`
	Version string          `json:"version,omitempty"`
	Meta    json.RawMessage `json:"meta,omitempty"`
}

func toInstanceJSON(in discovery.Instance[json.RawMessage]) instanceJSON {
	meta := in.Meta
	if string(meta) == "null" {
		meta = nil
	}
	return instanceJSON{in.ID, in.Addr, in.State.String(), in.Weight, in.Zone, in.Version, meta}
}

func instancesAnswer(instances []discovery.Instance[json.RawMessage]) answer {
	all := make([]instanceJSON, 0, len(instances))
	t := &table{header: []string{"ID", "ADDRESS", "STATE", "WEIGHT", "ZONE", "VERSION", "META"}}
	for _, in := range instances {
		i := toInstanceJSON(in)
		all = append(all, i)
		t.add(i.ID, i.Addr, i.State, strconv.FormatUint(uint64(i.Weight), 10), i.Zone, i.Version, string(i.Meta))
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			for _, i := range all {
				fmt.Fprintf(w, "%s, %s, %s\n", i.ID, i.Addr, i.State)
			}
		},
		table: t,
		json:  map[string]any{"instances": all},
	}
}

// printChanges prints what is new in a snapshot.
func (a *app) printChanges(s discovery.Snapshot[json.RawMessage]) error {
	for _, c := range []struct {
		event     string
		instances []discovery.Instance[json.RawMessage]
	}{{"joined", s.Joined}, {"changed", s.Changed}, {"left", s.Left}, {"lost", s.Lost}} {
		for _, in := range c.instances {
			if err := a.print(changeAnswer(c.event, in, s.Revision)); err != nil {
				return err
			}
		}
	}
	return nil
}

func changeAnswer(event string, in discovery.Instance[json.RawMessage], rev client.Revision) answer {
	i := toInstanceJSON(in)
	return answer{
		simple: func(w *bytes.Buffer) { fmt.Fprintf(w, "%s, %s, %s, %s\n", event, i.ID, i.Addr, i.State) },
		json: struct {
			Event    string          `json:"event"`
			Revision client.Revision `json:"revision"`
			instanceJSON
		}{event, rev, i},
	}
}
