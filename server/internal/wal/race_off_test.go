//go:build !race

package wal_test

// raced says that the race detector is on, which makes opening a log ten times slower.
const raced = false
