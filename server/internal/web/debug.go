package web

import (
	"encoding/json"
	"expvar"
	"fmt"
	"net/http"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"time"
)

// serveVersion answers /version. Clients take the versions apart, so there is no answer before the cluster's is known.
func serveVersion(w http.ResponseWriter, n Node) {
	server, cluster, storage, known := n.Versions()
	if !known {
		http.Error(w, "the member has not joined its cluster yet", http.StatusServiceUnavailable)
		return
	}
	b, err := json.Marshal(struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"`
		Storage string `json:"storage"`
	}{server, cluster, storage})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b)
}

// serveVars answers /debug/vars with the process's variables, but for its command line, which may hold secrets.
func serveVars(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = fmt.Fprint(w, "{\n")
	between := ""
	expvar.Do(func(v expvar.KeyValue) {
		if v.Key != "cmdline" {
			_, _ = fmt.Fprintf(w, "%s%q: %s", between, v.Key, v.Value)
			between = ",\n"
		}
	})
	_, _ = fmt.Fprint(w, "\n}\n")
}

// profilePrefix is where profiles are; profileMax bounds how long one takes.
const (
	profilePrefix  = "/debug/pprof/"
	profileDefault = 30 * time.Second
	traceDefault   = time.Second
	profileMax     = 5 * time.Minute
)

// handleProfiles serves Go's profiles as package net/http/pprof does. That package is not imported: it would add itself
// to the default mux of whatever program embeds a member.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc(profilePrefix, func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, profilePrefix)
		if name == "" {
			for _, p := range pprof.Profiles() {
				_, _ = fmt.Fprintf(w, "%d\t%s\n", p.Count(), p.Name())
			}
			return
		}
		p := pprof.Lookup(name)
		if p == nil {
			http.Error(w, "Unknown profile", http.StatusNotFound)
			return
		}
		level, _ := strconv.Atoi(r.FormValue("debug"))
		if name == "heap" && r.FormValue("gc") != "" {
			runtime.GC()
		}
		binaryUnless(w, level > 0, name)
		_ = p.WriteTo(w, level)
	})
	timed := func(kind string, usual time.Duration, start func(w http.ResponseWriter) error, stop func()) {
		mux.HandleFunc(profilePrefix+kind, func(w http.ResponseWriter, r *http.Request) {
			binaryUnless(w, false, kind)
			if err := start(w); err != nil {
				w.Header().Del("Content-Disposition")
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			defer stop()
			select {
			case <-time.After(seconds(r, usual)):
			case <-r.Context().Done():
			}
		})
	}
	timed("profile", profileDefault, func(w http.ResponseWriter) error { return pprof.StartCPUProfile(w) }, pprof.StopCPUProfile)
	timed("trace", traceDefault, func(w http.ResponseWriter) error { return trace.Start(w) }, trace.Stop)
	mux.HandleFunc(profilePrefix+"symbol", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "num_symbols: 0\n") // the profiles have their symbols
	})
}

func binaryUnless(w http.ResponseWriter, text bool, name string) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if text {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename=%q`, name))
}

// seconds returns how long a profile is to take.
func seconds(r *http.Request, usual time.Duration) time.Duration {
	n, err := strconv.ParseFloat(r.FormValue("seconds"), 64)
	if err != nil || n <= 0 {
		return usual
	}
	return time.Duration(min(n, profileMax.Seconds()) * float64(time.Second))
}
