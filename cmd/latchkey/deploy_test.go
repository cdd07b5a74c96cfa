package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func deployFile(t *testing.T, elements ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "deploy"}, elements...)...))
	require.NoError(t, err)
	return string(text)
}

// documents parses a file of YAML documents.
func documents(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var one map[string]any
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, one)
	}
}

// Every variable and flag in deploy/ is one that a member knows and that has
// an effect.
func TestDeploySettingsExist(t *testing.T) {
	variable := regexp.MustCompile(`\b(?:ETCD|LATCHKEY)_[A-Z0-9_]+\b`)
	flag := regexp.MustCompile(`--[a-z][a-z0-9-]+`)
	// What docker, kubectl and the rest are called with, client commands, and
	// variables of compose.yaml and of clients.
	others := strings.Fields(`--detach --wait --volumes --timeout --endpoints --now --chown --interval --start-period --retries
		LATCHKEY_ENDPOINTS LATCHKEY_IMAGE LATCHKEY_CLUSTER_STATE LATCHKEY_PORT_A LATCHKEY_PORT_B LATCHKEY_PORT_C`)
	seen := 0
	require.NoError(t, filepath.WalkDir(filepath.Join("..", "..", "deploy"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, word := range append(variable.FindAllString(string(text), -1), flag.FindAllString(string(text), -1)...) {
			if slices.Contains(others, word) {
				continue
			}
			name := strings.TrimPrefix(word, "--")
			for _, prefix := range envPrefixes {
				if suffix, ok := strings.CutPrefix(word, prefix); ok {
					name = strings.ToLower(strings.ReplaceAll(suffix, "_", "-"))
				}
			}
			f, ok := findFlag(name)
			require.True(t, ok, "%s: %s", path, word)
			require.NotNil(t, f.set, "%s: %s has no effect", path, word)
			seen++
		}
		return nil
	}))
	require.Greater(t, seen, 40)
}

// The environment file is one that a member starts with, without a warning.
func TestDeployEnvironmentFile(t *testing.T) {
	var environ []string
	for line := range strings.Lines(deployFile(t, "systemd", "latchkey.env")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			environ = append(environ, strings.ReplaceAll(line, `"`, ""))
		}
	}
	o, err := parseServer(nil, environ)
	require.NoError(t, err)
	require.Equal(t, "etcd-0-8", o.config.Name)
	for _, w := range o.warnings {
		require.Contains(t, w, "has no TLS")
	}
}

func TestDeployCompose(t *testing.T) {
	file := documents(t, deployFile(t, "compose.yaml"))
	require.Len(t, file, 1)
	services, ok := file[0]["services"].(map[string]any)
	require.True(t, ok)
	require.Len(t, services, 3)
	for name, s := range services {
		service, ok := s.(map[string]any)
		require.True(t, ok)
		require.Equal(t, true, service["read_only"], name)
		require.Equal(t, []any{"ALL"}, service["cap_drop"], name)
		require.Contains(t, service, "healthcheck", name)
		environment, ok := service["environment"].(map[string]any)
		require.True(t, ok)
		var environ []string
		for key, value := range environment {
			text, ok := value.(string)
			require.True(t, ok)
			if _, otherwise, ok := strings.Cut(strings.TrimSuffix(text, "}"), ":-"); ok { // ${VARIABLE:-otherwise}
				text = otherwise
			}
			environ = append(environ, key+"="+text)
		}
		o, err := parseServer(nil, environ)
		require.NoError(t, err)
		require.Equal(t, name, o.config.Name)
		require.Contains(t, o.config.InitialCluster, name+"="+o.config.AdvertisePeerURLs[0])
	}
}

func TestDeployKubernetes(t *testing.T) {
	text := deployFile(t, "kubernetes", "latchkey.yaml")
	kinds := make(map[any]int)
	for _, d := range documents(t, text) {
		require.Contains(t, d, "apiVersion")
		require.Contains(t, d, "metadata")
		kinds[d["kind"]]++
	}
	require.Equal(t, map[any]int{"Service": 2, "PodDisruptionBudget": 1, "StatefulSet": 1}, kinds)

	var set struct {
		Spec struct {
			Replicas int
			Template struct {
				Spec struct {
					Containers []struct {
						Env []struct{ Name, Value string }
					}
				}
			}
		}
	}
	require.NoError(t, yaml.Unmarshal([]byte(text[strings.LastIndex(text, "\n---\n"):]), &set))
	pod := strings.NewReplacer("$(POD_NAME)", "latchkey-1", "$(POD_NAMESPACE)", "default")
	var environ []string
	for _, v := range set.Spec.Template.Spec.Containers[0].Env {
		environ = append(environ, v.Name+"="+pod.Replace(v.Value))
	}
	o, err := parseServer(nil, environ)
	require.NoError(t, err)
	require.Equal(t, "latchkey-1", o.config.Name)
	require.Contains(t, o.config.InitialCluster, "latchkey-1="+o.config.AdvertisePeerURLs[0]+",")
	require.Equal(t, set.Spec.Replicas, strings.Count(o.config.InitialCluster, "="))
	for _, w := range o.warnings {
		require.Contains(t, w, "has no TLS")
	}
}

// systemd itself reads the unit, where it is installed; the program has to
// exist for that, so that another one stands in.
func TestDeployUnit(t *testing.T) {
	unit := deployFile(t, "systemd", "latchkey.service")
	for _, line := range []string{
		"NoNewPrivileges=yes", "ProtectSystem=strict", "Restart=on-failure", "DynamicUser=yes", "LimitNOFILE=65536",
		"EnvironmentFile=/etc/latchkey/latchkey.env", "ExecStart=/usr/local/bin/latchkey server",
	} {
		require.Contains(t, unit, "\n"+line+"\n")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: the unit was not verified by systemd")
		return
	}
	path := filepath.Join(t.TempDir(), "latchkey.service")
	require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(unit, "/usr/local/bin/latchkey", "/bin/sh")), 0o600))
	out, err := exec.CommandContext(t.Context(), analyze, "verify", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NotContains(t, string(out), "latchkey.service", "%s", out)
}

// metricNames are those that the alerts and the dashboard may use: etcd's, and
// those of Prometheus' own libraries.
var metricNames = strings.Fields(`
	up process_open_fds process_max_fds process_resident_memory_bytes
	etcd_server_has_leader etcd_server_leader_changes_seen_total etcd_server_quota_backend_bytes
	etcd_server_proposals_committed_total etcd_server_proposals_applied_total etcd_server_proposals_pending
	etcd_server_proposals_failed_total etcd_disk_wal_fsync_duration_seconds etcd_disk_backend_commit_duration_seconds
	etcd_mvcc_db_total_size_in_bytes
	etcd_debugging_mvcc_watcher_total etcd_debugging_mvcc_keys_total
	etcd_debugging_lease_granted_total etcd_debugging_server_lease_expired_total
	etcd_network_active_peers latchkey_alarms latchkey_live_bytes latchkey_history_bytes etcd_network_client_grpc_received_bytes_total
	etcd_network_client_grpc_sent_bytes_total grpc_server_handled_total`)

var metricName = regexp.MustCompile(`\b(?:up|(?:etcd|grpc|process|latchkey|go)_[a-z0-9_]+)\b`)

// metricsOf returns the metrics of an expression, without the suffixes of the
// series of a histogram.
func metricsOf(expression string) []string {
	var names []string
	labels := regexp.MustCompile(`\{[^}]*\}|(?:by|on) \([^)]*\)`)
	for _, name := range metricName.FindAllString(labels.ReplaceAllString(expression, ""), -1) {
		names = append(names, strings.TrimSuffix(name, "_bucket"))
	}
	return names
}

func TestDeployAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(deployFile(t, "prometheus", "alerts.yaml")))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&file))
	require.Len(t, file.Groups, 1)
	for _, r := range file.Groups[0].Rules {
		require.Contains(t, []string{"warning", "critical"}, r.Labels["severity"], r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
		names := metricsOf(r.Expr)
		require.NotEmpty(t, names, r.Alert)
		require.Subset(t, metricNames, names, r.Alert)
	}
}

func TestDeployDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(deployFile(t, "grafana", "latchkey.json")), &dashboard))
	require.Greater(t, len(dashboard.Panels), 10)
	for _, p := range dashboard.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for _, target := range p.Targets {
			names := metricsOf(target.Expr)
			require.NotEmpty(t, names, p.Title)
			require.Subset(t, metricNames, names, p.Title)
		}
	}
}
