package server_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The lock and election services over JSON, as programs without gRPC use them.
func TestContentionGateway(t *testing.T) {
	c := newContest(t, 1)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	post := func(path, body string) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(c.ctx, http.MethodPost, "http://"+c.cluster.Endpoints()[0]+path, strings.NewReader(body))
		require.NoError(t, err)
		resp, err := (&http.Client{Transport: transport}).Do(r)
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	call := func(path, body string) (code int, answer map[string]any) {
		t.Helper()
		resp := post(path, body)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &answer), string(text))
		return resp.StatusCode, answer
	}

	code, held := call("/v3/lock/lock", `{"name":"am9icw=="}`) // jobs
	require.Equal(t, http.StatusOK, code, held)
	require.NotEmpty(t, held["header"].(map[string]any)["revision"])
	code, _ = call("/v3beta/lock/unlock", `{"key":"`+held["key"].(string)+`"}`)
	require.Equal(t, http.StatusOK, code)
	require.Zero(t, c.keysBelow("jobs"))

	code, answer := call("/v3/election/leader", `{"name":"YQ=="}`)
	require.Equal(t, http.StatusInternalServerError, code)
	require.Equal(t, "election: no leader", answer["message"])
	code, led := call("/v3/election/campaign", `{"name":"YQ==","value":"dg=="}`)
	require.Equal(t, http.StatusOK, code, led)
	leader, err := json.Marshal(led["leader"])
	require.NoError(t, err)
	observed := bufio.NewScanner(post("/v3/election/observe", `{"name":"YQ=="}`).Body)
	require.True(t, observed.Scan())
	require.Contains(t, observed.Text(), `"result":`)
	require.Contains(t, observed.Text(), `"value":"dg=="`)
	code, answer = call("/v3/election/proclaim", `{"leader":`+string(leader)+`,"value":"dw=="}`)
	require.Equal(t, http.StatusOK, code, answer)
	require.True(t, observed.Scan())
	require.Contains(t, observed.Text(), `"value":"dw=="`)
	code, answer = call("/v3/election/leader", `{"name":"YQ=="}`)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "dw==", answer["kv"].(map[string]any)["value"])
	code, _ = call("/v3/election/resign", `{"leader":`+string(leader)+`}`)
	require.Equal(t, http.StatusOK, code)
}
