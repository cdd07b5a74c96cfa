package main

import (
	"errors"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/client"
)

// TestOutputOfAdministration is TestOutput for the commands about directories,
// users and members.
func TestOutputOfAdministration(t *testing.T) {
	sick := errors.New("get at 10.0.0.2:2379: unavailable")
	checks := []healthCheck{
		{"10.0.0.1:2379", 1234567 * time.Nanosecond, nil}, {"10.0.0.2:2379", 5 * time.Second, sick},
	}
	members := []memberHealth{
		{client.Member{ID: 0x8e9e05c52164694d, Name: "a"}, checks[0]},
		{client.Member{ID: 7, Name: "b"}, checks[1]},
		{client.Member{ID: 8, Name: "c"}, checks[0]},
		{client.Member{ID: 9}, healthCheck{err: errors.New("it has not started yet")}},
	}
	roles := []rolePermissions{
		{"reader", []client.Permission{
			{Access: client.Read, Key: "greeting"}, {Access: client.Read, Key: "config/", End: "config0"},
			{Access: client.Write, Key: "a", End: "m"}, {Access: client.ReadWrite, Key: "x", End: "\x00"},
			{Access: client.ReadWrite, Key: "\x00", End: "\x00"}, {Access: client.Read, Key: "\xff\n"},
		}},
		{"nothing", nil},
	}
	for name, r := range map[string]answer{
		"rm": removeAnswer(&client.DeleteResult{Revision: 14, Deleted: 1, Prev: []client.KV{
			{Key: "/testdir/testkey", Value: []byte("Hello"), CreateRevision: 2, ModRevision: 5, Version: 3},
		}}),
		"ls":             lsAnswer([]string{"/config/", "/greeting", "/\xff"}, 12),
		"ls-nothing":     lsAnswer(nil, 12),
		"user-get":       userAnswer("alice", []string{"reader", "writer"}),
		"user-get-none":  userAnswer("bob", nil),
		"user-list":      namesAnswer("users", []string{"alice", "root"}),
		"user-add":       doneAnswer("user", "alice", "user %s created\n"),
		"role-get":       permissionsAnswer(roles),
		"auth-status":    authAnswer(client.AuthStatus{Enabled: true, Revision: 7}),
		"health":         healthAnswer(checks),
		"cluster-health": clusterHealthAnswer(members),
		"alarm-list": alarmsAnswer([]client.Alarm{
			{Member: 7, Type: client.AlarmNoSpace}, {Member: 8, Type: client.AlarmCorrupt},
		}),
		"hashkv": hashAnswer([]client.KVHash{
			{Endpoint: "10.0.0.1:2379", Hash: 4022250974, Revision: 12, Compact: -1},
		}),
	} {
		goldenAnswer(t, name, func(string) answer { return r })
	}
}
