package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"syscall"
)

// Schemes of URLs of sockets in the file system, without and with TLS.
const (
	schemeUnix  = "unix"
	schemeUnixs = "unixs"
)

// isUnix reports whether a URL names a socket in the file system.
func isUnix(u *url.URL) bool { return u.Scheme == schemeUnix || u.Scheme == schemeUnixs }

// socketPath is the file of such a URL. Like etcd it takes unix:///path as well
// as unix://name, a file in the working directory, of which name may look like
// a host and a port.
func socketPath(u *url.URL) string { return u.Host + u.Path + u.Opaque }

// checkClientURL checks a URL at which clients connect.
func checkClientURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || !isUnix(u) {
		return checkURL(raw)
	}
	if socketPath(u) == "" {
		return fmt.Errorf("%q needs a path, as in unix:///run/latchkey.sock", raw)
	}
	return nil
}

// openSocket listens on a URL.
func openSocket(ctx context.Context, u *url.URL) (net.Listener, error) {
	var lc net.ListenConfig
	if !isUnix(u) {
		return lc.Listen(ctx, "tcp", u.Host)
	}
	path := socketPath(u)
	if err := removeStaleSocket(ctx, path); err != nil {
		return nil, err
	}
	return lc.Listen(ctx, "unix", path) // which removes the file when it is closed
}

// removeStaleSocket removes a socket that a process left behind which did not
// end by itself: nobody listens on it. Any other file stays, and is an error.
func removeStaleSocket(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is no socket", path)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close()
		return syscall.EADDRINUSE
	case !errors.Is(err, syscall.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

// urlOf is the URL at which clients reach a listener without TLS.
func urlOf(l net.Listener) string {
	if a, ok := l.Addr().(*net.UnixAddr); ok {
		return schemeUnix + "://" + a.Name
	}
	return "http://" + l.Addr().String()
}

// socketName is what tells a socket from others, for messages.
func socketName(u *url.URL) string {
	if isUnix(u) {
		return socketPath(u)
	}
	return u.Host
}

// checkClientURLs checks all addresses of clients.
func (c Config) checkClientURLs() error {
	for _, list := range []struct {
		field string
		urls  []string
	}{
		{"listen-client-urls", c.ListenClientURLs},
		{"advertise-client-urls", c.AdvertiseClientURLs},
		{"listen-client-http-urls", c.Web.ListenClientHTTPURLs},
		{"listen-metrics-urls", c.Web.ListenMetricsURLs},
	} {
		if len(list.urls) > listenersMax {
			return fmt.Errorf("%s takes at most %d addresses", list.field, listenersMax)
		}
		for _, u := range list.urls {
			if err := checkClientURL(u); err != nil {
				return fmt.Errorf("%s: %w", list.field, err)
			}
		}
	}
	return nil
}

// listenWeb opens the sockets that serve plain HTTP alone.
func (l *listeners) listenWeb(ctx context.Context, c Web) (err error) {
	if l.http, err = listenAll(ctx, "client-http", c.ListenClientHTTPURLs, nil); err != nil {
		return err
	}
	l.metrics, err = listenAll(ctx, "metrics", c.ListenMetricsURLs, nil)
	return err
}
