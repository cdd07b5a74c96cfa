// Package pubsub is durable topics in the store: messages that services publish and
// others read, live or later, alone or in groups, and that commit in the same
// transaction as the application's own state.
//
// # Overview
//
//	orders, err := pubsub.Open[Order](ctx, c, "shop/orders", pubsub.MaxAge(24*time.Hour))
//	_, err = orders.Publish(ctx, Order{ID: 7}, pubsub.Key("customer-3"))
//
//	for m, err := range orders.Subscribe(ctx, pubsub.Earliest()) {
//		...
//	}
//
// [Topic.Publish] publishes one message, [Topic.PublishTx] in a transaction of the
// caller's, and a [Publisher] many, which it packs. [Topic.Subscribe] yields messages
// from a [Start]: Latest, Earliest, After an offset, Since a time, or behind what a
// Durable name has handled. A [Group] shares a topic among its members; [Msg.Tx]
// commits the effects of a message with the group's cursor. [Merge] and [Match] read
// several topics in one total order. [Service] is request and reply.
//
// # Guarantees
//
// Published: when Publish returns, the message is on the disks of most members. It
// is there once, whatever answers are lost; ErrUncertain says that ctx ended before
// it was known.
//
// Order: a topic has one order, that of the commits, for all subscribers. Messages
// of one publisher are in the order of its calls, as long as it has one commit in
// flight. Messages of several topics have one order as well: that of their offsets'
// revisions.
//
// Read: a subscriber gets each message that is kept, once and without gaps, over
// lost connections, lost members and compactions. One that is slower than its topic
// reads from the store what its process no longer has. What it costs is bounded.
//
// Handled: a group and a durable name handle each message at least once, and with
// Msg.Tx exactly once, as to what is in the store. Messages of one key are handled
// one at a time and in order, also over failures and changes of members. A worker
// that dies gives its partitions back within the session's TTL. A message that
// kills workers becomes a dead letter, and so does one that fails too often.
//
// Kept: messages are kept as long as the topic's [Retention] says, and go some
// seconds later. A topic without a bound is refused, unless [Unlimited] is given.
//
// Not promised: that a message is handled once as to effects outside of the store;
// an order of what is published by different processes other than that of the
// commits; that subscribers see a message that is trimmed before they come to it.
//
// # Keys
//
//	topics/<name>                      the settings, JSON
//	topic/<name>:log/<pp>/<id>.<note>  a record: messages of one commit in partition pp
//	topic/<name>:log/floor             ids up to it are refused; log/<pp>/floor are copies
//	topic/<name>:segments              what is remembered of the past, JSON
//	topic/<name>:dedup/<hash>          a dedup id, leased
//	topic/<name>:durable/<name>        the cursor of a durable name, JSON
//	topic/<name>:groups/<group>        a group
//	topic/<name>:group/<group>/cursor/<pp>  how far it is, JSON
//	topic/<name>:group/<group>/dead/<offset>  a dead letter, JSON
//	topic/<name>:group/<group>/member/<id>  a member, leased
//	topic/<name>:group/<group>/moved   the latest seek
//	topic/<name>:group/<group>/owner/<pp>  which member has the partition, leased
//	service/<name>:call/<id>           a request, leased
//	service/<name>:answer/<id>         its answer, leased
//	service/<name>:server/<id>         a server, leased
//
// Names are segments between slashes, of up to 200 bytes in all, without ":", "*"
// and control characters. Names of groups and durable names are one segment. The
// client's namespace stands in front of all keys.
//
// # Failure handling
//
// An answer is lost: the same transaction is sent again. Its key is new, so it is
// executed once, and it is refused once its place is trimmed.
//
// The context ends: Publish returns ErrUncertain if its request was under way. A loop
// ends with the context's error; a durable name's cursor is stored. Run drains.
//
// A member of a group dies: its keys end with its lease; others take its partitions
// over behind what it has stored, and begin the first messages one by one.
//
// A member pauses, and its lease ends: what it commits afterwards is refused, as its
// transactions have the owner's key as a condition. The context of its handlers ends
// before that, by the margin that sessions keep.
//
// History is compacted: readers read the keys again; current keys are never
// compacted.
//
// The store is full: Publish returns client.ErrNoSpace. Trimming deletes, which
// still passes.
package pubsub
