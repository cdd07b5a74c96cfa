package web_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

func TestHosts(t *testing.T) {
	a := newAsker(t, false, func(c *server.Config) { c.Web.HostWhitelist = []string{"127.0.0.1", "good.example"} })
	for host, want := range map[string]int{"good.example": 200, "good.example:99": 200, "evil.example": 421, "": 200} {
		var header []string
		if host != "" {
			header = []string{"Host", host}
		}
		for _, path := range []string{"/health", "/version", "/metrics"} {
			status, _, _ := a.do("GET", path, "", header...)
			require.Equal(t, want, status, host)
		}
		status, _, _ := a.do("POST", "/v3/kv/put", `{"key":"YQ=="}`, header...)
		require.Equal(t, want, status, host)
	}
}

// TestOrigins has requests as browsers make them for pages of other origins.
func TestOrigins(t *testing.T) {
	cases := []struct {
		allowed []string
		origin  string
		status  int
		allows  string
	}{
		{nil, "", 200, ""},
		{nil, "https://page.example", 403, ""},
		{[]string{"https://page.example"}, "https://page.example", 200, "https://page.example"},
		{[]string{"https://page.example"}, "https://other.example", 403, ""},
		{[]string{"*"}, "https://other.example", 200, "*"},
		{[]string{"*"}, "", 200, "*"},
	}
	for _, c := range cases {
		a := newAsker(t, false, func(s *server.Config) { s.Web.CORS = c.allowed })
		var header []string
		if c.origin != "" {
			header = []string{"Origin", c.origin, "Sec-Fetch-Site", "cross-site"}
		}
		status, _, h := a.do("POST", "/v3/kv/put", `{"key":"YQ=="}`, header...)
		require.Equal(t, c.status, status)
		require.Equal(t, c.allows, h.Get("Access-Control-Allow-Origin"))
		status, answer, _ := a.do("POST", "/v3/kv/range", `{"key":"YQ=="}`)
		require.Equal(t, 200, status)
		require.Equal(t, c.status == 200, strings.Contains(answer, "kvs"), "a refused request changes nothing")
		status, _, h = a.do("OPTIONS", "/v3/kv/put", "", header...)
		require.Equal(t, 200, status)
		require.Equal(t, c.allows, h.Get("Access-Control-Allow-Origin"))
	}
	a := newAsker(t, false)
	status, _, _ := a.do("POST", "/v3/kv/put", `{"key":"YQ=="}`, "Origin", "http://"+a.addr)
	require.Equal(t, 200, status, "a page of the member's own")
}

func TestChecks(t *testing.T) {
	a := newAsker(t, false)
	cases := []struct{ path, answer string }{
		{"/livez", "ok\n"},
		{"/livez?verbose", "[+]serializable_read ok\nok\n"},
		{"/livez/serializable_read", "ok\n"},
		{"/readyz", "ok\n"},
		{"/readyz?verbose", "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n"},
		{"/readyz?verbose&exclude=linearizable_read&exclude=nothing", "[+]data_corruption ok\n[+]serializable_read ok\n[+]non_learner ok\nok\n"},
		{"/readyz/data_corruption?verbose", "[+]data_corruption ok\nok\n"},
		{"/readyz/linearizable_read", "ok\n"},
		{"/readyz/non_learner", "ok\n"},
		{"/health?serializable=true", `{"health":"true","reason":""}`},
		{"/health?exclude=NOSPACE", `{"health":"true","reason":""}`},
	}
	for _, c := range cases {
		status, answer, _ := a.do("GET", c.path, "")
		require.Equal(t, 200, status, c.path)
		require.Equal(t, c.answer, answer, c.path)
	}
	for _, path := range []string{"/health", "/livez", "/readyz", "/version", "/debug/vars"} {
		status, answer, h := a.do("POST", path, "")
		require.Equal(t, 405, status)
		require.Equal(t, "Method Not Allowed\n", answer)
		require.Equal(t, "GET", h.Get("Allow"))
	}
	status, answer, _ := a.do("GET", "/debug/vars", "")
	require.Equal(t, 200, status)
	require.Contains(t, answer, "memstats")
	require.NotContains(t, answer, "cmdline", "it may hold secrets")
	status, _, _ = a.do("GET", "/debug/pprof/", "")
	require.Equal(t, 404, status, "profiles are off unless asked for")
}

// TestNoLeader asks a member that has lost the others.
func TestNoLeader(t *testing.T) {
	c := servertest.Three(t)
	lead := c.Leader()
	a := &asker{t: t, http: speaker(t, false), addr: strings.TrimPrefix(c.Endpoints()[lead], "http://")}
	status, _, _ := a.do("GET", "/readyz", "")
	require.Equal(t, 200, status)
	for i := range 3 {
		if i != lead {
			c.Kill(i)
		}
	}
	for c.Member(lead).HasLeader() { // until it notices
		a.do("GET", "/livez", "")
	}
	status, answer, _ := a.do("GET", "/health", "")
	require.Equal(t, 503, status)
	require.Equal(t, `{"health":"false","reason":"RAFT NO LEADER"}`+"\n", answer)
	status, _, _ = a.do("GET", "/health?serializable=true", "")
	require.Equal(t, 200, status)
	status, _, _ = a.do("GET", "/livez", "")
	require.Equal(t, 200, status)
	status, _, _ = a.do("GET", "/version", "")
	require.Equal(t, 200, status, "it was known once")
	status, answer, _ = a.do("POST", "/v3/kv/range", `{"key":"YQ=="}`, "Grpc-Metadata-Hasleader", "true")
	require.Equal(t, 503, status)
	require.Equal(t, failure("etcdserver: no leader", 14), answer, "a gateway's call passes the interceptor")
	_, answer, _ = a.do("GET", "/metrics", "")
	require.Contains(t, answer, "\netcd_server_has_leader 0\n")
}

func TestMetrics(t *testing.T) {
	a := newAsker(t, false, func(c *server.Config) { c.Web.ExtensiveMetrics = true })
	for range 3 {
		a.do("POST", "/v3/kv/put", `{"key":"YQ==","value":"MQ=="}`)
	}
	a.do("POST", "/v3/kv/txn", `{"success":[{"requestPut":{"key":"Yg=="}},{"request_delete_range":{"key":"YQ=="}}]}`)
	a.do("POST", "/v3/kv/put", `{}`)
	c, err := client.New(client.Config{Endpoints: []string{a.addr}})
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "c", []byte("1"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	a.do("POST", "/v3/lease/grant", `{"TTL":"60","ID":7}`)
	a.do("POST", "/v3/lease/keepalive", `{"ID":7}`)
	a.do("POST", "/v3/lease/revoke", `{"ID":7}`)
	a.do("GET", "/health", "")
	a.do("GET", "/livez", "")
	_, _, _ = a.do("GET", "/metrics", "")
	status, answer, _ := a.do("GET", "/metrics", "")
	require.Equal(t, 200, status)
	for _, line := range []string{
		"etcd_server_has_leader 1", "etcd_server_is_leader 1", "etcd_server_is_learner 0", "etcd_server_leader_changes_seen_total 1",
		"etcd_mvcc_put_total 5", "etcd_mvcc_delete_total 1", "etcd_mvcc_txn_total 1", "etcd_debugging_mvcc_keys_total 2",
		"etcd_debugging_mvcc_current_revision 6", "etcd_debugging_lease_granted_total 1", "etcd_debugging_lease_renewed_total 1",
		"etcd_debugging_lease_revoked_total 1", "etcd_server_health_success 1", "etcd_server_proposals_pending 0",
		`etcd_server_version{server_version="3.7.3"} 1`, `etcd_cluster_version{cluster_version="3.7"} 1`,
		`etcd_server_healthcheck{name="serializable_read",type="livez"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 4`,
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
		`grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 5`,
		`grpc_server_msg_received_total{grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"} 1`,
		`grpc_server_handling_seconds_count{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
	} {
		require.Contains(t, answer, "\n"+line+"\n")
	}
	for _, name := range []string{
		"etcd_disk_wal_fsync_duration_seconds_bucket", "etcd_disk_backend_commit_duration_seconds_bucket", "go_goroutines",
		"process_open_fds", "process_max_fds", "process_resident_memory_bytes", "etcd_mvcc_db_total_size_in_bytes",
		"etcd_server_quota_backend_bytes", "etcd_network_client_grpc_received_bytes_total", "latchkey_leases",
	} {
		require.Contains(t, answer, "\n"+name)
	}
}

// TestTwoMembers has their metrics apart.
func TestTwoMembers(t *testing.T) {
	a, b := newAsker(t, false), newAsker(t, false)
	a.do("POST", "/v3/kv/put", `{"key":"YQ=="}`)
	_, answer, _ := a.do("GET", "/metrics", "")
	require.Contains(t, answer, "\netcd_mvcc_put_total 1\n")
	_, answer, _ = b.do("GET", "/metrics", "")
	require.Contains(t, answer, "\netcd_mvcc_put_total 0\n")
}

func freeURL(t testing.TB) (url, addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return "http://" + l.Addr().String(), l.Addr().String()
}

// TestAddressesOfTheirOwn has plain HTTP, and metrics, on other addresses than gRPC.
func TestAddressesOfTheirOwn(t *testing.T) {
	httpURL, httpAddr := freeURL(t)
	metricsURL, metricsAddr := freeURL(t)
	a := newAsker(t, false, func(c *server.Config) {
		c.Web.ListenClientHTTPURLs, c.Web.ListenMetricsURLs, c.Web.Pprof = []string{httpURL}, []string{metricsURL}, true
	})
	c, err := client.New(client.Config{Endpoints: []string{a.addr}})
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "a", []byte("1"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = a.http.Get("http://" + a.addr + "/health")
	require.Error(t, err, "the clients' address serves gRPC alone")

	a.addr = httpAddr
	status, _, _ := a.do("POST", "/v3/kv/range", `{"key":"YQ=="}`)
	require.Equal(t, 200, status)
	_, next := a.stream("/v3/watch", `{"create_request":{"key":"YQ=="}}`)
	require.Contains(t, next(), "created")
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap", "/debug/pprof/trace?seconds=0.01", "/metrics"} {
		status, answer, _ := a.do("GET", path, "")
		require.Equal(t, 200, status, path)
		require.NotEmpty(t, answer)
	}
	a.addr = metricsAddr
	for path, want := range map[string]int{"/metrics": 200, "/health": 200, "/livez": 200, "/readyz": 200, "/version": 404, "/v3/kv/range": 404, "/debug/vars": 404, "/debug/pprof/": 404} {
		status, _, _ := a.do("GET", path, "")
		require.Equal(t, want, status, path)
	}
}

func TestWithoutGateway(t *testing.T) {
	a := newAsker(t, false, func(c *server.Config) { c.Web.DisableGateway = true })
	status, _, _ := a.do("POST", "/v3/kv/range", `{"key":"YQ=="}`)
	require.Equal(t, 404, status)
	status, _, _ = a.do("GET", "/version", "")
	require.Equal(t, 200, status)
}

// TestUnixSocket serves clients on sockets in the file system, in both forms of URLs.
func TestUnixSocket(t *testing.T) {
	t.Chdir(t.TempDir())
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // a process that was killed leaves its socket behind
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	start := func(dir string) (*server.Server, error) {
		return server.Start(t.Context(), server.Config{
			DataDir: dir, ListenPeerURLs: []string{"http://127.0.0.1:0"},
			ListenClientURLs: []string{"unix://" + path, "unix://localhost:2379"},
		})
	}
	s, err := start(t.TempDir())
	require.NoError(t, err)
	<-s.Ready()
	_, err = start(t.TempDir())
	require.ErrorContains(t, err, "in use")
	members, err := s.Client().Members(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"unix://" + path, "unix://localhost:2379"}, members[0].ClientURLs)
	for _, url := range members[0].ClientURLs {
		c, err := client.New(client.Config{Endpoints: []string{url}})
		require.NoError(t, err)
		_, err = c.Put(t.Context(), "a", []byte(url))
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	r, err := web.Get("http://x/health")
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, 200, r.StatusCode)
	web.CloseIdleConnections()
	require.NoError(t, s.Stop(t.Context()))
	require.NoFileExists(t, path)

	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = start(t.TempDir())
	require.ErrorContains(t, err, "is no socket")
	require.FileExists(t, path)
}
