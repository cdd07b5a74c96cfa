package interop_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/barrier/barriertest"
	"github.com/latchkey-go/latchkey/recipes/cache/cachetest"
	"github.com/latchkey-go/latchkey/recipes/counter/countertest"
	"github.com/latchkey-go/latchkey/recipes/discovery/discoverytest"
	"github.com/latchkey-go/latchkey/recipes/election/electiontest"
	"github.com/latchkey-go/latchkey/recipes/lock/locktest"
	"github.com/latchkey-go/latchkey/recipes/membership/membershiptest"
	"github.com/latchkey-go/latchkey/recipes/pubsub/pubsubtest"
	"github.com/latchkey-go/latchkey/recipes/queue/queuetest"
)

// suites are the promises of our client and recipes.
var suites = []struct {
	name string
	run  func(t *testing.T, endpoints []string)
}{
	{"client", clienttest.Run},
	{"lock", locktest.Run},
	{"election", electiontest.Run},
	{"barrier", barriertest.Run},
	{"counter", countertest.Run},
	{"cache", cachetest.Run},
	{"discovery", discoverytest.Run},
	{"membership", membershiptest.Run},
	{"pubsub", pubsubtest.Run},
	{"queue", queuetest.Run},
}

// TestOurs holds that our client and recipes keep their promises on etcd as well as on Latchkey.
func TestOurs(t *testing.T) {
	for _, s := range suites {
		for _, kind := range kinds() {
			t.Run(s.name+"/"+kind, func(t *testing.T) {
				s.run(t, startSide(t, kind, 1).cluster.Endpoints())
			})
		}
	}
}

// kinds are the servers to test our client on.
func kinds() []string {
	if *referenceKind == *subjectKind {
		return []string{*subjectKind}
	}
	return []string{*referenceKind, *subjectKind}
}
