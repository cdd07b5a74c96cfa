package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/recipes/pubsub"
)

func TestTopicCommands(t *testing.T) {
	sh := newShell(t)
	code, _, errOut := sh.run("", "topic", "pub", "orders", "none")
	require.Equal(t, exitError, code)
	require.Equal(t, "latchkey: open topic \"orders\": topic has no bound\n", errOut)
	require.Regexp(t, `^[1-9][0-9]*\.0\n$`, sh.must("", "topic", "pub", "orders", "one", "--max-messages=100", "--partitions=2"))
	require.Len(t, jsonOf(t, sh.must("", "topic", "pub", "orders", "two", "--message-key=k", "--header=a=b=c", "--output=json")), 1)
	require.Regexp(t, `^[1-9][0-9]*\.0\n[1-9][0-9]*\.1\n$`, sh.must("three\nfour\n", "topic", "pub", "orders"))
	require.Equal(t, "one\ntwo\nthree\nfour\n", sh.must("", "topic", "sub", "orders", "--earliest", "--count=4"))
	two := jsonOf(t, sh.must("", "topic", "sub", "orders", "--after="+offsetOf(t, sh, 0), "--count=1", "--output=json"))
	require.Equal(t, "two", two["value"])
	require.Equal(t, "k", two["key"])
	require.Equal(t, map[string]any{"a": "b=c"}, two["header"])
	require.Equal(t, "orders", two["topic"])
	require.Equal(t, "one\n", sh.must("", "topic", "sub", "orders", "--since=1h", "--count=1"))

	// A durable name goes on where it ended.
	require.Equal(t, "one\ntwo\n", sh.must("", "topic", "sub", "orders", "--durable=d", "--earliest", "--count=2"))
	require.Equal(t, "three\n", sh.must("", "topic", "sub", "orders", "--durable=d", "--count=1"))

	sh.must("", "topic", "pub", "orders", "once", "--dedup-id=x")
	code, _, errOut = sh.run("", "topic", "pub", "orders", "once", "--dedup-id=x")
	require.Equal(t, exitError, code)
	require.Contains(t, errOut, "was published before, at offset ")

	require.Equal(t, "OK\n", sh.must("", "topic", "seek", "orders", "billing", "--after="+offsetOf(t, sh, 1)))
	require.Equal(t, "billing 3\n", sh.must("", "topic", "groups", "orders"))
	require.Equal(t, "OK\n", sh.must("", "topic", "seek", "orders", "billing", "--latest"))
	require.Equal(t, "billing 0\n", sh.must("", "topic", "groups", "orders"))
	sh.must("", "topic", "pub", "other/a", "x", "--unlimited")
	require.Equal(t, "orders\nother/a\n", sh.must("", "topic", "list"))
	require.Equal(t, "other/a\n", sh.must("", "topic", "list", "other/*"))
	require.Equal(t, "x\n", sh.must("", "topic", "sub", "other/*", "--match", "--earliest", "--count=1"))
}

// offsetOf returns the offset of the message at a place of topic orders.
func offsetOf(t *testing.T, sh *shell, n int) string {
	t.Helper()
	after := "0"
	for {
		m := jsonOf(t, sh.must("", "topic", "sub", "orders", "--after="+after, "--count=1", "--output=json"))
		after = m["offset"].(string)
		if n == 0 {
			return after
		}
		n--
	}
}

func TestTopicCommandsFollow(t *testing.T) {
	sh := newShell(t)
	sh.must("", "topic", "pub", "a", "old", "--unlimited")
	lines, stop := sh.begin("topic", "sub", "a", "--earliest", "--output=table")
	require.True(t, lines.Scan())
	require.True(t, lines.Scan())
	require.Regexp(t, `^[0-9.]+ +20[0-9TZ:.-]+ +old$`, lines.Text())
	sh.must("", "topic", "pub", "a", "new\nline", "--message-key=k")
	require.True(t, lines.Scan())
	require.Regexp(t, `^[0-9.]+ +20[0-9TZ:.-]+  k +"new\\nline"$`, lines.Text())
	require.Equal(t, exitError, stop())
}

func TestTopicCommandsRefuse(t *testing.T) {
	sh := newShell(t)
	for _, args := range [][]string{
		{"topic", "sub", "a", "--earliest", "--since=1h"},
		{"topic", "sub", "a", "--after=x"},
		{"topic", "sub", "a", "--since=yesterday"},
		{"topic", "sub", "a", "--match", "--durable=d"},
		{"topic", "pub", "a", "x", "--header=none"},
		{"topic", "pub", "a", "x", "--unlimited", "--max-age=1h"},
		{"topic", "pub", "a", "--dedup-id=x"},
		{"topic", "seek", "a", "g"},
		{"topic", "seek", "a", "g", "--latest", "--earliest"},
	} {
		code, out, errOut := sh.run("", args...)
		require.Equal(t, exitUsage, code, args)
		require.Empty(t, out, args)
		require.NotEmpty(t, errOut, args)
	}
}

func TestTopicOutput(t *testing.T) {
	at := pubsub.Offset{Revision: 12, Index: 3}
	m := &pubsub.Msg[[]byte]{
		Topic: "orders", Offset: at, Partition: 1, Key: "k", Header: pubsub.Header{"a": "b"},
		Time: time.UnixMilli(1_700_000_000_123), Value: []byte{0xff, 'x'},
	}
	goldenAnswer(t, "topic-message", func(output string) answer { return messageAnswer(m, output) })
	for name, r := range map[string]answer{
		"topic-list": topicsAnswer([]pubsub.Info{
			{Name: "orders", Partitions: 8, Retention: pubsub.Retention{Age: 24 * time.Hour, Messages: 5}},
			{Name: "z", Partitions: 1},
		}),
		"topic-groups": groupsAnswer([]groupJSON{groupOf("billing", pubsub.Lag{Messages: 7, Partitions: []pubsub.PartitionLag{
			{Partition: 0, Owner: "abc", After: at, Messages: 7}, {Partition: 1},
		}})}),
		"topic-offset": offsetAnswer(at),
	} {
		goldenAnswer(t, name, func(string) answer { return r })
	}
}
