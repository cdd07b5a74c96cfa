package main

import (
	"crypto/tls"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/latchkey-go/latchkey/client"
)

// security is what the flags say about how to connect, with etcdctl's names.
type security struct {
	files    client.TLSFiles
	insecure bool // unless something else asks for TLS
}

// addTo defines the flags. Their defaults are in the environment.
func (s *security) addTo(f *pflag.FlagSet, a *app) {
	text := func(field *string, name, usage string) {
		f.StringVar(field, name, a.setting(name), usage+" (or "+strings.Join(settingNames(name), ", ")+")")
	}
	yes := func(field *bool, name string, fallback bool, usage string) {
		if v, err := strconv.ParseBool(a.setting(name)); err == nil {
			fallback = v
		}
		f.BoolVar(field, name, fallback, usage)
	}
	text(&s.files.CA, "cacert", "trust the authorities of this `FILE`")
	text(&s.files.Cert, "cert", "show the certificate of this `FILE`")
	text(&s.files.Key, "key", "its key is in this `FILE`")
	yes(&s.files.InsecureSkipVerify, "insecure-skip-tls-verify", false, "accept any certificate of a server")
	yes(&s.insecure, "insecure-transport", true, "without the flags above and https://, do not use TLS")
}

// settingNames are the variables of the environment for a flag. The first wins.
func settingNames(flag string) []string {
	name := strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	return []string{"LATCHKEY_" + name, "ETCDCTL_" + name}
}

// setting is what the environment says for a flag, "" for nothing.
func (a *app) setting(flag string) string {
	for _, name := range settingNames(flag) {
		if v := a.getenv(name); v != "" {
			return v
		}
	}
	return ""
}

// config returns how to connect to the endpoints; nil for in the clear.
func (s security) config(endpoints []string) (*tls.Config, error) {
	secure := slices.ContainsFunc(endpoints, func(e string) bool {
		return strings.HasPrefix(e, "https://") || strings.HasPrefix(e, "unixs://")
	})
	if !secure && s.insecure && s.files.CA == "" && s.files.Cert == "" && s.files.Key == "" {
		return nil, nil
	}
	conf, err := s.files.Load()
	if err != nil {
		return nil, usageErrorf("--cacert, --cert, --key: %w", err)
	}
	return conf, nil
}
