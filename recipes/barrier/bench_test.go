package barrier_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/barrier"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// BenchmarkDouble goes through a double barrier of 50 members on a cluster of three, in
// and out, again and again; the members are spread over a number of processes, each with
// a client and a session of its own.
//
//	go test ./recipes/barrier -run xxx -bench Double -benchtime 300x
func BenchmarkDouble(b *testing.B) {
	const members = 50
	c := servertest.Three(b)
	for _, processes := range []int{1, 10, 50} {
		b.Run(fmt.Sprintf("processes=%d", processes), func(b *testing.B) {
			var all []*barrier.Double
			for i := range processes {
				cl, err := client.New(client.Config{Endpoints: c.Endpoints()})
				if err != nil {
					b.Fatal(err)
				}
				defer cl.Close()
				for range members / processes {
					all = append(all, barrier.NewDouble(cl, fmt.Sprintf("bench-%d", processes), members, barrier.WithMember(fmt.Sprint(i))))
				}
			}
			var wg sync.WaitGroup
			for _, d := range all {
				wg.Go(func() {
					for range b.N {
						in, err := d.Enter(b.Context())
						if err == nil {
							err = in.Leave(b.Context())
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rounds/s")
		})
	}
}
