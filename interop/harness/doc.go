// Package harness runs real etcd and Latchkey servers as processes, side by
// side, for the comparisons of this module.
//
// Build makes the binaries of both; Start runs one member or several on free
// loopback ports, with the same flags whatever the kind, and returns when every
// member has said that it is ready. A member can be killed, frozen, stopped with
// SIGTERM and started again on its own data. Usage tells what its process has
// consumed, so that a comparison can count CPU seconds and resident memory of
// each server process apart from the client's.
//
// A process belongs to the Cluster that started it. Close ends every one of
// them, by its process id, and removes their data; should the program that
// holds the Cluster die first, the kernel kills its members.
package harness
