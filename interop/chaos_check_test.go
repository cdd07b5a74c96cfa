//go:build chaos

package interop_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// chaosLimits is how much of a name may be held at once.
var chaosLimits = map[string]int64{"lock": 1, "election": 1, "rw": chaosParties, "semaphore": chaosPermits, "group/a": 1, "group/b": 1}

// checkChaos returns what in the clients' logs can not be, but for the counter's final value.
func checkChaos(log []chaosEvent) (wrong []string) {
	for name, limit := range chaosLimits {
		holds := chaosSelect(log, "hold", name)
		wrong = append(wrong, checkOverlap(name, holds, limit)...)
		wrong = append(wrong, checkTokens(name, holds)...)
	}
	wrong = append(wrong, checkLeaders(log)...)
	wrong = append(wrong, checkGenerations(log)...)
	sums := map[int64]bool{}
	for _, e := range chaosSelect(log, "add", "") {
		if sums[e.Sum] {
			wrong = append(wrong, fmt.Sprintf("two additions came to %d", e.Sum))
		}
		sums[e.Sum] = true
	}
	for _, e := range log {
		if e.What == "wrong" {
			wrong = append(wrong, fmt.Sprintf("client %d: %s", e.client, e.Text))
		}
	}
	return wrong
}

// chaosSelect returns the events of a kind, of the name, or of all for "*".
func chaosSelect(log []chaosEvent, what, name string) (out []chaosEvent) {
	for _, e := range log {
		if e.What == what && (e.Name == name || name == "*") {
			out = append(out, e)
		}
	}
	return out
}

// checkOverlap holds that at no moment more was held than the limit. A hold that was seen at one moment only lasted for it.
func checkOverlap(name string, holds []chaosEvent, limit int64) (wrong []string) {
	type edge struct {
		at, weight int64
		client     int
		token      uint64
	}
	var edges []edge
	for _, h := range holds {
		edges = append(edges, edge{h.From, h.Weight, h.client, h.Token}, edge{h.To + 1, -h.Weight, h.client, h.Token})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.weight, b.weight)) })
	var used int64
	for _, e := range edges {
		if used += e.weight; used > limit {
			wrong = append(wrong, fmt.Sprintf("%s: %d of %d held when client %d had it at %d, with token %d", name, used, limit, e.client, e.at, e.token))
		}
	}
	return wrong
}

// checkTokens holds that who came later, of those who were alone, has a larger token.
func checkTokens(name string, holds []chaosEvent) (wrong []string) {
	holds = slices.DeleteFunc(holds, func(h chaosEvent) bool { return h.Token == 0 })
	slices.SortFunc(holds, func(a, b chaosEvent) int { return cmp.Compare(a.From, b.From) })
	for i := 1; i < len(holds); i++ {
		if last, h := holds[i-1], holds[i]; h.Token <= last.Token {
			wrong = append(wrong, fmt.Sprintf("%s: token %d of client %d came after %d of client %d", name, h.Token, h.client, last.Token, last.client))
		}
	}
	return wrong
}

// checkLeaders holds that nobody is seen to lead who does not: terms grow for each who observes, all see the same leader in a term, it is the one who holds
// it, and once a term was seen, no earlier one is held.
func checkLeaders(log []chaosEvent) (wrong []string) {
	names, newest, first := map[uint64]string{}, map[int]uint64{}, map[uint64]int64{}
	for _, e := range chaosSelect(log, "leader", "*") {
		if e.Token < newest[e.client] {
			wrong = append(wrong, fmt.Sprintf("client %d saw term %d after %d", e.client, e.Token, newest[e.client]))
		}
		newest[e.client] = e.Token
		if name := names[e.Token]; name != "" && name != e.Name {
			wrong = append(wrong, fmt.Sprintf("term %d is of %s and of %s", e.Token, name, e.Name))
		}
		names[e.Token] = e.Name
		if at := first[e.Token]; at == 0 || e.At < at {
			first[e.Token] = e.At
		}
	}
	terms := slices.Sorted(maps.Keys(first))
	for i := len(terms) - 2; i >= 0; i-- { // from here on it is when that or a later one was seen
		first[terms[i]] = min(first[terms[i]], first[terms[i+1]])
	}
	for _, h := range chaosSelect(log, "hold", "election") {
		if name := names[h.Token]; name != "" && name != chaosName(h.client) {
			wrong = append(wrong, fmt.Sprintf("term %d of client %d was seen to be of %s", h.Token, h.client, name))
		}
		if i, _ := slices.BinarySearch(terms, h.Token+1); i < len(terms) && first[terms[i]] < h.To {
			wrong = append(wrong, fmt.Sprintf("term %d was held at %d, though a later one was seen at %d", h.Token, h.To, first[terms[i]]))
		}
	}
	return wrong
}

// checkGenerations holds that nobody went on before as many as the barrier has parties had arrived, that all who went on saw the same, and that tokens grow.
func checkGenerations(log []chaosEvent) (wrong []string) {
	arrived := map[string][]chaosEvent{} // by member, in order
	passed := map[uint64][]chaosEvent{}  // by generation
	for _, e := range log {
		switch e.What {
		case "arrive":
			arrived[e.Name] = append(arrived[e.Name], e)
		case "pass":
			passed[e.Generation] = append(passed[e.Generation], e)
		}
	}
	var token uint64
	for _, generation := range slices.Sorted(maps.Keys(passed)) {
		passes := passed[generation]
		first := slices.MinFunc(passes, func(a, b chaosEvent) int { return cmp.Compare(a.To, b.To) })
		bad := func(format string, args ...any) {
			wrong = append(wrong, fmt.Sprintf("generation %d: ", generation)+fmt.Sprintf(format, args...))
		}
		if first.Token <= token {
			bad("token %d after %d", first.Token, token)
		}
		token = first.Token
		if sorted := slices.Sorted(slices.Values(first.Members)); len(slices.Compact(sorted)) != chaosParties {
			bad("complete with %v", first.Members)
		}
		own := map[string]chaosEvent{}
		for _, e := range passes {
			own[e.Name] = e
			if e.Token != first.Token || !slices.Equal(e.Members, first.Members) || !slices.Contains(e.Members, e.Name) {
				bad("%s saw %d %v, another one %d %v", e.Name, e.Token, e.Members, first.Token, first.Members)
			}
		}
		for _, member := range first.Members {
			from := own[member].From
			if from == 0 && len(arrived[member]) > 0 { // it was lost before it knew: its last arrival is this one
				from = arrived[member][len(arrived[member])-1].From
			}
			if from == 0 || from > first.To {
				bad("went on before %s had arrived", member)
			}
		}
	}
	return wrong
}

// The check finds what it looks for.
func TestChaosCheck(t *testing.T) {
	members := []string{"a.0", "b.0", "c.0", "d.0", "e.0"}
	good := []chaosEvent{
		{What: "hold", Name: "lock", Token: 5, Weight: 1, From: 10, To: 20},
		{What: "hold", Name: "lock", Token: 7, Weight: 1, From: 21, To: 21},
		{What: "hold", Name: "election", Token: 6, Weight: 1, From: 10, To: 20},
		{What: "hold", Name: "rw", Weight: 1, From: 10, To: 20},
		{What: "hold", Name: "rw", Weight: 1, From: 15, To: 25},
		{What: "hold", Name: "rw", Token: 9, Weight: chaosParties, From: 30, To: 40},
		{What: "hold", Name: "semaphore", Weight: 2, From: 10, To: 20},
		{What: "hold", Name: "semaphore", Weight: 1, From: 15, To: 30},
		{What: "leader", Name: "client0", Token: 6, At: 9},
		{What: "leader", Name: "client0", Token: 6, At: 11, client: 1},
		{What: "add", N: 2, Sum: 2},
		{What: "pass", Name: "a.0", From: 1, To: 9, Generation: 1, Token: 20, Members: members},
		{What: "pass", Name: "b.0", From: 8, To: 10, Generation: 1, Token: 20, Members: members},
	}
	for _, m := range members {
		good = append(good, chaosEvent{What: "arrive", Name: m, From: 5})
	}
	require.Empty(t, checkChaos(good))
	for want, e := range map[string]chaosEvent{
		"lock: 2 of 1":                {What: "hold", Name: "lock", Token: 8, Weight: 1, From: 21, To: 30},
		"lock: token 6":               {What: "hold", Name: "lock", Token: 6, Weight: 1, From: 30, To: 31},
		"election: 2 of 1":            {What: "hold", Name: "election", Token: 7, Weight: 1, From: 15, To: 16},
		"saw term 5 after 6":          {What: "leader", Name: "client0", Token: 5, At: 30},
		"term 6 is of client0":        {What: "leader", Name: "client1", Token: 6, At: 30},
		"seen to be of client0":       {What: "hold", Name: "election", Token: 6, Weight: 1, From: 30, To: 40, client: 1},
		"a later one was seen at 15":  {What: "leader", Name: "client1", Token: 7, At: 15},
		"rw: 6 of 5":                  {What: "hold", Name: "rw", Weight: 1, From: 40, To: 41},
		"semaphore: 4 of 3":           {What: "hold", Name: "semaphore", Weight: 1, From: 16, To: 17},
		"two additions came to 2":     {What: "add", N: 1, Sum: 2},
		"went back":                   {What: "wrong", Text: "the cache went back"},
		"saw 21":                      {What: "pass", Name: "c.0", From: 5, To: 11, Generation: 1, Token: 21, Members: members},
		"before d.0 had arrived":      {What: "pass", Name: "d.0", From: 10, To: 11, Generation: 1, Token: 20, Members: members},
		"before f.0 had arrived":      {What: "pass", Name: "a.0", From: 12, To: 13, Generation: 2, Token: 21, Members: append([]string{"f.0"}, members[:4]...)},
		"generation 2: complete with": {What: "pass", Name: "a.0", From: 12, To: 13, Generation: 2, Token: 21, Members: members[:4]},
		"generation 2: token 20":      {What: "pass", Name: "a.0", From: 12, To: 13, Generation: 2, Token: 20, Members: members},
	} {
		require.Contains(t, strings.Join(checkChaos(append(slices.Clone(good), e)), "\n"), want)
	}
}
