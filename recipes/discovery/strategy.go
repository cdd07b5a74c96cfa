package discovery

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/latchkey-go/latchkey/recipes/internal/rendezvous"
)

// Candidate is an instance that a request can be sent to.
type Candidate[M any] struct {
	Instance[M]

	usage *usage // outlives the candidate when others change what it is told
}

// usage is what a Provider has to do with one address of an instance.
type usage struct {
	inFlight atomic.Int64
	conduct  conduct
}

// InFlight returns how many requests of this Provider are under way there.
func (c *Candidate[M]) InFlight() int64 { return c.usage.inFlight.Load() }

// Strategy chooses the instance for a request. It is used by one Provider, for many
// requests at once.
type Strategy[M any] interface {
	// Choose returns one of the candidates, which are in the order of their ids and
	// at least one. They must not be changed. key is that of PickKey, or empty.
	Choose(candidates []*Candidate[M], key string) *Candidate[M]
}

// RoundRobin takes the instances in turn, each as often as its weight says, and
// spread as evenly as can be.
func RoundRobin[M any]() Strategy[M] { return &roundRobin[M]{credit: make(map[string]int64)} }

// roundRobin gives each instance credit for its weight at every choice, and lets
// the richest pay for all.
type roundRobin[M any] struct {
	mu     sync.Mutex
	credit map[string]int64 // protected by mu; by id
}

func (s *roundRobin[M]) Choose(candidates []*Candidate[M], _ string) *Candidate[M] {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.credit) > 2*len(candidates) {
		s.forget(candidates)
	}
	var total int64
	var best *Candidate[M]
	for _, c := range candidates {
		total += int64(c.Weight)
		s.credit[c.ID] += int64(c.Weight)
		if best == nil || s.credit[c.ID] > s.credit[best.ID] {
			best = c
		}
	}
	s.credit[best.ID] -= total
	return best
}

// forget drops what is known of instances that are not there.
func (s *roundRobin[M]) forget(candidates []*Candidate[M]) {
	kept := make(map[string]int64, len(candidates))
	for _, c := range candidates {
		kept[c.ID] = s.credit[c.ID]
	}
	s.credit = kept
}

// LeastLoaded takes two instances at random and of these the one with fewer
// requests of this Provider under way, for its weight. That is nearly as good as to
// know the least loaded of all, and many clients that do it do not all run to the
// same one.
func LeastLoaded[M any]() Strategy[M] { return leastLoaded[M]{} }

type leastLoaded[M any] struct{}

func (leastLoaded[M]) Choose(candidates []*Candidate[M], _ string) *Candidate[M] {
	if len(candidates) == 1 {
		return candidates[0]
	}
	i := rand.IntN(len(candidates))
	j := rand.IntN(len(candidates) - 1)
	if j >= i {
		j++ // any but i
	}
	a, b := candidates[i], candidates[j]
	if (b.InFlight()+1)*int64(a.Weight) < (a.InFlight()+1)*int64(b.Weight) {
		return b
	}
	return a
}

// ConsistentHash sends requests of one key to one instance, for as long as that is
// there: an instance that comes or goes moves only the keys that it gets or had.
// All clients choose the same one. Use it with PickKey.
func ConsistentHash[M any]() Strategy[M] { return consistentHash[M]{} }

type consistentHash[M any] struct{}

func (consistentHash[M]) Choose(candidates []*Candidate[M], key string) *Candidate[M] {
	best, score := candidates[0], -1.0
	for _, c := range candidates {
		if s := rendezvous.Score(c.ID, key, c.Weight); s > score {
			best, score = c, s
		}
	}
	return best
}

// ZoneFirst lets another strategy choose among the instances of a zone while one
// of them can be used, and among all otherwise.
func ZoneFirst[M any](zone string, among Strategy[M]) Strategy[M] {
	return zoneFirst[M]{zone, among}
}

type zoneFirst[M any] struct {
	zone  string
	among Strategy[M]
}

func (s zoneFirst[M]) Choose(candidates []*Candidate[M], key string) *Candidate[M] {
	near := make([]*Candidate[M], 0, len(candidates))
	for _, c := range candidates {
		if c.Zone == s.zone {
			near = append(near, c)
		}
	}
	if len(near) == 0 {
		near = candidates
	}
	return s.among.Choose(near, key)
}
