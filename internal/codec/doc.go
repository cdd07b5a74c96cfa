// Package codec encodes and decodes the messages that most requests consist of, faster than protobuf's reflection does,
// and with the same result.
//
// # What is the same
//
// [Append] gives the bytes that protobuf gives, with fields in the order of their numbers. [Unmarshal] gives the message,
// or the error, that protobuf gives. The hand-written half knows only the one encoding that protobuf itself writes:
// ascending fields, each at most once, no zero that could be left out, no varint that is longer than it must be, nested
// transactions that are not absurdly deep. Whatever is not so, be it unknown fields, fields twice or nonsense, is left to
// protobuf, as are all messages that are not hot. So the odd cases have no second implementation that could differ, and a
// message that was decoded by hand is known to encode to the same bytes again: that is what [UnmarshalOwned] tells.
// A fuzz test holds all of that against protobuf.
//
// # Memory
//
// Unmarshal keeps nothing of what it decodes. The byte fields of a message that is no longer than 512 bytes are slices of
// one copy of it; of a longer one, each nested message that is short enough has its copy, and each longer field is an
// allocation of its own. So whoever keeps one field keeps at most half a kilobyte of others. Such slices have no capacity
// beyond their length: an append to one does not write into another. The key and the value of a put are always two
// allocations, because a store keeps them, each for a time of its own.
//
// UnmarshalOwned is the same for a buffer that the caller gives away: the byte fields of requests other than puts are then
// slices of the buffer itself.
//
// Messages that are decoded together, such as the pairs of a range or an operation and its request, are allocated
// together.
package codec
