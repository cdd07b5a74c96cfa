package web_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/servertest"
)

// FuzzGateway sends any body to any of the gateway's paths that change keys: the member lives, the status is one that
// the gateway knows, and keys change only when it is 200.
func FuzzGateway(f *testing.F) {
	paths := []string{"/v3/kv/put", "/v3/kv/range", "/v3/kv/deleterange", "/v3/kv/txn", "/v3/lease/keepalive", "/v3beta/kv/lease/timetolive", "/v3/nothing"}
	for i, body := range []string{
		`{"key":"YQ==","value":"MQ=="}`, `{"key":"AA==","range_end":"AA==","limit":"1","sort_order":"DESCEND"}`, `{"key":"YQ==","prevKv":true}`,
		`{"compare":[{"key":"YQ==","target":"VALUE","value":"MQ=="}],"success":[{"requestPut":{"key":"YQ=="}}],"failure":[{"request_txn":{}}]}`,
		`{"ID":"7"}{"ID":8}`, `{"ID":-1,"keys":true}`, `[]`, `{"key":null}`, `{"key":"*"}`, `nope`, `{"lease":1e400}`, "",
	} {
		f.Add(byte(i), body)
	}
	c := servertest.One(f)
	a := &asker{t: f, http: speaker(f, false), addr: strings.TrimPrefix(c.Endpoints()[0], "http://")}
	ours := c.Client()
	revision := func(t *testing.T) int64 {
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		defer cancel()
		r, err := ours.Get(ctx, "a")
		require.NoError(t, err)
		return int64(r.Revision)
	}
	f.Fuzz(func(t *testing.T, path byte, body string) {
		before := revision(t)
		a := &asker{t: t, http: a.http, addr: a.addr}
		status, answer, _ := a.do("POST", paths[int(path)%len(paths)], body)
		require.Contains(t, []int{http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusTooManyRequests}, status, answer)
		if status != http.StatusOK {
			require.Equal(t, before, revision(t))
		}
	})
}
