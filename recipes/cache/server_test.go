package cache_test

import (
	"testing"

	"github.com/latchkey-go/latchkey/recipes/cache/cachetest"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestCache(t *testing.T) {
	cachetest.Run(t, servertest.One(t).Endpoints())
}
