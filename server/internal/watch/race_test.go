//go:build race

package watch

// raced tells that the race detector runs: a sync.Pool then forgets at random.
const raced = true
