package pubsub

import (
	"fmt"
	"strings"

	"github.com/latchkey-go/latchkey/recipes/internal/sequence"
)

const (
	// registry holds one key for each topic, its settings.
	registry = "topics/"
	// root holds what topics are made of, "<root><name>:".
	root = "topic/"
	// nameBytesMax bounds the name of a topic, group, cursor or service.
	nameBytesMax = 200
)

// validName says whether a topic, or a service, can have the name: segments
// between slashes, without those characters that keys and patterns use.
func validName(name string) bool {
	if name == "" || len(name) > nameBytesMax || strings.ContainsAny(name, ":*") {
		return false
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// validPart is validName for what is one segment of a key.
func validPart(name string) bool { return validName(name) && !strings.Contains(name, "/") }

// keys are the keys of a topic.
type keys struct {
	name   string
	prefix string
}

func keysOf(name string) keys { return keys{name: name, prefix: root + name + ":"} }

func (k keys) config() string             { return registry + k.name }
func (k keys) log() string                { return k.prefix + "log/" }
func (k keys) lane(p int) string          { return fmt.Sprintf("%slog/%02d/", k.prefix, p) }
func (k keys) floor() string              { return k.prefix + "log/floor" }
func (k keys) laneFloor(p int) string     { return k.lane(p) + "floor" }
func (k keys) segments() string           { return k.prefix + "segments" }
func (k keys) dedup(id string) string     { return k.prefix + "dedup/" + id }
func (k keys) durables() string           { return k.prefix + "durable/" }
func (k keys) durable(name string) string { return k.durables() + name }
func (k keys) groupNames() string         { return k.prefix + "groups/" }
func (k keys) groups() string             { return k.prefix + "group/" }

// all returns the whole log.
func (k keys) all(partitions int) sequence.Log {
	l := sequence.Log{Floor: k.floor(), Under: k.log()}
	for p := range partitions {
		l.Lanes = append(l.Lanes, k.lane(p))
	}
	return l
}

// one returns the log of one partition.
func (k keys) one(p int) sequence.Log {
	return sequence.Log{Floor: k.laneFloor(p), Under: k.lane(p), Lanes: []string{k.lane(p)}}
}

// groupKeys are the keys of a consumer group. Members, the mark of a seek and
// owners are neighbours, so that one watch sees them and nothing else.
type groupKeys struct{ prefix string }

func (k keys) group(name string) groupKeys { return groupKeys{k.groups() + name + "/"} }

func (g groupKeys) cursors() string         { return g.prefix + "cursor/" }
func (g groupKeys) cursor(p int) string     { return fmt.Sprintf("%scursor/%02d", g.prefix, p) }
func (g groupKeys) dead(o Offset) string    { return g.deads() + o.key() }
func (g groupKeys) deads() string           { return g.prefix + "dead/" }
func (g groupKeys) members() string         { return g.prefix + "member/" }
func (g groupKeys) member(id string) string { return g.members() + id }
func (g groupKeys) moved() string           { return g.prefix + "moved" }
func (g groupKeys) owners() string          { return g.prefix + "owner/" }
func (g groupKeys) owner(p int) string      { return fmt.Sprintf("%sowner/%02d", g.prefix, p) }
func (g groupKeys) live() (first, end string) {
	return g.members(), g.prefix + "owner0"
}

// partsOf splits a key below root into the topic's name and the rest.
func partsOf(key string) (name, rest string, ok bool) {
	key, ok = strings.CutPrefix(key, root)
	if !ok {
		return "", "", false
	}
	return strings.Cut(key, ":")
}
