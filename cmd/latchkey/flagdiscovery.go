package main

import (
	"errors"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/server"
)

// discoveryFlags found a cluster through another one, as etcd's discovery by its
// v3 API does, or by records in the DNS.
var discoveryFlags = []flagGroup{
	{"Discovery of a new cluster's members", []serverFlag{
		{"discovery-token", "TEXT", "", "names the new cluster, instead of initial-cluster-token",
			intoDiscovery(parseText, func(d *server.Discovery) *string { return &d.Token })},
		{"discovery-endpoints", "URL,...", "", "client addresses of the cluster to find the others by",
			intoDiscovery(parseList, func(d *server.Discovery) *[]string { return &d.Endpoints })},
		{"discovery-dial-timeout", "DURATION", "2s", "time for an attempt to connect to it",
			intoDiscovery(parseDuration, func(d *server.Discovery) *time.Duration { return &d.DialTimeout })},
		{"discovery-request-timeout", "DURATION", "5s", "time for a request to it, which is tried again",
			intoDiscovery(parseDuration, func(d *server.Discovery) *time.Duration { return &d.RequestTimeout })},
		{"discovery-keepalive-time", "DURATION", "10s", "silence after which its connection is probed",
			intoDiscovery(parseDuration, func(d *server.Discovery) *time.Duration { return &d.KeepAliveTime })},
		{"discovery-keepalive-timeout", "DURATION", "2s", "time for the answer to that",
			intoDiscovery(parseDuration, func(d *server.Discovery) *time.Duration { return &d.KeepAliveTimeout })},
		{"discovery-insecure-transport", "", "true", "no TLS unless an endpoint begins with https",
			intoDiscovery(parseInverted, func(d *server.Discovery) *bool { return &d.UseTLS })},
		{"discovery-insecure-skip-tls-verify", "", "false", "accept any certificate of it",
			intoDiscovery(parseSwitch, func(d *server.Discovery) *bool { return &d.TLS.InsecureSkipVerify })},
		{"discovery-cert", "FILE", "", "certificate to show to it",
			intoDiscovery(parseText, func(d *server.Discovery) *string { return &d.TLS.Cert })},
		{"discovery-key", "FILE", "", "its key",
			intoDiscovery(parseText, func(d *server.Discovery) *string { return &d.TLS.Key })},
		{"discovery-cacert", "FILE", "the system's", "authorities of its certificates",
			intoDiscovery(parseText, func(d *server.Discovery) *string { return &d.TLS.CA })},
		{"discovery-user", "NAME[:PASSWORD]", "", "user at it", setDiscoveryUser},
		{"discovery-password", "TEXT", "", "that user's password",
			intoDiscovery(parseText, func(d *server.Discovery) *string { return &d.Password })},
		{"discovery-fallback", "exit", "exit", "what to do when discovery fails", setDiscoveryFallback},
		{"discovery-srv", "DOMAIN", "", "find the members by SRV records of this domain instead",
			into(parseText, func(c *server.Config) *string { return &c.Membership.DNS.Domain })},
		{"discovery-srv-name", "TEXT", "", "by those of the services etcd-server-TEXT and etcd-server-ssl-TEXT",
			into(parseText, func(c *server.Config) *string { return &c.Membership.DNS.Service })},
	}},
}

// intoDiscovery is like into, for a field of Discovery.
func intoDiscovery[T any](parse func(string) (T, error), field func(*server.Discovery) *T) func(*serverOptions, string) error {
	return into(parse, func(c *server.Config) *T { return field(&c.Membership.Discovery) })
}

// setDiscoveryUser takes a password behind a colon, unless it comes by its own flag,
// which stands behind this one in the table.
func setDiscoveryUser(o *serverOptions, value string) error {
	d := &o.config.Membership.Discovery
	d.Username, d.Password, _ = strings.Cut(value, ":")
	return nil
}

func setDiscoveryFallback(_ *serverOptions, value string) error {
	if value != "exit" {
		return errors.New("can only be exit, as there is no proxy any more")
	}
	return nil
}
