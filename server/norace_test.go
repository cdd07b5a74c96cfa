//go:build !race

package server

// manyLeases is how many leases end together.
const manyLeases = 100_000
