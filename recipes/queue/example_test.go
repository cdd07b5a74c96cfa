package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/queue"
	"github.com/latchkey-go/latchkey/server/servertest"
)

type payment struct {
	From, To string
	Amount   int
}

// Money moves once, however often the job runs: the balances are written together
// with the job's end.
func ExampleRawJob_Tx() {
	var c *client.Client // client.New(...)
	ctx := context.Background()
	q, err := queue.Open[payment](ctx, c, "payments")
	if err != nil {
		return
	}
	balances := client.NewTyped[int](c, "balance/")
	_ = q.Run(ctx, func(_ context.Context, j *queue.Job[payment]) error {
		tx := j.Tx()
		from, err := balances.GetTx(tx, j.Value.From)
		if err != nil {
			return err
		}
		to, err := balances.GetTx(tx, j.Value.To)
		if err != nil {
			return err
		}
		if err := balances.PutTx(tx, j.Value.From, from-j.Value.Amount); err != nil {
			return err
		}
		return balances.PutTx(tx, j.Value.To, to+j.Value.Amount)
	})
}

// The program of the package's documentation.
func TestExample(t *testing.T) {
	c := servertest.One(t).Client()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	q, err := queue.Open[payment](ctx, c, "mail")
	require.NoError(t, err)
	_, err = q.Enqueue(ctx, payment{To: "ada"})
	require.NoError(t, err)
	var got string
	require.NoError(t, q.Run(ctx, func(_ context.Context, j *queue.Job[payment]) error {
		got = fmt.Sprint("to ", j.Value.To)
		stop()
		return nil
	}))
	require.Equal(t, "to ada", got)
}
