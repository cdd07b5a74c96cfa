package interop_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/client/clienttest"
	"github.com/latchkey-go/latchkey/recipes/lock/locktest"
	"github.com/latchkey-go/latchkey/recipes/queue/queuetest"
)

// Our client and recipes keep their promises on etcd as well as on Latchkey.
func TestOurClient(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			clienttest.Run(t, startSide(t, kind, 1).cluster.Endpoints())
		})
	}
}

func TestOurLock(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			locktest.Run(t, startSide(t, kind, 1).cluster.Endpoints())
		})
	}
}

func TestOurQueue(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			queuetest.Run(t, startSide(t, kind, 1).cluster.Endpoints())
		})
	}
}

// kinds are the servers to test our client on.
func kinds() []string {
	if *referenceKind == *subjectKind {
		return []string{*subjectKind}
	}
	return []string{*referenceKind, *subjectKind}
}
