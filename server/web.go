package server

import (
	"context"
	"net/http"
	"sync"

	"github.com/latchkey-go/latchkey/server/internal/front"
	"github.com/latchkey-go/latchkey/server/internal/state"
	"github.com/latchkey-go/latchkey/server/internal/web"
)

// clusterVersion is the version that the members have agreed to serve.
const clusterVersion = "3.7.0"

// lateHandler is a handler that is set after it was handed out, and before
// anybody is served.
type lateHandler struct{ http.Handler }

// openSite makes what is served over plain HTTP.
func (s *Server) openSite() error {
	cfg := web.Config{
		Node: webNode{backend{s}}, Metrics: s.meters.web, Logger: s.log,
		Hosts: s.cfg.Web.HostWhitelist, Origins: s.cfg.Web.CORS, Pprof: s.cfg.Web.Pprof,
	}
	if !s.cfg.Web.DisableGateway {
		cfg.Gateway = &web.Gateway{
			Conn: s.front.clients.Local(), MaxRequestBytes: s.cfg.MaxRequestBytes, NeedsUsers: s.needsUsers,
		}
	}
	site, err := web.New(cfg)
	if err != nil {
		return err
	}
	s.front.site.Handler = site
	plain := func(h http.Handler) *front.Server {
		return front.New(front.Config{
			Web: h, GreetTimeout: s.cfg.Limits.HandshakeTimeout, MinPingInterval: s.cfg.Limits.KeepAliveMinTime, Logger: s.log,
		})
	}
	s.front.http, s.front.metrics = plain(site), plain(site.Health())
	return nil
}

// needsUsers reports whether users are needed now.
func (s *Server) needsUsers() bool {
	var enabled bool
	s.store.with(func(m *state.Machine) { enabled = m.Auth().Enabled() })
	return enabled
}

// leave lets the requests of clients be answered, and sends the clients away.
func (f *fronts) leave(ctx context.Context) {
	var wg sync.WaitGroup
	for _, each := range []*front.Server{f.http, f.metrics, f.clients} {
		wg.Go(func() { each.Leave(ctx) })
	}
	wg.Wait()
}

// stop ends all connections of clients. Those who call the services in process
// go first.
func (f *fronts) stop() {
	f.http.Stop()
	f.metrics.Stop()
	f.clients.Stop()
}

// webNode implements web.Node.
type webNode struct{ backend }

// Versions tells the cluster's version once the member has joined it.
func (n webNode) Versions() (server, cluster, storage string, known bool) {
	select {
	case <-n.ready:
		known = true
	default:
	}
	return etcdVersion, clusterVersion, storageVersion, known
}

// Learner implements web.Node.
func (n webNode) Learner() bool {
	for _, m := range n.Members() {
		if m.ID == n.identity.MemberID {
			return m.Learner
		}
	}
	return false
}

// Alarms implements web.Node.
func (n webNode) Alarms() []string {
	var names []string
	n.store.with(func(m *state.Machine) {
		for _, a := range m.Alarms() {
			names = append(names, a.Type.String())
		}
	})
	return names
}

// Read implements web.Node.
func (n webNode) Read(ctx context.Context, linearizable bool) error {
	if linearizable {
		return n.confirm(ctx)
	}
	_ = n.store.view()
	return nil
}
