package main

import (
	"fmt"
	"slices"
	"strings"
)

// envPrefixes begin the names of environment variables, the strongest first.
var envPrefixes = []string{"LATCHKEY_", "ETCD_"}

// setting is a value and the flag, variable or key that it came from.
type setting struct{ source, value string }

// gather returns the raw values that count, by the name of their flag.
func gather(args, environ []string) (map[string]setting, []string, error) {
	fromFlags, err := scanFlags(args)
	if err != nil {
		return nil, nil, err
	}
	given, warnings := scanEnvironment(environ)
	for name, s := range fromFlags {
		given[name] = s
	}
	file := given["config-file"]
	if file.value == "" || given["help"].value != "" || given["version"].value != "" {
		return given, warnings, nil
	}
	delete(given, "config-file")
	if hidden := sourcesOf(given); len(hidden) > 0 {
		warnings = append(warnings, fmt.Sprintf("%s is all that counts, without effect: %s", file.value, strings.Join(hidden, ", ")))
	}
	given, more, err := readConfigFile(file.value)
	if err != nil {
		return nil, nil, usageErrorf("%s %s: %w", file.source, file.value, err)
	}
	return given, append(warnings, more...), nil
}

func sourcesOf(given map[string]setting) []string {
	var sources []string
	for _, s := range given {
		sources = append(sources, s.source)
	}
	slices.Sort(sources)
	return sources
}

// scanFlags collects the raw values of args by the name of their flag.
func scanFlags(args []string) (map[string]setting, error) {
	given := make(map[string]setting)
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, dashed := strings.CutPrefix(arg, "-")
		if !dashed || name == "" {
			return nil, usageErrorf("unexpected argument %q: latchkey server takes flags only", arg)
		}
		name = strings.TrimPrefix(name, "-")
		name, value, hasValue := strings.Cut(name, "=")
		if name == "h" {
			name = "help"
		}
		f, ok := findFlag(name)
		switch {
		case !ok:
			return nil, unknownFlag(name)
		case hasValue:
		case f.value == "":
			value = "true"
		case len(args) == 0:
			return nil, usageErrorf("--%s needs a value: --%s=%s", name, name, f.value)
		default:
			value, args = args[0], args[1:]
		}
		given[name] = setting{"--" + name, value}
	}
	return given, nil
}

func unknownFlag(name string) error {
	if name == "endpoints" || name == "output" || name == "timeout" {
		return usageErrorf("--%s belongs behind a client command, as in: latchkey get --%s=... KEY", name, name)
	}
	if near, ok := nearestFlag(name); ok {
		return usageErrorf("unknown flag --%s, did you mean --%s?", name, near)
	}
	return usageErrorf("unknown flag --%s: latchkey server --help lists the flags", name)
}

// nearestFlag returns the flag that was meant by a name that is none. Older
// releases of etcd had many with a prefix that they have lost since.
func nearestFlag(name string) (string, bool) {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	name = strings.TrimPrefix(name, "experimental-")
	var names []string
	for _, f := range allFlags() {
		names = append(names, f.name)
	}
	return nearest(name, names)
}

// scanEnvironment collects the values of environ by the name of their flag.
// Empty ones count as not set. As for etcd, a variable that begins with ETCD_
// and is no setting gets a warning; with our prefix only one that is nearly
// the name of a setting does, as clients have variables with it too.
func scanEnvironment(environ []string) (map[string]setting, []string) {
	given := make(map[string]setting)
	strength := make(map[string]int)
	known := make(map[string]string)
	var suffixes, warnings []string
	for _, f := range allFlags() {
		if f.name != "help" && f.name != "version" { // which are for the command line
			suffix := strings.ToUpper(strings.ReplaceAll(f.name, "-", "_"))
			known[suffix] = f.name
			suffixes = append(suffixes, suffix)
		}
	}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		for i, prefix := range envPrefixes {
			suffix, ours := strings.CutPrefix(variable, prefix)
			if !ours || value == "" {
				continue
			}
			name, ok := known[suffix]
			if !ok {
				warnings = append(warnings, warnVariable(prefix, suffix, suffixes)...)
				continue
			}
			if s, ok := strength[name]; !ok || i < s {
				given[name] = setting{variable, value}
				strength[name] = i
			}
		}
	}
	return given, warnings
}

// slipMin is how long a variable's name must be to be compared with others. A
// shorter one is near to too many: LATCHKEY_PORT is Kubernetes', LATCHKEY_CERT
// a client's.
const slipMin = 6

// warnVariable is about a variable that is no setting. ETCD_UNSUPPORTED_ARCH
// is one that etcd reads and that needs no saying here.
func warnVariable(prefix, suffix string, suffixes []string) []string {
	near, ok := nearest(strings.TrimPrefix(suffix, "EXPERIMENTAL_"), suffixes)
	switch {
	case ok && len(suffix) >= slipMin:
		return []string{fmt.Sprintf("%s is no setting and has no effect, did you mean %s?", prefix+suffix, prefix+near)}
	case prefix == "ETCD_" && suffix != "UNSUPPORTED_ARCH":
		return []string{prefix + suffix + " is no setting and has no effect"}
	}
	return nil
}
