package watch

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// Field numbers of etcd's messages WatchResponse, Event and KeyValue.
const (
	fieldEvents = 11

	fieldEventType = 1
	fieldEventKV   = 2
	fieldEventPrev = 3

	fieldKey     = 1
	fieldCreate  = 2
	fieldMod     = 3
	fieldVersion = 4
	fieldValue   = 5
	fieldLease   = 6
)

// keyValue is what both of our sources of versions have in common: the machine's versions and, for the previous
// version of an archived event, a message.
type keyValue struct {
	key                       string
	value                     []byte
	create, mod, count, lease int64
}

func fromVersion(v *state.Version) keyValue {
	if v.Deleted {
		return keyValue{key: v.Key, mod: v.Mod}
	}
	return keyValue{key: v.Key, value: v.Value, create: v.Create, mod: v.Mod, count: v.Count, lease: v.Lease}
}

func fromMessage(kv *mvccpb.KeyValue) keyValue {
	return keyValue{
		key: string(kv.Key), value: kv.Value,
		create: kv.CreateRevision, mod: kv.ModRevision, count: kv.Version, lease: kv.Lease,
	}
}

// encodeEvent returns an event as the field "events" of a WatchResponse, tag and length included. Responses are
// concatenations of fields, so these bytes go into any response for the event as they are.
func encodeEvent(kv keyValue, deleted bool, prev *keyValue) []byte {
	kvBytes := kv.size()
	size := 1 + protowire.SizeBytes(kvBytes)
	if deleted {
		size += 2
	}
	prevBytes := 0
	if prev != nil {
		prevBytes = prev.size()
		size += 1 + protowire.SizeBytes(prevBytes)
	}
	b := make([]byte, 0, 1+protowire.SizeBytes(size))
	b = protowire.AppendTag(b, fieldEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	if deleted {
		b = appendInt(b, fieldEventType, int64(mvccpb.Event_DELETE))
	}
	b = protowire.AppendTag(b, fieldEventKV, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(kvBytes))
	b = kv.appendTo(b)
	if prev != nil {
		b = protowire.AppendTag(b, fieldEventPrev, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(prevBytes))
		b = prev.appendTo(b)
	}
	return b
}

func (kv *keyValue) size() int {
	n := sizeInt(kv.create) + sizeInt(kv.mod) + sizeInt(kv.count) + sizeInt(kv.lease)
	if len(kv.key) > 0 {
		n += 1 + protowire.SizeBytes(len(kv.key))
	}
	if len(kv.value) > 0 {
		n += 1 + protowire.SizeBytes(len(kv.value))
	}
	return n
}

func (kv *keyValue) appendTo(b []byte) []byte {
	if len(kv.key) > 0 {
		b = protowire.AppendTag(b, fieldKey, protowire.BytesType)
		b = protowire.AppendString(b, kv.key)
	}
	b = appendInt(b, fieldCreate, kv.create)
	b = appendInt(b, fieldMod, kv.mod)
	b = appendInt(b, fieldVersion, kv.count)
	if len(kv.value) > 0 {
		b = protowire.AppendTag(b, fieldValue, protowire.BytesType)
		b = protowire.AppendBytes(b, kv.value)
	}
	return appendInt(b, fieldLease, kv.lease)
}

// sizeInt is the size of an integer field below number 16; zero is not written.
func sizeInt(v int64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(v))
}

func appendInt(b []byte, field protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}
