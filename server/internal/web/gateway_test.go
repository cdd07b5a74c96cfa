package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

const testTimeout = 30 * time.Second

// asker makes requests to one member.
type asker struct {
	t    testing.TB
	http *http.Client
	addr string
}

func newAsker(t testing.TB, http2 bool, configure ...func(*server.Config)) *asker {
	var opts []servertest.Option
	for _, f := range configure {
		opts = append(opts, servertest.WithConfig(f))
	}
	c := servertest.One(t, opts...)
	return &asker{t: t, http: speaker(t, http2), addr: strings.TrimPrefix(c.Endpoints()[0], "http://")}
}

// speaker returns a client of HTTP/1, or of HTTP/2 without TLS.
func speaker(t testing.TB, http2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: testTimeout}
}

// identities are what differs between two runs.
var identities = regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID|leader)":"[0-9]{5,}"|"(raft_term)":"[0-9]+"`)

func normal(body string) string { return identities.ReplaceAllString(body, `"$1$2":"-"`) }

func (a *asker) do(method, path, body string, header ...string) (status int, answer string, h http.Header) {
	q, err := http.NewRequestWithContext(a.t.Context(), method, "http://"+a.addr+path, strings.NewReader(body))
	require.NoError(a.t, err)
	for i := 0; i < len(header); i += 2 {
		q.Header.Add(header[i], header[i+1])
		if header[i] == "Host" {
			q.Host = header[i+1]
		}
	}
	r, err := a.http.Do(q)
	require.NoError(a.t, err)
	b, err := io.ReadAll(r.Body)
	require.NoError(a.t, err)
	require.NoError(a.t, r.Body.Close())
	return r.StatusCode, normal(string(b)), r.Header
}

func header(revision int) string {
	return fmt.Sprintf(`"header":{"cluster_id":"-","member_id":"-","revision":"%d","raft_term":"-"}`, revision)
}

func failure(message string, code int) string {
	return fmt.Sprintf(`{"error":%q,"message":%q,"code":%d}`, message, message, code)
}

// TestGoldenReplies asks, in order, for what programs ask, and knows each answer to the byte.
func TestGoldenReplies(t *testing.T) {
	const aKV = `{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"MQ=="}`
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	cases := []struct {
		name, method, path, body string
		header                   []string
		status                   int
		answer                   string
	}{
		{"version", "GET", "/version", "", nil, 200, `{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"}`},
		{"health", "GET", "/health", "", nil, 200, `{"health":"true","reason":""}`},
		{"no key", "POST", "/v3/kv/range", `{}`, nil, 400, failure("etcdserver: key is not provided", 3)},
		{"no body", "POST", "/v3/kv/range", ``, nil, 400, failure("etcdserver: key is not provided", 3)},
		{"nothing there, an unknown field", "POST", "/v3/kv/range", `{"key":"YQ==","bogus":1,"more":{"x":[1]}}`, nil, 200, `{` + header(1) + `}`},
		{"lease not found", "POST", "/v3/kv/put", `{"key":"YQ==","lease":"99"}`, nil, 404, failure("etcdserver: requested lease not found", 5)},
		{"txn with enum numbers, camel case and a zero", "POST", "/v3/kv/txn",
			`{"compare":[{"key":"YQ==","result":0,"target":1,"create_revision":"0"}],` +
				`"success":[{"requestPut":{"key":"YQ==","value":"MQ=="}},{"request_range":{"key":"YQ=="}}]}`, nil, 200,
			`{` + header(2) + `,"succeeded":true,"responses":[{"response_put":{"header":{"revision":"2"}}},` +
				`{"response_range":{"header":{"revision":"2"},"kvs":[` + aKV + `],"count":"1"}}]}`},
		{"enum names, a number for an integer", "POST", "/v3/kv/range", `{"key":"YQ==","limit":1,"sort_order":"DESCEND","sortTarget":"MOD"}`, nil, 200,
			`{` + header(2) + `,"kvs":[` + aKV + `],"count":"1"}`},
		{"curl's content type", "POST", "/v3/kv/put", `{"key":"Yg==","value":"Mg=="}`, form, 200, `{` + header(3) + `}`},
		{"no content type", "POST", "/v3/kv/put", `{"key":"Yg==","value":"Mg==","prev_kv":true}`, nil, 200,
			`{` + header(4) + `,"prev_kv":{"key":"Yg==","create_revision":"3","mod_revision":"3","version":"1","value":"Mg=="}}`},
		{"v3beta", "POST", "/v3beta/kv/range", `{"key":"YQ==","count_only":true}`, nil, 200, `{` + header(4) + `,"count":"1"}`},
		{"v3alpha", "POST", "/v3alpha/kv/range", `{"key":"YQ==","keys_only":true}`, nil, 200,
			`{` + header(4) + `,"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1"}],"count":"1"}`},
		{"deleted is there", "POST", "/v3/kv/deleterange", `{"key":"Yg=="}`, nil, 200, `{` + header(5) + `,"deleted":"1"}`},
		{"or not", "POST", "/v3/kv/deleterange", `{"key":"Yg=="}`, nil, 200, `{` + header(5) + `}`},
		{"grant", "POST", "/v3/lease/grant", `{"TTL":"60","ID":4242}`, nil, 200, `{` + header(5) + `,"ID":"4242","TTL":"60"}`},
		{"grant again", "POST", "/v3/lease/grant", `{"TTL":60,"ID":"4242"}`, nil, 400, failure("etcdserver: lease already exists", 9)},
		{"time to live of none", "POST", "/v3/kv/lease/timetolive", `{"ID":123}`, nil, 200, `{` + header(5) + `,"ID":"123","TTL":"-1"}`},
		{"leases", "POST", "/v3/kv/lease/leases", ``, nil, 200, `{` + header(5) + `,"leases":[{"ID":"4242"}]}`},
		{"revoke", "POST", "/v3/kv/lease/revoke", `{"ID":"4242"}`, nil, 200, `{` + header(5) + `}`},
		{"revoke again", "POST", "/v3/lease/revoke", `{"ID":"4242"}`, nil, 404, failure("etcdserver: requested lease not found", 5)},
		{"keepalive of none", "POST", "/v3/lease/keepalive", `{"ID":"4242"}`, nil, 200, `{"result":{` + header(5) + `,"ID":"4242"}}` + "\n"},
		{"leases, none", "POST", "/v3/lease/leases", `{}`, nil, 200, `{` + header(5) + `}`},
		{"future", "POST", "/v3/kv/range", `{"key":"YQ==","revision":100}`, nil, 400, failure("etcdserver: mvcc: required revision is a future revision", 11)},
		{"compaction", "POST", "/v3/kv/compaction", `{"revision":3}`, nil, 200, `{` + header(5) + `}`},
		{"compacted", "POST", "/v3/kv/range", `{"key":"YQ==","revision":1}`, nil, 400, failure("etcdserver: mvcc: required revision has been compacted", 11)},
		{"member list", "POST", "/v3/cluster/member/list", `{"linearizable":true}`, nil, 200, ""},
		{"status", "POST", "/v3/maintenance/status", `{}`, nil, 200, ""},
		{"not base64", "POST", "/v3/kv/put", `{"key":"*"}`, nil, 400, ""},
		{"no JSON", "POST", "/v3/kv/put", `key=1`, nil, 400, ""},
		{"GET", "GET", "/v3/kv/range", ``, nil, 501, failure("Method Not Allowed", 12)},
		{"no such path", "POST", "/v3/kv/nothing", `{}`, nil, 404, failure("Not Found", 5)},
		{"not implemented", "POST", "/v3/maintenance/nothing", `{}`, nil, 404, failure("Not Found", 5)},
		{"outside", "GET", "/keys", ``, nil, 404, "404 page not found\n"},
	}
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			a := newAsker(t, http2)
			for _, c := range cases {
				status, answer, h := a.do(c.method, c.path, c.body, c.header...)
				require.Equal(t, c.status, status, "%s: %s", c.name, answer)
				if c.answer != "" {
					require.Equal(t, c.answer, answer, c.name)
				}
				if strings.HasPrefix(c.path, "/v3") {
					require.Equal(t, "application/json", h.Get("Content-Type"), c.name)
					require.Empty(t, h.Get("Access-Control-Allow-Origin"), c.name)
				}
			}
		})
	}
}

// watch opens a gateway stream whose body may go on, and returns what comes, a line a time.
func (a *asker) stream(path, first string) (more io.WriteCloser, next func() string) {
	body, more := io.Pipe()
	ctx, cancel := context.WithTimeout(a.t.Context(), testTimeout)
	q, err := http.NewRequestWithContext(ctx, "POST", "http://"+a.addr+path, io.MultiReader(strings.NewReader(first), body))
	require.NoError(a.t, err)
	r, err := a.http.Do(q)
	require.NoError(a.t, err)
	require.Equal(a.t, 200, r.StatusCode)
	lines := bufio.NewReader(r.Body)
	a.t.Cleanup(func() {
		cancel()
		_ = more.Close()
		_ = r.Body.Close()
	})
	return more, func() string {
		line, err := lines.ReadString('\n')
		require.NoError(a.t, err, line)
		return normal(strings.TrimSuffix(line, "\n"))
	}
}

func TestWatchStream(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			a := newAsker(t, http2)
			more, next := a.stream("/v3/watch", `{"create_request":{"key":"YQ=="}}`)
			require.Equal(t, `{"result":{`+header(1)+`,"created":true}}`, next())
			a.do("POST", "/v3/kv/put", `{"key":"YQ==","value":"PDw="}`)
			require.Equal(t, `{"result":{`+header(2)+`,"events":[{"kv":{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"PDw="}}]}}`, next())
			a.do("POST", "/v3/kv/deleterange", `{"key":"YQ=="}`)
			require.Equal(t, `{"result":{`+header(3)+`,"events":[{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"3"}}]}}`, next())
			_, err := io.WriteString(more, `{"create_request":{"key":"Yg==","watch_id":"7"}} {"cancel_request":{"watch_id":7}}`)
			require.NoError(t, err)
			require.Equal(t, `{"result":{`+header(3)+`,"watch_id":"7","created":true}}`, next())
			require.Equal(t, `{"result":{`+header(3)+`,"watch_id":"7","canceled":true}}`, next())
		})
	}
}

// TestKeepAliveStream ends its stream as python clients do: they send one request, and read to the end.
func TestKeepAliveStream(t *testing.T) {
	a := newAsker(t, false)
	a.do("POST", "/v3/lease/grant", `{"TTL":"60","ID":7}`)
	more, next := a.stream("/v3/lease/keepalive", `{"ID":7}`)
	require.Equal(t, `{"result":{`+header(1)+`,"ID":"7","TTL":"60"}}`, next())
	_, err := io.WriteString(more, `{"ID":"8"}`)
	require.NoError(t, err)
	require.Equal(t, `{"result":{`+header(1)+`,"ID":"8"}}`, next())
	status, answer, _ := a.do("POST", "/v3/lease/keepalive", `{"ID":7}{"ID":7}`)
	require.Equal(t, 200, status)
	require.Equal(t, strings.Repeat(`{"result":{`+header(1)+`,"ID":"7","TTL":"60"}}`+"\n", 2), answer)
}

// TestChunks reads a watch as clients do that take each chunk of HTTP/1 for a document.
func TestChunks(t *testing.T) {
	a := newAsker(t, false)
	nc, err := net.Dial("tcp", a.addr)
	require.NoError(t, err)
	defer func() { _ = nc.Close() }()
	require.NoError(t, nc.SetDeadline(time.Now().Add(testTimeout)))
	body := `{"create_request":{"key":"YQ==","start_revision":"1"}}`
	_, err = fmt.Fprintf(nc, "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	require.NoError(t, err)
	in := bufio.NewReader(nc)
	for line := ""; line != "\r\n"; {
		line, err = in.ReadString('\n')
		require.NoError(t, err)
	}
	for i := range 5 {
		var size int
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		_, err = fmt.Sscanf(line, "%x", &size)
		require.NoError(t, err)
		chunk := make([]byte, size+2)
		_, err = io.ReadFull(in, chunk)
		require.NoError(t, err)
		require.True(t, json.Valid(chunk[:size]), string(chunk))
		require.Equal(t, "\n\r\n", string(chunk[size-1:]))
		a.do("POST", "/v3/kv/put", fmt.Sprintf(`{"key":"YQ==","value":"%04d"}`, i))
	}
}

// TestStreamErrors has an error before the first document, and one after it, with the fields that clients of all versions
// look for.
func TestStreamErrors(t *testing.T) {
	const late = `{"error":{"grpc_code":4,"http_code":504,"message":"context deadline exceeded","http_status":"Gateway Timeout","code":4}}` + "\n"
	for name, http2 := range map[string]bool{"HTTP1": false, "HTTP2": true} {
		t.Run(name, func(t *testing.T) {
			a := newAsker(t, http2)
			status, answer, _ := a.do("POST", "/v3/watch", `{}`, "Grpc-Timeout", "50m")
			require.Equal(t, 504, status)
			require.Equal(t, late, answer)
			status, answer, _ = a.do("POST", "/v3/watch", `{"create_request":{"key":"YQ=="}}`, "Grpc-Timeout", "500m")
			require.Equal(t, 200, status)
			require.Equal(t, `{"result":{`+header(1)+`,"created":true}}`+"\n"+late, answer)
		})
	}
}

func TestBounds(t *testing.T) {
	a := newAsker(t, false, func(c *server.Config) { c.MaxRequestBytes = 10_000 })
	value := func(n int) string { return fmt.Sprintf(`{"key":"YQ==","value":%q}`, strings.Repeat("A", n)) }
	status, answer, _ := a.do("POST", "/v3/kv/put", value(12_000))
	require.Equal(t, 200, status, answer) // its 9,000 bytes
	for _, n := range []int{16_000, 19_900} {
		status, answer, _ = a.do("POST", "/v3/kv/put", value(n))
		require.Equal(t, 400, status, answer)
		require.Equal(t, failure("etcdserver: request is too large", 3), answer)
	}
	for _, n := range []int{30_000, 1 << 20} {
		status, answer, _ = a.do("POST", "/v3/kv/put", value(n))
		require.Equal(t, 429, status, answer)
		require.Contains(t, answer, "received message larger than max")
	}
	// A document of a stream is bounded, the stream is not.
	status, answer, _ = a.do("POST", "/v3/lease/keepalive", strings.Repeat(`{"ID":7}`, 10_000))
	require.Equal(t, 200, status)
	require.Equal(t, 10_000, strings.Count(answer, "\n"))
	status, answer, _ = a.do("POST", "/v3/lease/keepalive", `{"ID":7}`+strings.Repeat(" ", 30_000)+`{"ID":7}`)
	require.Equal(t, 200, status)
	require.Equal(t, 1, strings.Count(answer, "\n"))
}

// TestDeepNesting has JSON that is nested as deep as it may be, and deeper.
func TestDeepNesting(t *testing.T) {
	a := newAsker(t, false)
	for _, depth := range []int{10, 3_000, 20_000} {
		body := strings.Repeat(`{"success":[{"request_txn":`, depth) + `{}` + strings.Repeat(`}]}`, depth)
		status, _, _ := a.do("POST", "/v3/kv/txn", body)
		require.Contains(t, []int{200, 400}, status)
	}
	status, _, _ := a.do("GET", "/health", "")
	require.Equal(t, 200, status)
}
