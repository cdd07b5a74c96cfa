// Command bench measures etcd and Latchkey side by side on the same work, and
// prints one table. docs/performance.md holds what it measured.
//
//	go run ./bench                                  # official and failover, 10 pairs of 5 s runs
//	go run ./bench -scenario recipes,typed          # the other groups of scenarios
//	go run ./bench -scenario put64,cas64 -pairs 3   # some scenarios, quickly
//	go run ./bench -scenario scale -pairs 1         # a million keys, leases and watches
//	go run ./bench -only etcd                       # one side alone
//	go run ./bench -scenario failover -trials 20    # kill -9 of the leader
//	go run ./bench -scenario hang,stop -trials 20   # SIGSTOP of the leader, and its planned stop
//
// # Scenarios
//
// Those of the group "official" use the same official etcd client on both sides.
// Those of "typed" do the same work, on latchkey through this project's client, of
// which a program has one for all its goroutines; the official ones are as many as
// -conns says, on either side.
// Those of "recipes" put this project's recipes, over its client on latchkey,
// beside etcd's own recipe over the official client on etcd. Where etcd has no
// recipe that does the work, only latchkey has figures; pubfan100 has plain puts
// and watches in its place.
//
// Those of "scale" have no rate: each fills a fresh cluster with one thing in
// large numbers and notes what a member then holds, five seconds later, and how
// long a member that was killed, or told to stop, is away. -scale 0.1 takes a
// tenth of the numbers.
//
// # Method
//
// Both sides run three members with their default settings on this machine, on
// the same file system, with the same Go release and the same durability, and
// share its cores with the client; absolute figures therefore hold for this
// machine only and the ratios are what counts.
//
// A pair starts a fresh cluster of each kind, and runs every scenario on both,
// one after the other; the side that goes first alternates from scenario to
// scenario and from pair to pair. Only one cluster is loaded at a time; what
// the other one costs while it idles is a row of its own. The reported ratio is
// the median over the pairs of latchkey/etcd, with its 95 % bootstrap interval:
// noise that lasts longer than a pair cancels out.
//
// Rates count the operations that were answered in the measured window, which
// begins after a warm-up. Latency is that of every operation of all windows,
// merged, never averaged. "CPU us/op" is the user and system time of the three
// server processes in the window over the operations of the window: it is the
// steadiest figure on a machine that other programs share.
package main
