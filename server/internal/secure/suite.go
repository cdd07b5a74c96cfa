package secure

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// versionNames are the versions that can be asked for.
var versionNames = map[string]uint16{"TLS1.2": tls.VersionTLS12, "TLS1.3": tls.VersionTLS13}

// versions reads the bounds. What is not given is TLS 1.2 and no bound.
func versions(least, most string) (lo, hi uint16, err error) {
	lo = tls.VersionTLS12
	for _, v := range []struct {
		flag, name string
		to         *uint16
	}{{"tls-min-version", least, &lo}, {"tls-max-version", most, &hi}} {
		if v.name == "" {
			continue
		}
		id, ok := versionNames[v.name]
		if !ok {
			return 0, 0, fmt.Errorf("%s: unexpected TLS version %q (must be one of: TLS1.2, TLS1.3)", v.flag, v.name)
		}
		*v.to = id
	}
	if hi != 0 && lo > hi {
		return 0, 0, fmt.Errorf("tls-min-version %s is above tls-max-version %s", tls.VersionName(lo), tls.VersionName(hi))
	}
	return lo, hi, nil
}

// oldSuites are names that etcd knows besides those of crypto/tls.
var oldSuites = map[string]uint16{
	"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
}

// suites reads the names of cipher suites; nil if there is none.
func suites(names []string) ([]uint16, error) {
	var ids []uint16
	for _, name := range names {
		id, ok := suite(name)
		if !ok {
			return nil, fmt.Errorf("cipher-suites: unexpected TLS cipher suite %q, did you mean %s?", name, nearestSuite(name))
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func suite(name string) (uint16, bool) {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		if s.Name == name {
			return s.ID, true
		}
	}
	id, ok := oldSuites[name]
	return id, ok
}

// nearestSuite is the good suite that has most of its words in common with name, and the fewest others.
func nearestSuite(name string) string {
	words := strings.FieldsFunc(strings.ToUpper(name), func(r rune) bool { return r == '_' || r == '-' })
	best, most := "", -len(words)-100
	for _, s := range tls.CipherSuites() {
		theirs := strings.Split(s.Name, "_")
		score := -len(theirs)
		for _, w := range words {
			if slices.Contains(theirs, w) {
				score += 3
			}
		}
		if score > most {
			best, most = s.Name, score
		}
	}
	return best
}
