// Latchkey is a distributed coordination server and its command line client.
//
//	latchkey server                     run a member, alone or in a cluster
//	latchkey put KEY VALUE              and get, del, watch, txn, lease: the store
//	latchkey lock NAME -- COMMAND       run a command while holding a lock
//	latchkey status, health, member     look at the cluster
//	latchkey snapshot, latchkey backup  save and restore all data
//	latchkey doctor DATA-DIR            what is wrong with a data folder
//
// `latchkey help` has the rest. The server takes etcd's flags and environment
// variables. The client commands work on a cluster of etcd as well.
//
// Exit codes:
//
//	0    done
//	1    the command could not do what it was asked; one line on stderr says why
//	2    it was asked in a wrong way
//	3    nobody knows whether the change was made: the answer got lost
//	130  interrupted by SIGINT, 143 by SIGTERM
//
// `latchkey lock` passes on the exit code of its command, and has a few of its
// own; see `latchkey help lock`.
package main
