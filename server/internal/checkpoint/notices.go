package checkpoint

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/latchkey-go/latchkey/server/internal/state"
	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// downgradeKey is in the cluster bucket.
var downgradeKey = []byte("downgrade")

// raisedMark is the value of an alarm that a member raised. etcd, whose alarms have no value, does not look at it.
var raisedMark = []byte{1}

// The fields of etcdserverpb.AlarmMember.
const (
	fieldAlarmMember protowire.Number = 1
	fieldAlarmType   protowire.Number = 2
)

// downgrade is etcd's version.DowngradeInfo, whose JSON this is to the letter.
type downgrade struct {
	TargetVersion string `json:"target-version"`
	Enabled       bool   `json:"enabled"`
}

// notices writes all that the cluster says of itself: there is little of it.
func (w *writer) notices(n *state.Notices) {
	if n == nil || w.err != nil {
		return
	}
	alarms := w.table(alarmBucket)
	var old [][]byte
	w.err = alarms.bucket.ForEach(func(k, _ []byte) error {
		old = append(old, bytes.Clone(k))
		return nil
	})
	for _, k := range old {
		if w.err == nil {
			w.err = alarms.delete(k)
		}
	}
	for _, a := range n.Alarms {
		var mark []byte
		if a.Raised {
			mark = raisedMark
		}
		w.set(alarmBucket, alarmKey(a), mark)
	}
	row, err := json.Marshal(downgrade{TargetVersion: n.Downgrade, Enabled: n.Downgrade != ""})
	w.fail(err)
	w.set(clusterBucket, downgradeKey, row)
}

func alarmKey(a state.Alarm) []byte {
	return appendInt(appendInt(nil, fieldAlarmMember, int64(a.Member)), fieldAlarmType, int64(a.Type))
}

func loadNotices(tx *bolt.Tx, l *state.Loader) error {
	var n state.Notices
	err := tx.Bucket(alarmBucket).ForEach(func(k, mark []byte) error {
		a := state.Alarm{Raised: bytes.Equal(mark, raisedMark)}
		err := eachField(k, func(field protowire.Number, v uint64, _ []byte) {
			switch field {
			case fieldAlarmMember:
				a.Member = v
			case fieldAlarmType:
				a.Type = pb.AlarmType(v)
			}
		})
		if err != nil || a.Type == pb.AlarmType_NONE || !bytes.Equal(alarmKey(a), k) {
			return fmt.Errorf("alarm %x: %w", k, errRow)
		}
		n.Alarms = append(n.Alarms, a)
		return nil
	})
	if err != nil {
		return err
	}
	if row := tx.Bucket(clusterBucket).Get(downgradeKey); row != nil {
		var d downgrade
		if err := json.Unmarshal(row, &d); err != nil {
			return fmt.Errorf("downgrade: %w: %w", errRow, err)
		}
		if d.Enabled {
			n.Downgrade = d.TargetVersion
		}
	}
	return l.Notices(n)
}
