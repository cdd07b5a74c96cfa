// Package discovery lets services find each other: instances register themselves
// and stay registered, clients know at any time which ones there are, and send
// their requests to one that serves.
//
// # Overview
//
// An instance registers, until it closes the registration:
//
//	r, err := discovery.Register(ctx, c, discovery.Instance[Tags]{Service: "mail", Addr: "10.0.0.1:8080"})
//	...
//	err = r.Drain(ctx) // nothing new, please
//	err = r.Close(ctx)
//
// A client picks one for each request:
//
//	mail := discovery.NewProvider(c, "mail", discovery.LeastLoaded[Tags]())
//	defer mail.Close()
//	in, done, err := mail.Pick(ctx)
//	...
//	done(send(ctx, in.Addr))
//
// [Watch] yields the service itself, as a [Snapshot] after each change, and
// [Losses] the instances that are lost, for those who do something about it. gRPC
// finds instances through package
// [github.com/latchkey-go/latchkey/recipes/discovery/discoverygrpc]. [List] and
// [Drain] are for operators.
//
// # Guarantees
//
// Registered: from the revision at which the key is written until it is deleted,
// by Close or with the lease of the session. One id has one instance: who comes
// second is refused, in this process too. A registration that has lost its session
// or its key comes back by itself, with what it said last; it ends for nothing but
// Close, another instance that has taken its id, and the end of a session that was
// given to it or of the client.
//
// Lost: an instance that dies, or is cut off, is gone at most one TTL after the
// last renewal that the cluster has acknowledged, and those who watch are told at
// once, with what it was.
//
// Watched: each snapshot is the service at one revision, and none is older than
// the one before. Changes of one transaction are in one snapshot. Nothing is
// missed but what was compacted away before it was seen, which Resynced says.
//
// Picked: from the instances that are up and not ejected. If all are ejected, from
// all; if all drain, from those; if the cluster can not be reached, from those that
// were known; if all were lost, from those that were lost lately. So a fault of the
// cluster never takes a service down that works.
//
// # Keys
//
// An instance is one key, "<service>/<id>", attached to the lease. Its value is
// that of etcd's naming/endpoints package, {"Op":0,"Addr":"...","Metadata":...},
// with more fields, all optional, which that package skips: "zone", "version",
// "weight", "state" ("draining", or absent) and "by", which names the registration.
// So etcd's resolver finds our instances, and we find its.
//
// Others may edit the value of a registration: as long as "by" stays, the instance
// takes it over. Keys with a further "/" belong to a service whose name is longer.
// (etcd's package counts them to this one as well.) A service's name must not be
// empty, end in "/" or contain "//"; an id must not be empty or contain "/".
//
// # Failure handling
//
// The cluster can not be reached: the instance tries on, and its key lives as long
// as the lease. Clients go on with what they know.
//
// Answers get lost: a write of unknown outcome is repeated until it is known, each
// under the condition that the key is as it was seen, so none is made twice. A
// creation that arrives after everybody has forgotten it would leave an instance
// that nobody serves; for half a minute after a creation without an answer, such a
// key is looked for and removed.
//
// The instance fails: with [WithHealth], it takes its key out itself, and is lost
// to those who watch until it is healthy again. Clients that get errors from it stop
// to use it on their own: see [Ejection].
//
// The program is restarted with the same id before its former lease has ended:
// Register refuses, or waits with [WithWait]. A random id, the default, needs
// neither.
package discovery
