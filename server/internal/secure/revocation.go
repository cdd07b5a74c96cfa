package secure

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// revocation is the serial numbers that are not accepted any more; nil for none. As in etcd a number counts whoever
// issued the certificate: to refuse one too many is the lesser mistake.
type revocation map[string]struct{}

// parseRevocation reads lists in DER, or any number of them in PEM.
func parseRevocation(content []byte) (revocation, error) {
	r := make(revocation)
	add := func(der []byte) error {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		for _, e := range list.RevokedCertificateEntries {
			r[string(e.SerialNumber.Bytes())] = struct{}{}
		}
		return nil
	}
	if !bytes.Contains(content, []byte("-----BEGIN")) {
		return r, add(content)
	}
	lists := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		if err := add(block.Bytes); err != nil {
			return nil, err
		}
		lists++
	}
	if lists == 0 {
		return nil, errors.New("it holds no revocation list")
	}
	return r, nil
}

// check looks at every certificate that was shown, and at every one of the chains that vouch for it.
func (r revocation) check(shown []*x509.Certificate, chains [][]*x509.Certificate) error {
	if len(r) == 0 {
		return nil
	}
	for _, chain := range append([][]*x509.Certificate{shown}, chains...) {
		for _, c := range chain {
			if _, revoked := r[string(c.SerialNumber.Bytes())]; revoked {
				return fmt.Errorf("the certificate with serial number %x is revoked", c.SerialNumber)
			}
		}
	}
	return nil
}
