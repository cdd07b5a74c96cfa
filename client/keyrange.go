package client

// noEnd as a range's end means that the range has none, in the wire protocol as here.
const noEnd = "\x00"

// keyRange is a key, or a range of keys, as the caller names them: without the namespace.
type keyRange struct {
	key string
	end string // exclusive; empty for the one key, noEnd for no end
}

// single says that only one key is meant.
func (r keyRange) single() bool { return r.end == "" }

// in returns the range as the server must see it for a client with namespace ns.
//
// A range without an end ends where the namespace does. The empty key stands for the first key there can be: with a
// namespace that is the bare prefix, without one the protocol spells it "\x00".
func (r keyRange) in(ns string) keyRange {
	out := keyRange{key: ns + r.key}
	switch r.end {
	case "":
	case noEnd:
		out.end = prefixEnd(ns)
	default:
		out.end = ns + r.end
	}
	if !r.single() && out.key == "" {
		out.key = noEnd
	}
	return out
}

// holds says whether the range contains the key.
func (r keyRange) holds(key string) bool {
	if r.single() {
		return key == r.key
	}
	return key >= r.key && (r.end == noEnd || key < r.end)
}

// prefixRange returns the range of all keys that start with prefix.
func prefixRange(prefix string) keyRange { return keyRange{key: prefix, end: prefixEnd(prefix)} }

// prefixEnd returns the first key behind all those with the prefix, or noEnd when there is none such.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return noEnd
}

// afterKey returns the first possible key behind key.
func afterKey(key string) string { return key + "\x00" }
