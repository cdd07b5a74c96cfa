package codec

import (
	"slices"
	"unicode/utf8"
)

const (
	// sharedBytesMax is the size up to which fields share one copy of their message.
	sharedBytesMax = 512
	// depthMax is how deep transactions may be nested to be decoded by hand.
	depthMax = 16
)

// reader reads one message. What is not as protobuf encodes it makes the reader odd: then it has nothing more to read, and
// what it has returned means nothing.
type reader struct {
	b     []byte
	owned bool // b is ours: fields may be slices of it
	apart bool // but fields are not to be slices of anything that others are
	odd   bool
	last  byte // tag
	depth byte
}

// next consumes the next tag. It returns 0, which is no tag, at the end. Fields ascend, and none comes twice: elements of
// lists are taken all at once by readList.
func (r *reader) next() byte {
	if len(r.b) == 0 {
		return 0
	}
	tag := r.b[0]
	if tag <= r.last {
		return r.spoil()
	}
	r.last = tag
	r.b = r.b[1:]
	return tag
}

// spoil notes that the message is odd, and that this is the end of it.
func (r *reader) spoil() byte {
	r.b, r.odd = nil, true
	return 0
}

// expect spoils the reader unless something holds.
func (r *reader) expect(ok bool) {
	if !ok {
		r.spoil()
	}
}

// varint consumes a varint of the least possible length.
func (r *reader) varint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	return r.longVarint()
}

// varintBytesMax is the length of the longest varint; its last byte is 1.
const varintBytesMax = 10

func (r *reader) longVarint() uint64 {
	var v uint64
	for i, c := range r.b[:min(len(r.b), varintBytesMax)] {
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 || i == varintBytesMax-1 && c > 1 {
				break
			}
			r.b = r.b[i+1:]
			return v
		}
	}
	r.spoil()
	return 0
}

// int consumes an integer other than zero, which is not encoded.
func (r *reader) int() int64 {
	v := r.varint()
	r.expect(v != 0)
	return int64(v)
}

// enum consumes an enumeration's value other than zero. Negative ones are extended to 64 bits.
func (r *reader) enum() int32 {
	v := r.int()
	r.expect(int64(int32(v)) == v)
	return int32(v)
}

// bool consumes a truth value, which is encoded only if it is true.
func (r *reader) bool() bool {
	r.expect(r.varint() == 1)
	return true
}

// body consumes a length and as many bytes, which belong to the reader's message.
func (r *reader) body() []byte {
	n := r.varint()
	if n > uint64(len(r.b)) {
		r.spoil()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// bytes consumes a string of bytes that is not empty.
func (r *reader) bytes() []byte {
	v := r.anyBytes()
	r.expect(len(v) > 0)
	return v
}

// anyBytes is bytes for a field that is encoded even when it is empty. It is not nil then.
func (r *reader) anyBytes() []byte {
	if !r.apart {
		r.share()
	}
	v := r.body()
	if r.apart || !r.owned {
		return append([]byte{}, v...)
	}
	return v
}

// text is bytes for a string, which is UTF-8.
func (r *reader) text() string {
	v := r.body()
	r.expect(len(v) > 0 && utf8.Valid(v))
	return string(v)
}

// share makes one copy of what is left, if that is short, for all the fields that are left.
func (r *reader) share() {
	if !r.owned && len(r.b) <= sharedBytesMax {
		r.b, r.owned = slices.Clone(r.b), true
	}
}

// nested consumes a message and returns a reader of it.
func (r *reader) nested() reader { return reader{b: r.body(), owned: r.owned, depth: r.depth} }

// end says whether all was as it should be.
func (r *reader) end() bool { return !r.odd && len(r.b) == 0 }

// readMessage consumes a nested message, other than one of a list.
func readMessage[T any](r *reader, read func(*T, reader) bool) *T {
	m := new(T)
	r.expect(read(m, r.nested()))
	return m
}

// readList consumes the elements of a list whose first tag is consumed.
func readList[T any](r *reader, read func(*T, reader) bool) []*T {
	r.share()
	list := newList[T](r.count())
	for i, m := range list {
		if i > 0 && len(r.b) > 0 {
			r.b = r.b[1:] // the tag, as count has seen
		}
		if !read(m, r.nested()) {
			r.spoil()
			break
		}
	}
	return list
}

// count returns how many fields with the last tag follow each other, the one whose tag is consumed included.
func (r *reader) count() int {
	ahead := reader{b: r.b}
	n := 1
	for ahead.body(); len(ahead.b) > 0 && ahead.b[0] == r.last; n++ {
		ahead.b = ahead.b[1:]
		ahead.body()
	}
	return n
}

// newList allocates n values together. One value and the list of it are one allocation.
func newList[T any](n int) []*T {
	if n == 1 {
		one := new(struct {
			list  [1]*T
			value T
		})
		one.list[0] = &one.value
		return one.list[:]
	}
	list, values := make([]*T, n), make([]T, n)
	for i := range list {
		list[i] = &values[i]
	}
	return list
}
