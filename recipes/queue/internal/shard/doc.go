// Package shard is the pure part of a queue: what is written into the store,
// and what a worker decides about one shard of it. It has no goroutine, clock,
// randomness or network: transactions come out as data, and their answers,
// events and the time go in. So the model in its tests drives the code that runs
// in production, with every fault drawn from a seed.
//
// A queue is cut into shards. One worker at a time holds a shard's token and
// claims items of it; what it has claimed it first writes into its journal of
// that shard. An item ends by a transaction that compares the journal's create
// revision, which is constant until somebody adopts the journal. So claims are
// serialized by the journal's mod revision, ends are not serialized at all, and
// both are fenced.
package shard
