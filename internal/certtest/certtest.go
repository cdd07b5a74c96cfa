// Package certtest makes certificates for tests: an authority, what it signs, and what it revokes, as the files that a
// server or a tool is given.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates, and keeps its own in Dir as ca.pem.
type Authority struct {
	Dir     string
	t       testing.TB
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	revoked []x509.RevocationListEntry
}

// Pair is a certificate with its key, as files and ready to be used.
type Pair struct {
	Cert, Key   string
	Certificate tls.Certificate
}

// New makes an authority whose files end with the test.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{Dir: t.TempDir(), t: t}
	a.key = a.generate()
	template := &x509.Certificate{
		SerialNumber: a.serial(), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	a.must(err)
	a.cert, err = x509.ParseCertificate(der)
	a.must(err)
	a.write(a.File(), "CERTIFICATE", der)
	return a
}

// File is the authority's certificate.
func (a *Authority) File() string { return filepath.Join(a.Dir, "ca.pem") }

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// Issue makes a certificate for both sides of a connection, in NAME.pem and NAME.key, which it replaces. Its common name
// is name. Without hosts it is for localhost and 127.0.0.1; one with a scheme is a URI.
func (a *Authority) Issue(name string, hosts ...string) Pair {
	a.t.Helper()
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	key := a.generate()
	template := &x509.Certificate{
		SerialNumber: a.serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if u, err := url.Parse(h); err == nil && u.Scheme != "" && u.Host != "" {
			template.URIs = append(template.URIs, u)
		} else if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	a.must(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	a.must(err)
	p := Pair{Cert: filepath.Join(a.Dir, name+".pem"), Key: filepath.Join(a.Dir, name+".key")}
	a.write(p.Key, "PRIVATE KEY", secret)
	a.write(p.Cert, "CERTIFICATE", der)
	p.Certificate, err = tls.LoadX509KeyPair(p.Cert, p.Key)
	a.must(err)
	return p
}

// Revoke writes the list of all that was revoked to NAME, as PEM or as DER, and returns its path.
func (a *Authority) Revoke(name string, der bool, pairs ...Pair) string {
	a.t.Helper()
	for _, p := range pairs {
		a.revoked = append(a.revoked, x509.RevocationListEntry{SerialNumber: p.Certificate.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: a.serial(), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour), RevokedCertificateEntries: a.revoked,
	}, a.cert, a.key)
	a.must(err)
	path := filepath.Join(a.Dir, name)
	if der {
		a.replace(path, list)
	} else {
		a.write(path, "X509 CRL", list)
	}
	return path
}

func (a *Authority) serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	a.must(err)
	return n
}

func (a *Authority) generate() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.must(err)
	return key
}

func (a *Authority) write(path, kind string, der []byte) {
	a.replace(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// replace changes a file as tools that rotate certificates do.
func (a *Authority) replace(path string, content []byte) {
	a.must(os.WriteFile(path+".new", content, 0o600))
	a.must(os.Rename(path+".new", path))
}

func (a *Authority) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatalf("make a certificate: %v", err)
	}
}
