package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// TLSFiles makes a Config.TLS of files. The zero value trusts the system's authorities and shows no certificate.
type TLSFiles struct {
	// CA holds the authorities to trust, as PEM. Default: the system's.
	CA string
	// Cert and Key are the certificate to show and its key, as PEM; both or none. They are read at every connection, so
	// they may be replaced while the client runs.
	Cert, Key string
	// ServerName is the name that servers must have a certificate for. Default: the host of each endpoint.
	ServerName string
	// InsecureSkipVerify accepts whatever certificate a server shows: what is sent can be read by who pretends to be it.
	InsecureSkipVerify bool
}

// Load reads the files once, so that what is wrong with them shows now.
func (f TLSFiles) Load() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName, InsecureSkipVerify: f.InsecureSkipVerify}
	if f.CA != "" {
		content, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("client: read the CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(content) {
			return nil, fmt.Errorf("client: %s holds no certificate in PEM", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, errors.New("client: a certificate and its key must be given together")
	}
	if f.Cert == "" {
		return conf, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("client: certificate %s and key %s: %w", f.Cert, f.Key, err)
		}
		return &pair, nil
	}
	if _, err := load(); err != nil {
		return nil, err
	}
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	return conf, nil
}
