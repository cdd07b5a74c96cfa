package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server"
	"github.com/latchkey-go/latchkey/server/servertest"
)

// TestMemberCommands adds a member, starts it with the printed command, and goes
// through the others.
func TestMemberCommands(t *testing.T) {
	c := servertest.One(t, servertest.WithConfig(func(c *server.Config) { c.Membership.LooseReconfigCheck = true }))
	sh := &shell{t, strings.Join(c.Endpoints(), ",")}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	peer := "http://" + l.Addr().String()

	var added struct {
		ID, Command string
		Learner     bool
		Environment map[string]string
	}
	require.NoError(t, json.Unmarshal([]byte(sh.must("", "member", "add", "n4", "--peer-urls="+peer, "--learner", "-w", "json")), &added))
	require.True(t, added.Learner)
	require.Equal(t, "existing", added.Environment["ETCD_INITIAL_CLUSTER_STATE"])
	require.Contains(t, sh.must("", "member", "list"), added.ID+", unstarted, , "+peer)

	args := strings.Fields(added.Command)
	require.Equal(t, []string{"latchkey", "server"}, args[:2])
	o, err := parseServer(append(args[2:], "--data-dir="+t.TempDir(), "--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls="), nil)
	require.NoError(t, err)
	var environ []string
	for name, value := range added.Environment {
		environ = append(environ, name+"="+value)
	}
	byEnvironment, err := parseServer(nil, environ)
	require.NoError(t, err)
	byCommand, err := parseServer(args[2:], nil)
	require.NoError(t, err)
	require.Equal(t, byCommand.config, byEnvironment.config)
	o.config.Sockets.Peer = l
	m, err := server.Start(t.Context(), o.config)
	require.NoError(t, err)
	t.Cleanup(m.Kill)
	<-m.Ready()

	for out := ""; !strings.Contains(out, "promoted"); { // until it has caught up
		_, out, _ = sh.run("", "member", "promote", added.ID)
	}
	require.Equal(t, "Leadership transferred to "+added.ID+"\n", sh.must("", "move-leader", added.ID))
	_, _, errOut := sh.run("", "member", "update", added.ID, "--peer-urls="+c.Config(0).ListenPeerURLs[0])
	require.Contains(t, errOut, "Peer URLs already exists")
	require.Equal(t, "Member "+added.ID+" removed\n", sh.must("", "member", "remove", added.ID))
	<-m.Done()
	require.ErrorIs(t, m.Err(), server.ErrRemoved)

	simple := sh.must("", "member", "add", "n5", "--peer-urls=http://127.0.0.1:1,http://127.0.0.2:1")
	for _, line := range []string{
		"ETCD_NAME=\"n5\"\n", "ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
		"n5=http://127.0.0.1:1,n5=http://127.0.0.2:1", "\nlatchkey server --name=n5 ",
		"ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://127.0.0.1:1,http://127.0.0.2:1\"\n",
	} {
		require.Contains(t, simple, line)
	}
}

func TestMemberCommandsRefuse(t *testing.T) {
	sh := &shell{t, "127.0.0.1:1"}
	for _, args := range [][]string{
		{"member", "add", "n"}, {"member", "add", "--peer-urls=x"}, {"member", "remove"}, {"member", "remove", "xyz"},
		{"member", "update", "12"}, {"move-leader", "nobody"},
	} {
		code, _, errOut := sh.run("", args...)
		require.Equal(t, exitUsage, code, "%v: %s", args, errOut)
	}
}
