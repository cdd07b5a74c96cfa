package election_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/election/electiontest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestElection(t *testing.T) {
	electiontest.Run(t, servertest.One(t).Endpoints())
}
