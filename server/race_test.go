//go:build race

package server

// manyLeases is fewer under the race detector, which makes everything about ten
// times slower; the bound on the time that they take stays.
const manyLeases = 20_000
