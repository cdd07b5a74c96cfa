package shard

import (
	"fmt"
	"strconv"
	"strings"
)

// Keys of a queue, below its own prefix. What one watch covers stands together:
// all workers watch what is below "m/".
const (
	ConfigKey    = "m/config"
	PauseKey     = "m/pause"
	PurgeKey     = "m/purge"
	TokenPrefix  = "m/o/"
	WorkerPrefix = "m/s/"
	CancelPrefix = "m/x/"
	ManagePrefix = "m/"
	DeadPrefix   = "x/"
	ItemPrefix   = "i/"
	ClaimPrefix  = "j/"
)

func shardName(n int) string { return fmt.Sprintf("%04x", n) }

// TokenKey is the key whose holder claims items of the shard.
func TokenKey(n int) string { return TokenPrefix + shardName(n) }

// WorkerKey lives as long as the worker's session.
func WorkerKey(worker string) string { return WorkerPrefix + worker }

// CancelKey tells workers that a job was cancelled.
func CancelKey(job string) string { return CancelPrefix + job }

// JournalsOf is the prefix of all journals of a shard.
func JournalsOf(n int) string { return ClaimPrefix + shardName(n) + "/" }

// JournalKey has a worker's claims of a shard.
func JournalKey(n int, worker string) string { return JournalsOf(n) + worker }

// ItemsOf is the prefix of all items of a shard.
func ItemsOf(n int) string { return ItemPrefix + shardName(n) + "/" }

// LaneOf is the prefix of the items of one priority that are ready.
func LaneOf(n int, lane int) string { return fmt.Sprintf("%s%02x/", ItemsOf(n), lane) }

// DueOf is the prefix of the items that wait for their time.
func DueOf(n int) string { return ItemsOf(n) + "t/" }

// MarkKey has a bound below which a lane has no item.
func MarkKey(n int, lane int) string { return fmt.Sprintf("w/%04x/%02x", n, lane) }

// DeadKey is a dead letter.
func DeadKey(job string) string { return DeadPrefix + job }

// ResultKey has what became of a job.
func ResultKey(job string) string { return "r/" + job }

// UniqueKey names the job that holds a unique key.
func UniqueKey(hash string) string { return "u/" + hash }

// ProducerKey has the number of a writer's last batch.
func ProducerKey(id string) string { return "p/" + id }

// CronKey has the last tick of a cron entry.
func CronKey(name string) string { return "k/" + name }

// ItemKey is the key of an item that is ready.
func ItemKey(n, lane int, record string) string { return LaneOf(n, lane) + record }

// DueKey is the key of an item that waits for its time, in milliseconds since
// 1970. It stays there when it is due.
func DueKey(n int, due int64, record string) string {
	return fmt.Sprintf("%s%016x/%s", DueOf(n), max(0, due), record)
}

// Record returns the last segment of an item's key.
func Record(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

// ShardOf returns the number that the keys of items, journals and tokens carry.
func ShardOf(key string) int {
	at := 2
	if strings.HasPrefix(key, TokenPrefix) {
		at = len(TokenPrefix)
	}
	if len(key) < at+4 {
		return -1
	}
	n, err := strconv.ParseUint(key[at:at+4], 16, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

// DueTime returns when an item with the key becomes due; zero for one that is
// in a lane.
func DueTime(key string) int64 {
	const at = len("i/0000/t/")
	if !isDue(key) || len(key) < at+16 {
		return 0
	}
	ms, err := strconv.ParseUint(key[at:at+16], 16, 63)
	if err != nil {
		return 0
	}
	return int64(ms)
}

func isDue(key string) bool { return len(key) > 9 && key[7:9] == "t/" }

// seedOf returns the revision that the id in the key of a lane begins with: the
// item was committed after it.
func seedOf(key string) int64 {
	record := Record(key)
	if len(record) < 16 {
		return 0
	}
	seed, err := strconv.ParseUint(record[:16], 16, 63)
	if err != nil {
		return 0
	}
	return int64(seed)
}

// JobID names a job for its whole life, in whatever key it is: its shard, lane
// and record.
func JobID(n, lane int, record string) string { return fmt.Sprintf("%04x-%02x-%s", n, lane, record) }

// PartID names one message of a chunk.
func PartID(job string, part int) string { return fmt.Sprintf("%s.%x", job, part) }

// ParseJobID is the inverse of JobID.
func ParseJobID(job string) (n, lane int, record string, ok bool) {
	if len(job) < 9 || job[4] != '-' || job[7] != '-' {
		return 0, 0, "", false
	}
	a, err1 := strconv.ParseUint(job[:4], 16, 16)
	b, err2 := strconv.ParseUint(job[5:7], 16, 8)
	return int(a), int(b), job[8:], err1 == nil && err2 == nil && !strings.Contains(job[8:], "/")
}

// Bound is less than the record of every item whose maker had heard of the
// revision, and greater than those of all who had not.
func Bound(rev int64) string { return fmt.Sprintf("%016x", max(0, rev)) }
