package client

import (
	"crypto/tls"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseEndpoint(t *testing.T) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, c := range []struct {
		name     string
		tls      *tls.Config
		address  string
		protocol string
		failure  string
	}{
		{"10.0.0.1:2379", nil, "10.0.0.1:2379", "insecure", ""},
		{"10.0.0.1:2379", conf, "10.0.0.1:2379", "tls", ""},
		{"http://host:1", nil, "host:1", "insecure", ""},
		{"http://host:1", conf, "", "", "scheme is http, but Config.TLS is set"},
		{"https://host:1", nil, "host:1", "tls", ""},
		{"https://[::1]:1", conf, "[::1]:1", "tls", ""},
		{"unix:///tmp/s", nil, "unix:/tmp/s", "insecure", ""},
		{"unix:///tmp/s", conf, "unix:/tmp/s", "tls", ""},
		{"unixs:///tmp/s", nil, "unix:/tmp/s", "tls", ""},
		{"unixs:///tmp/s", conf, "unix:/tmp/s", "tls", ""},
		{"ftp://host", nil, "", "", `scheme "ftp" is none of http, https, unix, unixs`},
		{"http://a b", nil, "", "", "invalid character"},
		{"", nil, "", "", "it is empty"},
	} {
		address, creds, err := parseEndpoint(c.name, c.tls)
		if c.failure != "" {
			require.ErrorContains(t, err, c.failure, c.name)
			continue
		}
		require.NoError(t, err, c.name)
		require.Equal(t, c.address, address, c.name)
		require.Equal(t, c.protocol, creds.Info().SecurityProtocol, c.name)
	}
}

func TestPlainFailure(t *testing.T) {
	for message, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: "dial tcp 127.0.0.1:1: connect: connection refused",
		`connection error: desc = "error reading server preface: EOF"`:                                                 "error reading server preface: EOF",
		"something else": "something else",
	} {
		require.Equal(t, want, plainFailure(message))
	}
}
