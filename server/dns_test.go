package server_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/server"
)

// zone is a DNS that has what it is given. It does not change while it is asked.
type zone struct {
	t       *testing.T
	records map[string][]*net.SRV   // by the service
	hosts   map[string][]netip.Addr // by the name, without the last dot
	broken  error                   // what questions for records of members by https end with
}

func newZone(t *testing.T) *zone {
	return &zone{t: t, records: make(map[string][]*net.SRV), hosts: make(map[string][]netip.Addr)}
}

func (z *zone) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if proto != "tcp" || name != "example.com" {
		return "", nil, errors.New("nobody asks for that: " + proto + " " + name)
	}
	if z.broken != nil && service == "etcd-server-ssl" {
		return "", nil, z.broken
	}
	if len(z.records[service]) == 0 {
		return "", nil, &net.DNSError{Err: "no such host", Name: service, IsNotFound: true}
	}
	return "", z.records[service], nil
}

func (z *zone) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil && network == "ip" {
		return []netip.Addr{addr}, nil
	}
	if len(z.hosts[host]) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return slices.Clone(z.hosts[host]), nil
}

// add makes the record of a service for a peer URL's port at a host, which gets the
// URL's address.
func (z *zone) add(service, host, peerURL string) {
	u, err := url.Parse(peerURL)
	require.NoError(z.t, err)
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	require.NoError(z.t, err)
	z.hosts[host] = []netip.Addr{netip.MustParseAddr(u.Hostname())}
	z.records[service] = append(z.records[service], &net.SRV{Target: host + ".", Port: uint16(port)})
}

// config returns that of the member with a name on a socket of its own, which has a
// record of the service if that is not "".
func (z *zone) config(name, service string) server.Config {
	z.t.Helper()
	cfg := server.Config{Name: name, DataDir: filepath.Join(z.t.TempDir(), name)}
	bindSockets(z.t, &cfg)
	cfg.Membership.DNS = server.DNS{Domain: "example.com"}
	cfg.Membership.LooseReconfigCheck = true // else the members must have been connected for five seconds
	server.SetResolver(&cfg, z)
	if service != "" {
		z.add(service, "localhost", cfg.ListenPeerURLs[0]) // a name by which the others can connect
	}
	return cfg
}

// Three members that know a domain found one cluster; a fourth joins by the same
// records, and one that has data does not ask for them any more.
func TestDiscoveryByDNS(t *testing.T) {
	z := newZone(t)
	configs := []server.Config{z.config("a", "etcd-server"), z.config("b", "etcd-server"), z.config("c", "etcd-server")}
	members := startAll(t, configs...)
	ctx := testContext(t)
	_, err := members[0].Client().Put(ctx, "a", []byte("1"))
	require.NoError(t, err)
	list, err := members[1].Client().Members(ctx)
	require.NoError(t, err)
	require.Len(t, list, 3)
	for _, m := range list {
		u, err := url.Parse(m.PeerURLs[0])
		require.NoError(t, err)
		require.Equal(t, "localhost", u.Hostname(), "a member is known by its record")
		require.Contains(t, []string{"a", "b", "c"}, m.Name, "and has published its name")
	}

	d := z.config("d", "etcd-server")
	d.InitialClusterState = "existing"
	_, _, err = members[0].Client().AddMember(ctx, []string{"http://localhost:" + portOf(t, d.ListenPeerURLs[0])}, true)
	require.NoError(t, err)
	fourth := startAll(t, d)[0]
	got, err := fourth.Client().GetOne(ctx, "a", client.Serializable())
	require.NoError(t, err)
	require.Equal(t, "1", string(got.Value))

	members[2].Kill()
	again := configs[2]
	again.Sockets = server.Sockets{}
	server.SetResolver(&again, newZone(t))
	startAll(t, again)
}

// What is wrong with the records is said, and nothing is founded.
func TestDiscoveryByDNSRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(z *zone, c *server.Config)
		want    string
	}{
		"no records": {func(z *zone, _ *server.Config) { clear(z.records) }, "there are none"},
		"not mine":   {func(z *zone, _ *server.Config) { z.records["etcd-server"][0].Port ^= 1 }, `cannot find local etcd member "a" in SRV records`},
		"other host": {func(z *zone, _ *server.Config) { z.hosts["localhost"][0] = netip.MustParseAddr("192.0.2.1") }, "is http://127.0.0.1:"},
		"mine twice": {func(z *zone, c *server.Config) { z.add("etcd-server", "a2.example.com", c.ListenPeerURLs[0]) }, "more than one record is this member"},
		"for https": {func(z *zone, _ *server.Config) {
			z.records = map[string][]*net.SRV{"etcd-server-ssl": z.records["etcd-server"]}
		}, "scheme mismatch"},
		"no answer": {func(z *zone, _ *server.Config) { z.broken = &net.DNSError{Err: "timeout", IsTimeout: true} }, "error querying DNS SRV records for _etcd-server-ssl"},
		"two URLs": {func(_ *zone, c *server.Config) {
			c.AdvertisePeerURLs = []string{"http://127.0.0.1:1", "http://127.0.0.1:2"}
		}, "several initial-advertise-peer-urls"},
		"other names": {func(_ *zone, c *server.Config) { c.Membership.DNS.Service = "x" }, "there are none"},
		"two ways":    {func(_ *zone, c *server.Config) { c.InitialCluster = "a=http://127.0.0.1:1" }, "multiple discovery or bootstrap flags are set"},
		"name alone":  {func(_ *zone, c *server.Config) { c.Membership.DNS = server.DNS{Service: "x"} }, "discovery-srv-name is set without discovery-srv"},
		"too many": {func(z *zone, _ *server.Config) {
			for i := range 1000 {
				z.add("etcd-server-ssl", "m.example.com", "https://192.0.2.1:"+strconv.Itoa(i+1))
			}
		}, "there are 1001, more than 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			z := newZone(t)
			cfg := z.config("a", "etcd-server")
			tt.prepare(z, &cfg)
			_, err := server.Start(testContext(t), cfg)
			require.ErrorContains(t, err, tt.want)
			require.NoDirExists(t, filepath.Join(cfg.DataDir, "member"))
		})
	}
}

// The services may have another name.
func TestDiscoveryByDNSOfAService(t *testing.T) {
	z := newZone(t)
	cfg := z.config("a", "etcd-server-x")
	cfg.Membership.DNS.Service = "x"
	list, err := startAll(t, cfg)[0].Client().Members(testContext(t))
	require.NoError(t, err)
	require.Len(t, list, 1)
}

// As for etcd, initial-cluster may name hosts whose addresses are advertised, and
// the reverse; what is not the same place is refused.
func TestInitialClusterNamesHosts(t *testing.T) {
	z := newZone(t)
	cfg := z.config("a", "etcd-server")
	cfg.Membership.DNS = server.DNS{}
	cfg.InitialCluster = "a=http://localhost:" + portOf(t, cfg.ListenPeerURLs[0])
	list, err := startAll(t, cfg)[0].Client().Members(testContext(t))
	require.NoError(t, err)
	require.Equal(t, "a="+list[0].PeerURLs[0], cfg.InitialCluster)

	other := z.config("b", "")
	other.Membership.DNS = server.DNS{}
	other.InitialCluster = "b=http://localhost:1"
	_, err = server.Start(testContext(t), other)
	require.ErrorContains(t, err, "but initial-advertise-peer-urls is")
}

func portOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Port()
}
