package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
)

// healthBody is the answer of /health.
type healthBody struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

// check is one of the checks of /livez or /readyz.
type check struct {
	name string
	run  func(ctx context.Context) error
}

// handleHealth adds /health, and /livez and /readyz with a path for each of their checks.
func handleHealth(mux *http.ServeMux, cfg Config) {
	n := cfg.Node
	read := func(name string, linearizable bool) check {
		return check{name, func(ctx context.Context) error { return n.Read(ctx, linearizable) }}
	}
	mux.HandleFunc("/health", get(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		reason := unhealthy(r.Context(), n, q["exclude"], q.Get("serializable") == "true")
		cfg.Metrics.countHealth(reason == "")
		writeHealth(w, reason)
		if reason != "" {
			cfg.Logger.Warn("unhealthy", "reason", reason)
		}
	}))
	handleChecks(mux, cfg, "livez", []check{read("serializable_read", false)})
	handleChecks(mux, cfg, "readyz", []check{
		{"data_corruption", func(context.Context) error {
			if slices.Contains(n.Alarms(), "CORRUPT") {
				return errors.New("alarm activated: CORRUPT")
			}
			return nil
		}},
		read("serializable_read", false),
		read("linearizable_read", true),
		{"non_learner", func(context.Context) error {
			if n.Learner() {
				return errors.New("not supported for learner")
			}
			return nil
		}},
	})
}

// unhealthy returns why the member is not healthy, "" if it is.
func unhealthy(ctx context.Context, n Node, excluded []string, serializable bool) string {
	for _, a := range n.Alarms() {
		if !slices.Contains(excluded, a) {
			return "ALARM " + a
		}
	}
	if !serializable && !n.HasLeader() {
		return "RAFT NO LEADER"
	}
	if err := n.Read(ctx, !serializable); err != nil {
		return "RANGE ERROR:" + err.Error()
	}
	return ""
}

func writeHealth(w http.ResponseWriter, reason string) {
	body := healthBody{Health: "true", Reason: reason}
	if reason != "" {
		body.Health = "false"
	}
	b, err := json.Marshal(body)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case reason != "":
		http.Error(w, string(b), http.StatusServiceUnavailable)
	default:
		_, _ = w.Write(b)
	}
}

func handleChecks(mux *http.ServeMux, cfg Config, kind string, checks []check) {
	serve := func(w http.ResponseWriter, r *http.Request, checks []check) {
		var report strings.Builder
		ok := true
		for _, c := range checks {
			err := c.run(r.Context())
			cfg.Metrics.countCheck(kind, c.name, err == nil)
			if err != nil {
				ok = false
				fmt.Fprintf(&report, "[-]%s failed: %v\n", c.name, err)
				continue
			}
			fmt.Fprintf(&report, "[+]%s ok\n", c.name)
		}
		writeReport(w, r, ok, report.String(), cfg.Logger)
	}
	mux.HandleFunc("/"+kind, get(func(w http.ResponseWriter, r *http.Request) {
		excluded := r.URL.Query()["exclude"]
		serve(w, r, slices.DeleteFunc(slices.Clone(checks), func(c check) bool { return slices.Contains(excluded, c.name) }))
	}))
	for _, c := range checks {
		mux.HandleFunc("/"+kind+"/"+c.name, get(func(w http.ResponseWriter, r *http.Request) { serve(w, r, []check{c}) }))
	}
}

// writeReport answers a check. The report is always told when something failed.
func writeReport(w http.ResponseWriter, r *http.Request, ok bool, report string, log *slog.Logger) {
	if !ok {
		http.Error(w, report, http.StatusServiceUnavailable)
		log.Warn("a check failed", "path", r.URL.Path, "report", report)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		_, _ = fmt.Fprint(w, report)
	}
	_, _ = fmt.Fprint(w, "ok\n")
}
