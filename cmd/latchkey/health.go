package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

// healthKey is what etcdctl reads to learn whether a member is well.
const healthKey = "health"

// health is how one endpoint is.
type health struct {
	endpoint string
	took     time.Duration
	err      error
}

func newHealthCommand(a *app) *cobra.Command {
	return a.addGlobals(&cobra.Command{
		Use:   "health",
		Short: "tell whether each endpoint serves",
		Long: `Read a key from each endpoint, linearizably: that takes a member that serves, a leader and a majority. The exit code is
0 if all of them answer, and 1 otherwise. A cluster that wants to know the user first is well, too.`,
		Example: `  latchkey health
  latchkey health --endpoints=10.0.0.1:2379,10.0.0.2:2379 --timeout=2s`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return a.health(c.Context()) },
	})
}

func (a *app) health(ctx context.Context) error {
	all := make([]health, len(a.endpoints))
	var asking sync.WaitGroup
	for i, endpoint := range a.endpoints {
		asking.Go(func() { all[i] = a.healthOf(ctx, endpoint) })
	}
	asking.Wait()
	if err := a.print(healthAnswer(all)); err != nil {
		return err
	}
	sick := 0
	for _, h := range all {
		if h.err != nil {
			sick++
		}
	}
	if sick > 0 {
		return fmt.Errorf("%d of %d endpoints are not healthy", sick, len(all))
	}
	return nil
}

func (a *app) healthOf(ctx context.Context, endpoint string) health {
	one := *a
	one.endpoints = []string{endpoint}
	start := time.Now()
	err := one.withClient(func(cl *client.Client) error {
		_, err := cl.GetOne(ctx, healthKey)
		return err
	})
	for _, fine := range []error{client.ErrNotFound, client.ErrPermissionDenied, client.ErrUnauthenticated} {
		if errors.Is(err, fine) {
			err = nil
		}
	}
	return health{endpoint, time.Since(start), err}
}

func healthAnswer(all []health) answer {
	type healthJSON struct {
		Endpoint string `json:"endpoint"`
		Healthy  bool   `json:"healthy"`
		Took     string `json:"took"`
		Error    string `json:"error,omitempty"`
	}
	object := []healthJSON{}
	t := &table{header: []string{"ENDPOINT", "HEALTHY", "TOOK", "ERROR"}}
	for _, h := range all {
		took := h.took.Round(10 * time.Microsecond).String()
		object = append(object, healthJSON{h.endpoint, h.err == nil, took, messageOf(h.err)})
		t.add(h.endpoint, strconv.FormatBool(h.err == nil), took, messageOf(h.err))
	}
	return answer{simple: t.commas, table: t, json: map[string]any{"endpoints": object}}
}
