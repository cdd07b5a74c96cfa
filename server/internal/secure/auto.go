package secure

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Auto describes a self-signed certificate. It is kept in cert.pem and key.pem of Dir, where etcd has its own, and made
// anew when it has ended or is about to.
type Auto struct {
	Dir   string
	Hosts []string // names and addresses that it is for
	Years int      // how long it holds; 0: one
}

// renewBefore is how long before its end a made certificate is replaced.
const renewBefore = 24 * time.Hour

func (a Auto) cert() string { return filepath.Join(a.Dir, "cert.pem") }
func (a Auto) key() string  { return filepath.Join(a.Dir, "key.pem") }

// renew makes the certificate unless a good one is there.
func (a Auto) renew(log *slog.Logger) error {
	pair, err := tls.LoadX509KeyPair(a.cert(), a.key())
	if err == nil && time.Until(pair.Leaf.NotAfter) > renewBefore {
		return nil
	}
	if err := os.MkdirAll(a.Dir, 0o700); err != nil {
		return err
	}
	cert, key, ends, err := a.generate()
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	// The key first: a certificate without its key is only a reason to make both again.
	if err := errors.Join(replace(a.key(), key), replace(a.cert(), cert)); err != nil {
		return err
	}
	log.Info("made a self-signed certificate", "cert", a.cert(), "ends", ends)
	return nil
}

// generate returns a certificate and its key, as PEM.
func (a Auto) generate() (cert, key []byte, ends time.Time, err error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, ends, err
	}
	now := time.Now()
	ends = now.AddDate(max(a.Years, 1), 0, 0)
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"latchkey"}},
		NotBefore: now.Add(-time.Hour), NotAfter: ends, // clocks differ
		KeyUsage:    x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		// So that a client which is given the file as its CA can check the name.
		BasicConstraintsValid: true, IsCA: true,
	}
	for _, h := range a.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, ends, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &private.PublicKey, private)
	if err != nil {
		return nil, nil, ends, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, ends, err
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	return cert, key, ends, nil
}

// replace writes a file that only its owner may read, whole or not at all.
func replace(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing of that name
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
