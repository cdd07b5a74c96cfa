package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/latchkey-go/latchkey/server/internal/state"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// The buckets. ownBucket is not part of the sum, which it holds.
var (
	keyBucket     = []byte("key")
	metaBucket    = []byte("meta")
	leaseBucket   = []byte("lease")
	clusterBucket = []byte("cluster")
	membersBucket = []byte("members")
	removedBucket = []byte("members_removed")
	alarmBucket   = []byte("alarm")
	ownBucket     = []byte("latchkey")

	etcdBuckets = [][]byte{
		keyBucket, metaBucket, leaseBucket, clusterBucket, membersBucket,
		alarmBucket, removedBucket, authBucket, usersBucket, rolesBucket,
	}
)

var (
	indexKey          = []byte("consistent_index")
	termKey           = []byte("term")
	confStateKey      = []byte("confState")
	storageVersionKey = []byte("storageVersion")
	scheduledKey      = []byte("scheduledCompactRev")
	finishedKey       = []byte("finishedCompactRev")
	clusterVersionKey = []byte("clusterVersion")

	identityKey = []byte("identity")
	stateKey    = []byte("state")
)

const (
	etcdVersion = "3.7.0" // whose schema this is; storageVersion and clusterVersion have major and minor only

	formatVersion = 1
	identityBytes = 4 * 8
	stateBytes    = 7 * 8

	revisionBytes = 8 + 1 + 8
	tombstoneMark = 't'
)

var errRow = errors.New("malformed row")

// appendRevision appends the key of a version in the key bucket.
func appendRevision(b []byte, r state.Revision, deleted bool) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.Main))
	b = append(b, '_')
	b = binary.BigEndian.AppendUint64(b, uint64(r.Sub))
	if deleted {
		b = append(b, tombstoneMark)
	}
	return b
}

func parseRevision(b []byte) (r state.Revision, deleted bool, err error) {
	deleted = len(b) == revisionBytes+1 && b[revisionBytes] == tombstoneMark
	if !deleted && len(b) != revisionBytes || b[8] != '_' {
		return r, false, fmt.Errorf("revision key %x: %w", b, errRow)
	}
	r = state.Revision{Main: int64(binary.BigEndian.Uint64(b)), Sub: int64(binary.BigEndian.Uint64(b[9:]))}
	if r.Main < 0 || r.Sub < 0 {
		return r, false, fmt.Errorf("revision key %x: %w", b, errRow)
	}
	return r, deleted, nil
}

// The fields of mvccpb.KeyValue.
const (
	fieldKey     protowire.Number = 1
	fieldCreate  protowire.Number = 2
	fieldMod     protowire.Number = 3
	fieldVersion protowire.Number = 4
	fieldValue   protowire.Number = 5
	fieldLease   protowire.Number = 6
)

// appendVersion appends v as mvccpb.KeyValue; a tombstone has its key only, as in etcd. Written by hand, as there are
// many: it takes no message and no allocation.
func appendVersion(b []byte, v *state.Version) []byte {
	if v.Key != "" {
		b = protowire.AppendTag(b, fieldKey, protowire.BytesType)
		b = protowire.AppendString(b, v.Key)
	}
	if v.Deleted {
		return b
	}
	b = appendInt(b, fieldCreate, v.Create)
	b = appendInt(b, fieldMod, v.Mod)
	b = appendInt(b, fieldVersion, v.Count)
	if len(v.Value) > 0 {
		b = protowire.AppendTag(b, fieldValue, protowire.BytesType)
		b = protowire.AppendBytes(b, v.Value)
	}
	return appendInt(b, fieldLease, v.Lease)
}

// versionSize is a bound for what appendVersion appends.
func versionSize(v *state.Version) int {
	return len(v.Key) + len(v.Value) + 6*(1+binary.MaxVarintLen64)
}

// decodeVersion reads a row of the key bucket into v, which shares no memory with it.
func decodeVersion(v *state.Version, k, row []byte) error {
	rev, deleted, err := parseRevision(k)
	if err != nil {
		return err
	}
	*v = state.Version{Mod: rev.Main, Sub: rev.Sub, Deleted: deleted}
	var mod int64
	ints := [...]*int64{fieldCreate: &v.Create, fieldMod: &mod, fieldVersion: &v.Count, fieldLease: &v.Lease}
	err = eachField(row, func(field protowire.Number, n uint64, bytes []byte) {
		switch field {
		case fieldKey:
			v.Key = string(bytes)
		case fieldValue:
			v.Value = append([]byte(nil), bytes...)
		case fieldCreate, fieldMod, fieldVersion, fieldLease:
			*ints[field] = int64(n)
		}
	})
	if err != nil || !deleted && mod != rev.Main {
		return fmt.Errorf("version at revision %v: %w", rev, errRow)
	}
	if deleted { // whatever else is there is not part of a tombstone
		v.Value, v.Create, v.Count, v.Lease = nil, 0, 0, 0
	}
	return nil
}

// The fields of leasepb.Lease. RemainingTTL, field 3, is not written: every lease gets its full TTL after a restart.
const (
	fieldID  protowire.Number = 1
	fieldTTL protowire.Number = 2
	// fieldGranted is ours: the index of the entry that granted the lease. etcd skips it.
	fieldGranted protowire.Number = 1001
)

func leaseKey(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func encodeLease(l state.LeaseInfo) []byte {
	b := appendInt(appendInt(nil, fieldID, l.ID), fieldTTL, l.TTL)
	return appendInt(b, fieldGranted, int64(l.Index))
}

func decodeLease(k, row []byte) (l state.LeaseInfo, err error) {
	err = eachField(row, func(field protowire.Number, n uint64, _ []byte) {
		switch field {
		case fieldID:
			l.ID = int64(n)
		case fieldTTL:
			l.TTL = int64(n)
		case fieldGranted:
			l.Index = n
		}
	})
	if err != nil || len(k) != 8 || int64(binary.BigEndian.Uint64(k)) != l.ID {
		return l, fmt.Errorf("lease %x: %w", k, errRow)
	}
	return l, nil
}

// member is etcd's membership.Member, whose JSON this is to the letter.
type member struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

func memberKey(id uint64) []byte { return strconv.AppendUint(nil, id, 16) }

func encodeMember(m state.Member) ([]byte, error) {
	row, err := json.Marshal(member{ID: m.ID, PeerURLs: m.PeerURLs, IsLearner: m.Learner, Name: m.Name, ClientURLs: m.ClientURLs})
	if err != nil {
		return nil, fmt.Errorf("encode member %x: %w", m.ID, err)
	}
	return row, nil
}

func decodeMember(k, row []byte) (state.Member, error) {
	var m member
	if err := json.Unmarshal(row, &m); err != nil {
		return state.Member{}, fmt.Errorf("member %s: %w: %w", k, errRow, err)
	}
	if string(memberKey(m.ID)) != string(k) {
		return state.Member{}, fmt.Errorf("member %s: %w", k, errRow)
	}
	return state.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner}, nil
}

func encodeConfState(c *raftpb.ConfState) ([]byte, error) {
	row, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode ConfState: %w", err)
	}
	return row, nil
}

func decodeConfState(row []byte) (*raftpb.ConfState, error) {
	c := &raftpb.ConfState{}
	if row == nil {
		return c, nil
	}
	if err := json.Unmarshal(row, c); err != nil {
		return nil, fmt.Errorf("ConfState: %w: %w", errRow, err)
	}
	return c, nil
}

// identity is the row that says whose file this is.
type identity struct{ cluster, member uint64 }

func (i identity) encode() []byte {
	return encodeNumbers(identityKey, formatVersion, i.cluster, i.member)
}

func decodeIdentity(row []byte) (identity, error) {
	if len(row) < 8 {
		return identity{}, fmt.Errorf("%s: %w", identityKey, errRow)
	}
	if v := binary.BigEndian.Uint64(row); v != formatVersion {
		return identity{}, fmt.Errorf("format version %d, this program knows %d: %w", v, formatVersion, ErrForeign)
	}
	n, err := decodeNumbers(identityKey, row, identityBytes)
	if err != nil {
		return identity{}, err
	}
	return identity{cluster: n[1], member: n[2]}, nil
}

// position is the row that says at what point of the log the file is, and what it must contain.
type position struct {
	index, term       uint64
	revision, compact int64
	content           content
}

func (p position) encode() []byte {
	return encodeNumbers(stateKey, p.index, p.term, uint64(p.revision), uint64(p.compact), p.content.rows, p.content.sum)
}

func decodePosition(row []byte) (position, error) {
	n, err := decodeNumbers(stateKey, row, stateBytes)
	if err != nil {
		return position{}, err
	}
	return position{
		index: n[0], term: n[1], revision: int64(n[2]), compact: int64(n[3]), content: content{rows: n[4], sum: n[5]},
	}, nil
}

// encodeNumbers makes a row of our own bucket. Its last number is a hash of the others, since no sum covers them.
func encodeNumbers(key []byte, numbers ...uint64) []byte {
	b := make([]byte, 0, 8*len(numbers)+8)
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return binary.BigEndian.AppendUint64(b, rowHash(ownBucket, key, b))
}

func decodeNumbers(key, row []byte, size int) (numbers []uint64, err error) {
	if len(row) != size || rowHash(ownBucket, key, row[:size-8]) != binary.BigEndian.Uint64(row[size-8:]) {
		return nil, fmt.Errorf("%s: %w", key, errRow)
	}
	for at := 0; at < size; at += 8 {
		numbers = append(numbers, binary.BigEndian.Uint64(row[at:]))
	}
	return numbers, nil
}

func appendInt(b []byte, field protowire.Number, n int64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(n))
}

// eachField calls fn for the varint and length-delimited fields of a message and skips others.
func eachField(b []byte, fn func(field protowire.Number, n uint64, bytes []byte)) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errRow
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n >= 0 {
				fn(field, v, nil)
			}
		case protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(b); n >= 0 {
				fn(field, 0, v)
			}
		default:
			n = protowire.ConsumeFieldValue(field, kind, b)
		}
		if n < 0 {
			return errRow
		}
		b = b[n:]
	}
	return nil
}
