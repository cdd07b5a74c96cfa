package main

import (
	"fmt"
	"strings"
)

// featureGate is one of etcd's switches for what it tries out. Apart from
// InitialCorruptCheck none changes anything here: always is what holds, or ""
// where the question does not arise.
type featureGate struct {
	name   string
	alpha  bool   // off in etcd unless asked for; the others are on
	always string // "true", "false" or ""
	why    string
}

const initialCorruptCheck = "InitialCorruptCheck"

var featureGates = []featureGate{
	{"CompactHashCheck", true, "true", "members always compare a hash of their whole state"},
	{"FastLeaseKeepAlive", false, "true", "renewals do not go through the log"},
	{initialCorruptCheck, true, "", ""},
	{"LeaseCheckpoint", true, "false", "a new leader gives each lease its full time"},
	{"LeaseCheckpointPersist", true, "false", "a new leader gives each lease its full time"},
	{"PriorityRequest", true, "false", "all requests have one priority"},
	{"SetMemberLocalAddr", true, "false", "the system chooses the address that a connection starts from"},
	{"StopGRPCServiceOnDefrag", true, "false", "defragmentation stalls nothing"},
	{"TxnModeWriteWithSharedBuffer", false, "", "there is no such buffer"},
}

// setFeatureGates reads "Gate=true,Gate=false" with etcd's rules and texts.
func setFeatureGates(o *serverOptions, value string) error {
	asked := make(map[string]bool)
	for pair := range strings.SplitSeq(value, ",") {
		if pair == "" {
			continue
		}
		name, text, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		if !ok {
			return fmt.Errorf("missing bool value for %s", name)
		}
		on, err := parseSwitch(strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("invalid value of %s=%s, %w", name, strings.TrimSpace(text), err)
		}
		if !isGate(name) {
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
		asked[name] = on
	}
	enabled := enabledGates(asked)
	if enabled["LeaseCheckpointPersist"] && !enabled["LeaseCheckpoint"] {
		return fmt.Errorf("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")
	}
	o.config.Checks.InitialCorrupt = enabled[initialCorruptCheck]
	for _, g := range featureGates {
		on, ok := asked[g.name]
		if ok && g.name != initialCorruptCheck && fmt.Sprint(on) != g.always {
			o.warnings = append(o.warnings, fmt.Sprintf("feature gate %s=%t has no effect: %s", g.name, on, g.why))
		}
	}
	return nil
}

func isGate(name string) bool {
	for _, g := range featureGates {
		if g.name == name {
			return true
		}
	}
	return name == "AllAlpha" || name == "AllBeta"
}

// enabledGates adds what was not asked for: AllAlpha and AllBeta decide, then
// etcd's defaults.
func enabledGates(asked map[string]bool) map[string]bool {
	enabled := make(map[string]bool)
	for _, g := range featureGates {
		all, byDefault := "AllBeta", true
		if g.alpha {
			all, byDefault = "AllAlpha", false
		}
		on, ok := asked[g.name]
		if !ok {
			on, ok = asked[all]
		}
		if !ok {
			on = byDefault
		}
		enabled[g.name] = on
	}
	return enabled
}
