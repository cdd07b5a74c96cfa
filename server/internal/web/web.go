package web

import (
	"context"
	"log/slog"
	"net/http"
)

// Node is the member as this package sees it.
type Node interface {
	// Versions returns the versions of the server, the cluster and the storage; known is false before the cluster's is
	// agreed on.
	Versions() (server, cluster, storage string, known bool)
	// HasLeader reports whether the member knows a leader now.
	HasLeader() bool
	// Learner reports whether the member has no vote.
	Learner() bool
	// Alarms names the alarms that are raised, as in "NOSPACE".
	Alarms() []string
	// Read reads the store: what this member has, or, if linearizable, what the cluster has agreed on. No user is asked
	// for.
	Read(ctx context.Context, linearizable bool) error
}

// Config configures a Site. Node, Metrics and Logger are required.
type Config struct {
	Node    Node
	Metrics *Metrics
	Logger  *slog.Logger
	// Gateway configures the JSON gateway; nil switches it off.
	Gateway *Gateway
	// Hosts are the host names by which the site may be asked without TLS; empty or "*": all.
	Hosts []string
	// Origins are those whose pages may use the gateway; "*": all. Empty: none but a page's own.
	Origins []string
	// Pprof serves Go's profiles under /debug/pprof.
	Pprof bool
}

// Site is everything that a client's port serves over plain HTTP.
type Site struct {
	access http.Handler
	health http.Handler
}

// New makes the site.
func New(cfg Config) (*Site, error) {
	full, small := http.NewServeMux(), http.NewServeMux()
	for _, mux := range []*http.ServeMux{full, small} {
		mux.Handle("/metrics", cfg.Metrics.handler())
		handleHealth(mux, cfg)
	}
	full.HandleFunc("/version", get(func(w http.ResponseWriter, _ *http.Request) { serveVersion(w, cfg.Node) }))
	full.HandleFunc("/debug/vars", get(serveVars))
	if cfg.Pprof {
		handleProfiles(full)
	}
	var users func() bool
	if cfg.Gateway != nil {
		g, err := newGateway(*cfg.Gateway)
		if err != nil {
			return nil, err
		}
		full.Handle(gatewayPrefix, g)
		users = cfg.Gateway.NeedsUsers
	}
	a, err := newAccess(cfg, users, full)
	if err != nil {
		return nil, err
	}
	return &Site{access: a, health: small}, nil
}

// ServeHTTP implements http.Handler.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.access.ServeHTTP(w, r) }

// Health returns the part that a listener for metrics serves: metrics and health.
func (s *Site) Health() http.Handler { return s.health }

// get serves GET alone, as etcd does: HEAD is refused.
func get(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		f(w, r)
	}
}
