package pubsub

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"github.com/latchkey-go/latchkey/client"
)

// listPage is how many topics are read at once.
const listPage = 256

// Info describes a topic.
type Info struct {
	Name       string    `json:"name"`
	Partitions int       `json:"partitions"`
	Retention  Retention `json:"retention"`
}

// List yields the topics whose names match a pattern, in order of names. In a
// pattern, "*" stands for one segment of a name and "**", as the last segment, for
// one or more; "**" alone matches all.
//
// Errors: [ErrName] for a pattern that can match nothing, and those of the client.
func List(ctx context.Context, c *client.Client, pattern string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if !validPattern(pattern) {
			yield(Info{}, fmt.Errorf("list topics %q: %w", pattern, ErrName))
			return
		}
		prefix := registry + literal(pattern)
		end := prefix + "\xff"
		for from := prefix; ; {
			res, err := c.Get(ctx, from, client.Range(end), client.Limit(listPage))
			if err != nil {
				yield(Info{}, fmt.Errorf("list topics: %w", err))
				return
			}
			for _, kv := range res.KVs {
				name := strings.TrimPrefix(kv.Key, registry)
				from = kv.Key + "\x00"
				var s settings
				if json.Unmarshal(kv.Value, &s) != nil || !matches(pattern, name) {
					continue
				}
				if !yield(Info{Name: name, Partitions: s.Partitions, Retention: s.Retention}, nil) {
					return
				}
			}
			if !res.More {
				return
			}
		}
	}
}

// validPattern says whether the pattern can match the name of a topic.
func validPattern(pattern string) bool {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if s == "**" && i == len(segments)-1 || s == "*" {
			segments[i] = "x"
		}
	}
	return validName(strings.Join(segments, "/"))
}

// literal returns what all names that match begin with.
func literal(pattern string) string {
	before, _, _ := strings.Cut(pattern, "*")
	return before
}

// matches says whether a name matches a pattern.
func matches(pattern, name string) bool {
	for {
		want, restWant, moreWant := strings.Cut(pattern, "/")
		have, restHave, moreHave := strings.Cut(name, "/")
		switch {
		case want == "**" && !moreWant:
			return true
		case want != "*" && want != have || moreWant != moreHave:
			return false
		case !moreWant:
			return true
		}
		pattern, name = restWant, restHave
	}
}
