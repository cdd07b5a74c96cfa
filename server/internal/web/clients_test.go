package web_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server"
)

// TestEveryPath finds each path that etcd has, below each of the prefixes that clients of some age ask for. The body is
// none that any of them takes, so that nothing happens.
func TestEveryPath(t *testing.T) {
	a := newAsker(t, false)
	for _, prefix := range []string{"/v3", "/v3beta", "/v3alpha"} {
		for folder, names := range map[string]string{
			"kv":             "range put deleterange txn compaction lease/revoke lease/timetolive lease/leases",
			"lease":          "grant revoke keepalive timetolive leases",
			"cluster/member": "add remove update list promote",
			"maintenance":    "alarm status defragment hash snapshot transfer-leadership downgrade",
			"auth":           "enable disable status authenticate",
			"auth/user":      "add get list delete changepw grant revoke",
			"auth/role":      "add get list delete grant revoke",
			"lock":           "lock unlock",
			"election":       "campaign proclaim leader observe resign",
			"":               "watch",
		} {
			for name := range strings.FieldsSeq(names) {
				path := strings.ReplaceAll(prefix+"/"+folder+"/"+name, "//", "/")
				status, answer, _ := a.do("POST", path, `[]`, "Grpc-Timeout", "20m")
				want := 400
				if name == "watch" || path == prefix+"/lease/keepalive" { // the reader of a stream has no status to give
					want = map[bool]int{true: 504, false: 200}[name == "watch"]
				}
				require.Equal(t, want, status, "%s: %s", path, answer)
				status, _, _ = a.do("POST", path+"x", `[]`)
				require.Equal(t, 404, status, "%sx", path)
			}
		}
	}
}

// TestErrorsOfUsers logs in as programs without gRPC do, and has the errors by which they know what to do next: with the
// status of HTTP, the code, and the text in both fields.
func TestErrorsOfUsers(t *testing.T) {
	a := newAsker(t, false, func(c *server.Config) { c.Auth.BcryptCost = 4 })
	login := func(name, password string) (int, string) {
		status, answer, _ := a.do("POST", "/v3/auth/authenticate", `{"name":"`+name+`","password":"`+password+`"}`)
		return status, answer
	}
	status, answer := login("root", "r")
	require.Equal(t, 400, status)
	require.Equal(t, failure("etcdserver: authentication is not enabled", 9), answer)
	for _, step := range [][2]string{
		{"user/add", `{"name":"root","password":"r"}`}, {"user/grant", `{"user":"root","role":"root"}`},
		{"user/add", `{"name":"u","password":"p"}`}, {"role/add", `{"name":"reader"}`}, {"user/grant", `{"user":"u","role":"reader"}`},
		{"role/grant", `{"name":"reader","perm":{"permType":"READ","key":"YQ=="}}`}, {"enable", `{}`},
	} {
		status, answer, _ = a.do("POST", "/v3/auth/"+step[0], step[1])
		require.Equal(t, 200, status, answer)
	}
	status, answer = login("u", "wrong")
	require.Equal(t, 400, status)
	require.Equal(t, failure("etcdserver: authentication failed, invalid user ID or password", 3), answer)
	status, answer = login("u", "p")
	require.Equal(t, 200, status)
	var given struct{ Token string }
	require.NoError(t, json.Unmarshal([]byte(answer), &given))

	const read, write = `{"key":"YQ=="}`, `{"key":"YQ==","value":"MQ=="}`
	for _, c := range []struct {
		path, body, token string
		status            int
		answer            string
	}{
		{"/v3/kv/range", read, given.Token, 200, ""},
		{"/v3/kv/range", read, "none", 401, failure("etcdserver: invalid auth token", 16)},
		{"/v3/kv/range", read, "", 400, failure("etcdserver: user name is empty", 3)},
		{"/v3/kv/put", write, given.Token, 403, failure("etcdserver: permission denied", 7)},
		{"/v3/kv/put", write, "none", 401, failure("etcdserver: invalid auth token", 16)},
		{"/v3/kv/range", `{"key":"Yg=="}`, given.Token, 403, failure("etcdserver: permission denied", 7)},
		{"/v3/auth/user/list", `{}`, given.Token, 403, failure("etcdserver: permission denied", 7)},
	} {
		var header []string
		if c.token != "" {
			header = []string{"Authorization", c.token}
		}
		status, answer, h := a.do("POST", c.path, c.body, header...)
		require.Equal(t, c.status, status, "%s %s: %s", c.path, c.body, answer)
		if c.answer != "" {
			require.Equal(t, c.answer, answer)
		}
		require.Equal(t, "application/json", h.Get("Content-Type"))
	}
}

// TestDeadline gives up a call that has no end of its own.
func TestDeadline(t *testing.T) {
	a := newAsker(t, false)
	status, answer, _ := a.do("POST", "/v3/lock/lock", `{"name":"bA=="}`)
	require.Equal(t, 200, status, answer)
	status, answer, _ = a.do("POST", "/v3/lock/lock", `{"name":"bA=="}`, "Grpc-Timeout", "50m")
	require.Equal(t, 504, status, answer)
	var got struct {
		Error, Message string
		Code           int
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &got))
	require.Equal(t, 4, got.Code)
	require.Equal(t, got.Message, got.Error)
}

// TestNames has the names and the forms that clients read fields by: protobuf's own, integers of 64 bits as text, bytes as
// base64, enums by name, and nothing where a field is zero.
func TestNames(t *testing.T) {
	a := newAsker(t, false)
	status, _, _ := a.do("POST", "/v3/kv/put", `{"key":"YQ==","value":"AP8="}`)
	require.Equal(t, 200, status)
	fields := func(path, body string) map[string]any {
		status, answer, _ := a.do("POST", path, body)
		require.Equal(t, 200, status, answer)
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(answer), &got))
		return got
	}
	got := fields("/v3/kv/range", `{"key":"YQ=="}`)
	require.Equal(t, map[string]any{
		"key": "YQ==", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "AP8=",
	}, got["kvs"].([]any)[0])
	require.NotContains(t, got, "more")
	got = fields("/v3/maintenance/status", `{}`)
	for _, name := range []string{"version", "dbSize", "dbSizeInUse", "leader", "raftIndex", "raftTerm", "raftAppliedIndex", "dbSizeQuota", "storageVersion"} {
		require.IsType(t, "", got[name], name)
	}
	require.NotContains(t, got, "isLearner")
	member := fields("/v3/cluster/member/list", `{}`)["members"].([]any)[0].(map[string]any)
	require.IsType(t, "", member["ID"])
	require.NotEmpty(t, member["clientURLs"])
	require.NotEmpty(t, member["peerURLs"])
	got = fields("/v3/maintenance/alarm", `{"action":"ACTIVATE","memberID":"7","alarm":"NOSPACE"}`)
	require.Equal(t, []any{map[string]any{"memberID": "7", "alarm": "NOSPACE"}}, got["alarms"])
}

// TestHealthWithAlarm: a member without space is not healthy, unless who asks does not mind.
func TestHealthWithAlarm(t *testing.T) {
	a := newAsker(t, false)
	status, answer, _ := a.do("POST", "/v3/maintenance/alarm", `{"action":1,"memberID":7,"alarm":1}`)
	require.Equal(t, 200, status, answer)
	for path, want := range map[string]int{"/health": 503, "/health?exclude=CORRUPT": 503, "/health?exclude=NOSPACE": 200} {
		status, answer, _ = a.do("GET", path, "")
		require.Equal(t, want, status, path)
		require.Contains(t, answer, map[int]string{200: `{"health":"true","reason":""}`, 503: `{"health":"false","reason":"ALARM NOSPACE"}`}[want])
	}
	status, answer, _ = a.do("POST", "/v3/kv/put", `{"key":"YQ=="}`)
	require.Equal(t, 429, status)
	require.Equal(t, failure("etcdserver: mvcc: database space exceeded", 8), answer)
}
