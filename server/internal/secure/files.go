package secure

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// fileBytesMax bounds what is read of one file.
const fileBytesMax = 64 << 20

// settleTime is how old a file's time of change must be for it to be trusted: a file may be written twice within what
// the file system can tell apart.
const settleTime = 2 * time.Second

// material is what the files say. It is immutable.
type material struct {
	certificate tls.Certificate
	client      *tls.Certificate // to connect with; nil: certificate
	authorities *x509.CertPool   // nil: the system's
	revoked     revocation
}

// files reads again what has changed.
type files struct {
	settings Settings
	made     bool // the certificate is ours to renew

	mu     sync.Mutex // protects the rest
	read   map[string]*file
	now    *material
	failed string // the last error that was logged
}

// file is one that was read.
type file struct {
	info    os.FileInfo
	at      time.Time
	content []byte
}

func newFiles(s Settings) (*files, error) {
	f := &files{settings: s, made: s.auto(), read: make(map[string]*file)}
	if f.made {
		f.settings.CertFile, f.settings.KeyFile = s.Auto.cert(), s.Auto.key()
	}
	if err := f.refresh(); err != nil {
		return nil, err
	}
	return f, nil
}

// current is called when a handshake begins.
func (f *files) current() *material {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch err := f.refresh(); {
	case err == nil:
		f.failed = ""
	case err.Error() != f.failed:
		f.failed = err.Error()
		f.settings.Logger.Error("a new certificate, key, CA or revocation list can not be used; the old one stays in force", "err", err)
	}
	return f.now
}

// refresh replaces now if a file has changed and all of them are good.
func (f *files) refresh() error {
	s := f.settings
	if f.made && (f.now == nil || time.Until(f.now.certificate.Leaf.NotAfter) < renewBefore) {
		if err := s.Auto.renew(s.Logger); err != nil {
			return fmt.Errorf("%sauto-tls: %w", s.Flag, err)
		}
	}
	changed := f.now == nil
	for _, each := range []struct{ flag, name string }{
		{"cert-file", s.CertFile}, {"key-file", s.KeyFile}, {"client-cert-file", s.ClientCertFile},
		{"client-key-file", s.ClientKeyFile}, {"trusted-ca-file", s.TrustedCAFile}, {"crl-file", s.CRLFile},
	} {
		if each.name == "" {
			continue
		}
		fresh, err := f.look(each.flag, each.name)
		if err != nil {
			return err
		}
		changed = changed || fresh
	}
	if !changed {
		return nil
	}
	next, err := f.parse()
	if err != nil {
		// What was read does not go together, or not yet: a key may follow its certificate. The next look reads all anew.
		clear(f.read)
		return err
	}
	if f.now != nil {
		s.Logger.Info("certificates were read again", "cert", s.CertFile, "ends", next.certificate.Leaf.NotAfter)
	}
	f.now = next
	return nil
}

// look reads a file if it is not known to be as before, and tells whether it is not.
func (f *files) look(flag, name string) (changed bool, _ error) {
	info, err := os.Stat(name)
	if err != nil {
		return false, f.unreadable(flag, name, err)
	}
	old := f.read[name]
	if old != nil && os.SameFile(old.info, info) && old.info.ModTime().Equal(info.ModTime()) && old.info.Size() == info.Size() &&
		old.at.Sub(info.ModTime()) > settleTime {
		return false, nil
	}
	if info.Size() > fileBytesMax {
		return false, f.unreadable(flag, name, errors.New("it is too large"))
	}
	at := time.Now()
	content, err := os.ReadFile(name)
	if err != nil {
		return false, f.unreadable(flag, name, err)
	}
	f.read[name] = &file{info: info, at: at, content: content}
	return old == nil || !bytes.Equal(old.content, content), nil
}

// unreadable names the setting that names the file. flag is its name for members, without their "peer-".
func (f *files) unreadable(flag, name string, err error) error {
	if f.settings.Flag == "" && flag == "crl-file" {
		flag = "client-crl-file"
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s%s: %s: %w", f.settings.Flag, flag, name, err)
}

func (f *files) content(name string) []byte { return f.read[name].content }

func (f *files) parse() (*material, error) {
	s := f.settings
	m := &material{}
	var err error
	if m.certificate, err = f.pair("", s.CertFile, s.KeyFile); err != nil {
		return nil, err
	}
	if s.ClientCertFile != "" {
		c, err := f.pair("client-", s.ClientCertFile, s.ClientKeyFile)
		if err != nil {
			return nil, err
		}
		m.client = &c
	}
	if s.TrustedCAFile != "" {
		if m.authorities, err = authorities(f.content(s.TrustedCAFile)); err != nil {
			return nil, f.unreadable("trusted-ca-file", s.TrustedCAFile, err)
		}
	}
	if s.CRLFile != "" {
		if m.revoked, err = parseRevocation(f.content(s.CRLFile)); err != nil {
			return nil, f.unreadable("crl-file", s.CRLFile, fmt.Errorf("no revocation list, as PEM or DER: %w", err))
		}
	}
	return m, nil
}

func (f *files) pair(which, cert, key string) (tls.Certificate, error) {
	c, err := tls.X509KeyPair(f.content(cert), f.content(key))
	if err == nil {
		return c, nil
	}
	switch {
	case !hasBlock(f.content(cert), "CERTIFICATE"):
		return c, f.unreadable(which+"cert-file", cert, errors.New("it holds no certificate in PEM"))
	case !hasBlock(f.content(key), "PRIVATE KEY"):
		return c, f.unreadable(which+"key-file", key, errors.New("it holds no private key in PEM"))
	}
	return c, f.unreadable(which+"key-file", key, fmt.Errorf("it does not go with the certificate %s: %w", cert, err))
}

// hasBlock tells whether a block of that type is in content; types end alike.
func hasBlock(content []byte, kind string) bool {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if bytes.HasSuffix([]byte(block.Type), []byte(kind)) {
			return true
		}
	}
	return false
}

func authorities(content []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return pool, nil
}
