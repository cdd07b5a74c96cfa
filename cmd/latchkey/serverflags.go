package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"

	"github.com/latchkey-go/latchkey/server"
)

// serverOptions is what the command line, the environment and the configuration
// file say about a member.
type serverOptions struct {
	config    server.Config // without Logger
	logLevel  slog.Level
	logFormat string   // "text" or "json"
	logOutput []string // "stderr", "stdout" or files
	help      bool
	version   bool
	warnings  []string // one line each
}

// serverFlag is one setting of `latchkey server`: a flag, a variable in the
// environment for each of envPrefixes, and a key of the configuration file.
type serverFlag struct {
	name     string
	value    string // what the help calls its value; empty for a switch
	fallback string // what holds when it is not set, for the help
	usage    string
	// set stores a value. A flag without it is one of etcd's that has no effect
	// here: usage says why, and a value other than fallback gets a warning.
	set func(o *serverOptions, value string) error
}

// flagGroup is a part of the help.
type flagGroup struct {
	title string
	flags []serverFlag
}

// flagGroups returns all flags, in the order of the help.
func flagGroups() []flagGroup {
	return slices.Concat(memberFlags, discoveryFlags, securityFlags, operationFlags, inertFlags)
}

// allFlags returns the flags of all groups.
func allFlags() []serverFlag {
	var all []serverFlag
	for _, g := range flagGroups() {
		all = append(all, g.flags...)
	}
	return all
}

func findFlag(name string) (serverFlag, bool) {
	for _, f := range allFlags() {
		if f.name == name {
			return f, true
		}
	}
	return serverFlag{}, false
}

// parseServer reads flags in the syntax of Go's flag package (-f and --f, the
// value behind = or a space, the last one wins) and, for what they do not set,
// the environment, given as "NAME=value". If either names a configuration file,
// that file is all that counts, as for etcd. Every error is a usageError of one
// line that says what to change.
func parseServer(args, environ []string) (serverOptions, error) {
	o := serverOptions{logFormat: "text", logOutput: []string{"stderr"}}
	given, warnings, err := gather(args, environ)
	if err != nil {
		return o, err
	}
	o.warnings = warnings
	for _, f := range allFlags() {
		s, ok := given[f.name]
		if !ok {
			continue
		}
		var no refusal
		if err := f.apply(&o, s); errors.As(err, &no) {
			return o, usageErrorf("%s is not supported: %w", s.source, err) // the value may be a secret
		} else if err != nil {
			return o, usageErrorf("%s %q: %w", s.source, s.value, err)
		}
	}
	if o.help || o.version {
		return o, nil
	}
	if err := o.config.Validate(); err != nil {
		return o, usageError{err}
	}
	o.warnings = append(o.warnings, warnUnreachable(o.config)...)
	o.warnings = append(o.warnings, warnOpen(o.config)...)
	return o, nil
}

// apply stores a value, or warns that it has no effect.
func (f serverFlag) apply(o *serverOptions, s setting) error {
	if f.set != nil {
		return f.set(o, s.value)
	}
	if s.value == "" {
		return nil
	}
	same := s.value == f.fallback
	var err error
	switch f.value {
	case "":
		var on bool
		if on, err = parseSwitch(s.value); f.fallback == "" {
			err = nil // etcd takes any value of its oldest flags
		}
		same = strconv.FormatBool(on) == f.fallback
	case "DURATION":
		_, err = parseAnyDuration(s.value)
	case "N", "MB":
		_, err = parseInteger(s.value)
	}
	if err == nil && !same {
		o.warnings = append(o.warnings, fmt.Sprintf("%s has no effect: %s", s.source, f.usage))
	}
	return err
}

// into makes the setter of a field from the parser of its values.
func into[T any](parse func(string) (T, error), field func(*server.Config) *T) func(*serverOptions, string) error {
	return func(o *serverOptions, value string) error {
		v, err := parse(value)
		if err != nil {
			return err
		}
		*field(&o.config) = v
		return nil
	}
}

// refusal is why the member can not obey a flag and must not ignore it.
type refusal string

func (r refusal) Error() string { return string(r) }

// refused is the setter of such a flag. An empty value asks for nothing.
func refused(why refusal) func(*serverOptions, string) error {
	return func(_ *serverOptions, value string) error {
		if value == "" {
			return nil
		}
		return why
	}
}
