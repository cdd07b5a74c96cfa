package interop_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// webRequest is one request of plain HTTP. lines is how much is read of a stream that does not end by itself.
type webRequest struct {
	method, path, body string
	header             []string
	lines              int
	reason             string // why only the status is compared
}

// Reasons for which answers differ.
const (
	unionOfErrors = "errors have the fields of all versions of etcd: error, message, code, and grpc_code, http_code, http_status on streams"
	otherWords    = "the text tells what this server's operator can do"
	otherNumbers  = "sizes and indexes of another storage"
	oldPath       = "paths of /v3alpha are served as well, for Debian's clients"
	ownHash       = "the members of a cluster agree on the hash function, servers of different kinds need not"
)

// gatewayRequests are what programs send (clients.md, 9), and what they should not.
func gatewayRequests() []webRequest {
	post := func(path, body string) webRequest { return webRequest{method: "POST", path: path, body: body} }
	with := func(r webRequest, change func(*webRequest)) webRequest { change(&r); return r }
	why := func(r webRequest, reason string) webRequest {
		return with(r, func(r *webRequest) { r.reason = reason })
	}
	get := func(path string) webRequest { return webRequest{method: "GET", path: path} }
	requests := []webRequest{
		get("/version"), get("/health"), get("/health?serializable=true"), get("/health?exclude=NOSPACE"),
		get("/livez"), get("/livez/serializable_read?verbose"), get("/livez?verbose"), get("/readyz"),
		get("/readyz/non_learner"), get("/readyz/linearizable_read?verbose"), get("/readyz/data_corruption"),
		get("/readyz?exclude=linearizable_read"), get("/nothing"), get("/v3"), get("/v3/kv/range"), get("/debug/pprof/"),
		{method: "HEAD", path: "/health"}, {method: "PUT", path: "/version"}, {method: "POST", path: "/livez"},
		{method: "PUT", path: "/v3/kv/put", body: `{"key":"YQ=="}`}, {method: "OPTIONS", path: "/v3/kv/put"},
		post("/v3/kv/range", `{}`), post("/v3/kv/range", ``), post("/v3/kv/range", `{"key":"YQ==","bogus":1,"x":{"y":[null]}}`),
		post("/v3/kv/range", `null`), post("/v3/kv/range", `{"key":null}`), post("/v3/kv/range", `{"key":"YQ=="}{"key":`),
		post("/v3/kv/put", `{"key":"YQ==","lease":"99"}`), post("/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`),
		post("/v3/kv/put", `{"key":"Yg==","value":"_-8="}`), post("/v3/kv/put", `{"key":"Yg","value":"/+8"}`),
		post("/v3beta/kv/range", `{"key":"YQ==","limit":1}`), why(post("/v3alpha/kv/range", `{"key":"YQ=="}`), oldPath),
		with(post("/v3/kv/range", `{"key":"AA==","range_end":"AA=="}`), func(r *webRequest) { r.header = []string{"Content-Type", "application/x-www-form-urlencoded"} }),
		with(post("/v3/kv/range", `{"key":"YQ=="}`), func(r *webRequest) { r.header = []string{"Accept", "text/html"} }),
		with(post("/v3/kv/range", `{"key":"YQ=="}`), func(r *webRequest) { r.header = []string{"X-HTTP-Method-Override", "GET"} }),
		with(post("/v3/kv/range", `{"key":"YQ=="}`), func(r *webRequest) { r.header = []string{"Grpc-Timeout", "5S"} }),
		with(post("/v3/kv/range", `{"key":"YQ=="}`), func(r *webRequest) { r.header = []string{"Grpc-Timeout", "5 parsecs"} }),
		with(post("/v3/kv/range", `{"key":"YQ=="}`), func(r *webRequest) { r.header = []string{"Grpc-Metadata-Hasleader", "true"} }),
		post("/v3/kv/range", `{"key":"YQ==","sort_order":"DESCEND","sort_target":"MOD"}`), post("/v3/kv/range", `{"key":"YQ==","sortOrder":2,"sortTarget":3}`),
		post("/v3/kv/range", `{"key":"YQ==","sort_order":7}`), post("/v3/kv/range", `{"key":"YQ==","sort_order":"SIDEWAYS"}`),
		post("/v3/kv/range", `{"key":"YQ==","revision":"100"}`), post("/v3/kv/range", `{"key":"YQ==","count_only":true}`),
		post("/v3/kv/range", `{"key":"*"}`), post("/v3/kv/range", `key=1`), post("/v3/kv/range", `[]`),
		post("/v3/kv/range", `{"key":"YQ==","limit":1.5}`), post("/v3/kv/range", `{"key":"YQ==","limit":"1e1"}`),
		post("/v3/kv/txn", `{"compare":[{"key":"YQ==","result":0,"target":1,"create_revision":"0"}],"success":[{"requestPut":{"key":"YQ==","value":"MQ=="}}],"failure":[{"request_range":{"key":"YQ=="}}]}`),
		post("/v3/kv/txn", `{"compare":[{"key":"YQ==","result":"EQUAL","target":"VALUE","value":"MQ=="}],"success":[{"request_delete_range":{"key":"YQ==","prev_kv":true}}]}`),
		post("/v3/kv/txn", `{"success":[{"request_txn":{"success":[{"request_put":{"key":"Yw=="}}]}},{}]}`), post("/v3/kv/txn", `{}`),
		post("/v3/kv/txn", `{"success":[{"request_put":{"key":"Yw=="}},{"request_put":{"key":"Yw=="}}]}`),
		post("/v3/kv/deleterange", `{"key":"AA==","range_end":"AA==","prev_kv":true}`), post("/v3/kv/deleterange", `{"key":"YQ=="}`),
		post("/v3/lease/grant", `{"TTL":"60","ID":4242}`), post("/v3/lease/grant", `{"TTL":60,"ID":"4242"}`), post("/v3/lease/grant", `{"TTL":"9000000001","ID":5}`),
		post("/v3/kv/put", `{"key":"YQ==","value":"MQ==","lease":"4242"}`), post("/v3/lease/keepalive", `{"ID":"4242"}`), post("/v3/lease/keepalive", `{"ID":"1"}{"ID":4242}`),
		post("/v3/lease/keepalive", ``), post("/v3/kv/lease/timetolive", `{"ID":"77","keys":true}`), post("/v3/lease/timetolive", `{"ID":77}`),
		post("/v3/lease/leases", `{}`), post("/v3/kv/lease/leases", ``), post("/v3/kv/lease/revoke", `{"ID":"4242"}`), post("/v3/lease/revoke", `{"ID":4242}`),
		post("/v3/kv/compaction", `{"revision":"4"}`), post("/v3/kv/compaction", `{"revision":"4"}`), post("/v3/kv/compaction", `{"revision":"400","physical":true}`),
		post("/v3/kv/range", `{"key":"YQ==","revision":"2"}`),
		with(post("/v3/watch", `{"create_request":{"key":"YQ==","start_revision":"5"}}`), func(r *webRequest) { r.lines = 2 }),
		with(post("/v3/watch", `{"create_request":{"key":"YQ==","start_revision":"1"}}`), func(r *webRequest) { r.lines = 2 }),
		with(post("/v3/watch", `{"createRequest":{"key":"AA==","rangeEnd":"AA==","watchId":7,"filters":["NOPUT"]}}{"cancel_request":{"watch_id":"7"}}`), func(r *webRequest) { r.lines = 2 }),
		with(post("/v3/watch", `{"create_request":{"key":"Yg==","range_end":"YQ=="}}`), func(r *webRequest) { r.lines = 1 }),
		with(post("/v3/watch", `{}`), func(r *webRequest) { r.header = []string{"Grpc-Timeout", "50m"} }),
		with(post("/v3/watch", `{"create_request":{"key":"YQ=="}}`), func(r *webRequest) { r.header = []string{"Grpc-Timeout", "1S"} }),
		post("/v3/cluster/member/list", `{}`), post("/v3/cluster/member/list", `{"linearizable":true}`),
		why(post("/v3/maintenance/status", `{}`), otherNumbers), post("/v3/maintenance/nothing", `{}`), post("/v3/kv/rangestream", `{}`),
		post("/v3/kv/put/", `{"key":"YQ=="}`), post("/v3/kv//put", `{"key":"YQ=="}`), why(post("/v3/kv/put", `{"key":"`+strings.Repeat("A", 4<<20)+`"}`), otherNumbers),
		post("/v3/kv/put", `{"key":"YQ==","value":"`+strings.Repeat("A", 1_600_000)+`"}`),
	}
	return slices.Concat(requests, lockRequests(), authRequests())
}

// lockRequests take locks and lead, with a lease whose id is known.
func lockRequests() []webRequest {
	post := func(path, body string) webRequest { return webRequest{method: "POST", path: path, body: body} }
	return []webRequest{
		post("/v3/lease/grant", `{"TTL":"600","ID":77}`), post("/v3/lock/lock", `{"name":"bA==","lease":77}`),
		post("/v3/lock/unlock", `{"key":"bC80ZA=="}`), post("/v3/election/leader", `{"name":"ZQ=="}`),
		post("/v3/election/campaign", `{"name":"ZQ==","lease":"77","value":"dg=="}`), post("/v3/election/leader", `{"name":"ZQ=="}`),
		{method: "POST", path: "/v3/election/observe", body: `{"name":"ZQ=="}`, lines: 1},
		post("/v3/lock/unlock", `{"key":"bm9uZQ=="}`), post("/v3/lease/revoke", `{"ID":77}`),
	}
}

// tokenOf stands for the token that a server has given for the last name and password.
const tokenOf = "TOKEN"

// authRequests switch users on, and ask with and without a token.
func authRequests() []webRequest {
	post := func(path, body string, header ...string) webRequest {
		return webRequest{method: "POST", path: path, body: body, header: header}
	}
	return []webRequest{
		post("/v3/kv/range", `{"key":"YQ=="}`, "Authorization", "none"),
		post("/v3/auth/authenticate", `{"name":"root","password":"pw"}`),
		post("/v3/auth/status", `{}`), post("/v3/auth/enable", `{}`),
		post("/v3/auth/user/add", `{"name":"root","password":"pw"}`), post("/v3/auth/user/add", `{"name":"root","password":"pw"}`),
		post("/v3/auth/role/add", `{"name":"root"}`), post("/v3/auth/user/grant", `{"user":"root","role":"root"}`),
		post("/v3/auth/user/add", `{"name":"alice","password":"pw"}`), post("/v3/auth/role/add", `{"name":"reader"}`),
		post("/v3/auth/role/grant", `{"name":"reader","perm":{"permType":"READ","key":"YQ=="}}`),
		post("/v3/auth/user/grant", `{"user":"alice","role":"reader"}`), post("/v3/auth/user/get", `{"name":"alice"}`),
		post("/v3/auth/role/get", `{"role":"reader"}`), post("/v3/auth/user/list", `{}`), post("/v3/auth/role/list", ``),
		post("/v3/auth/role/get", `{"role":"nobody"}`), post("/v3/auth/enable", `{}`),
		post("/v3/kv/range", `{"key":"YQ=="}`), post("/v3/auth/authenticate", `{"name":"root","password":"wrong"}`),
		post("/v3/auth/authenticate", `{}`), post("/v3/auth/authenticate", `{"name":"alice","password":"pw"}`),
		post("/v3/kv/range", `{"key":"YQ=="}`, "Authorization", tokenOf), post("/v3/kv/range", `{"key":"YQ=="}`, "Authorization", "Bearer "+tokenOf),
		post("/v3/kv/range", `{"key":"YQ=="}`, "Grpc-Metadata-Token", tokenOf), post("/v3/kv/put", `{"key":"YQ=="}`, "Authorization", tokenOf),
		post("/v3/kv/range", `{"key":"Yg=="}`, "Authorization", tokenOf), post("/v3/kv/range", `{"key":"YQ=="}`, "Authorization", "nonsense.1"),
		post("/v3/kv/range", `{"key":"YQ=="}`, "Authorization", tokenOf, "Grpc-Timeout", "5S"), post("/v3/auth/user/list", `{}`, "Authorization", tokenOf),
		post("/v3/maintenance/alarm", `{}`, "Authorization", tokenOf), post("/v3/lease/grant", `{"TTL":60,"ID":9}`), post("/v3/cluster/member/list", `{}`),
		{method: "POST", path: "/v3/watch", body: `{"create_request":{"key":"YQ=="}}`, header: []string{"Authorization", tokenOf}, lines: 1},
		{method: "POST", path: "/v3/watch", body: `{"create_request":{"key":"Yg=="}}`, header: []string{"Authorization", tokenOf}, lines: 1},
		{method: "POST", path: "/v3/watch", body: `{"create_request":{"key":"YQ=="}}`, lines: 1},
		post("/v3/auth/authenticate", `{"name":"root","password":"pw"}`), post("/v3/kv/put", `{"key":"YQ=="}`, "Authorization", tokenOf),
		post("/v3/auth/user/changepw", `{"name":"alice","password":"new"}`, "Authorization", tokenOf), post("/v3/auth/disable", `{}`, "Authorization", tokenOf),
		post("/v3/kv/range", `{"key":"YQ=="}`), {method: "GET", path: "/health"},
	}
}

// What etcd's gateway says of a stream whose time is over: either, depending on whether its client or its server in the
// same process notices first. Ours says the second.
const (
	resetText    = "stream terminated by RST_STREAM with error code: CANCEL"
	deadlineText = "context deadline exceeded"
)

// TestGateway asks a fresh etcd and a fresh Latchkey the same over plain HTTP.
func TestGateway(t *testing.T) {
	reference, subject := startBoth(t, 1)
	reasons, tokens := make(map[string]int), make(map[*side]string)
	for _, r := range gatewayRequests() {
		theirs, ours := askWeb(t, reference, r, tokens), askWeb(t, subject, r, tokens)
		name := fmt.Sprint(r.method, " ", r.path, " ", r.body[:min(len(r.body), 200)], " ", r.header)
		switch {
		case r.reason == oldPath:
			reasons[oldPath]++
			require.Equal(t, []int{404, 200}, []int{theirs.status, ours.status}, name)
			continue
		case r.reason != "":
			reasons[r.reason]++
			require.Equal(t, theirs.status, ours.status, "%s\netcd: %s\nlatchkey: %s", name, theirs.body, ours.body)
			continue
		}
		require.Equal(t, theirs.status, ours.status, "%s\netcd: %s\nlatchkey: %s", name, theirs.body, ours.body)
		require.Equal(t, theirs.kind, ours.kind, name)
		theirs.body = strings.ReplaceAll(theirs.body, resetText, deadlineText)
		if theirs.body != ours.body {
			reasons[unionOfErrors]++
			require.Equal(t, theirs.body, withoutUnion(ours.body), name)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(reasons)) {
		t.Logf("%3d: %s", reasons[r], r)
	}
}

type webAnswer struct {
	status int
	kind   string // content type
	body   string
}

// webIdentities are what differs between two clusters.
var webIdentities = regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID|leader)":"[0-9]{5,}"|"(raft_term)":"[0-9]+"|http://127.0.0.1:[0-9]+|"(name)":"[^"]*"`)

func askWeb(t *testing.T, s *side, r webRequest, tokens map[*side]string) webAnswer {
	q, err := http.NewRequestWithContext(testContext(t), r.method, s.cluster.Members[0].ClientURL+r.path, strings.NewReader(r.body))
	require.NoError(t, err)
	for i := 0; i < len(r.header); i += 2 {
		q.Header.Set(r.header[i], strings.ReplaceAll(r.header[i+1], tokenOf, tokens[s]))
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := client.Do(q)
	require.NoError(t, err)
	defer func() { _ = a.Body.Close() }()
	var body string
	if r.lines == 0 {
		b, err := io.ReadAll(a.Body)
		require.NoError(t, err)
		body = string(b)
	} else {
		in := bufio.NewReader(a.Body)
		for range r.lines {
			line, err := in.ReadString('\n')
			require.NoError(t, err, "%s %s: %s", r.path, r.body, line)
			body += line
		}
	}
	var given struct{ Token string }
	if json.Unmarshal([]byte(body), &given) == nil && given.Token != "" {
		tokens[s] = given.Token
		body = strings.ReplaceAll(body, given.Token, tokenOf)
	}
	body = strings.ReplaceAll(body, "\u00a0", " ") // protobuf's errors have either, so that nobody compares them
	return webAnswer{a.StatusCode, a.Header.Get("Content-Type"), webIdentities.ReplaceAllString(plainJSON(body), `"$1$2$3":"-"`)}
}

// plainJSON takes the spaces out of JSON that protobuf's library may have put in; other text stays.
func plainJSON(body string) string {
	var out strings.Builder
	for line := range strings.Lines(body) {
		var v json.RawMessage
		if json.Unmarshal([]byte(line), &v) != nil {
			return body
		}
		b, err := json.Marshal(v)
		if err != nil {
			return body
		}
		out.Write(b)
		if strings.HasSuffix(line, "\n") {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// webError is an error as etcd 3.7 says it.
type webError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// withoutUnion leaves of an error, alone or at the end of a stream, what etcd 3.7 says.
func withoutUnion(body string) string {
	var alone webError
	if json.Unmarshal([]byte(body), &alone) == nil && alone.Code != 0 {
		if b, err := json.Marshal(alone); err == nil {
			return string(b)
		}
	}
	at := strings.LastIndex(strings.TrimSuffix(body, "\n"), "\n") + 1
	var last struct {
		Error webError `json:"error"`
	}
	if json.Unmarshal([]byte(body[at:]), &last) == nil && last.Error.Code != 0 {
		if b, err := json.Marshal(last); err == nil {
			return body[:at] + string(b) + "\n"
		}
	}
	return body
}
