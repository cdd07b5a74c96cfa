package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
)

// listeners are the sockets of a member.
type listeners struct{ client, peer, http, metrics []net.Listener }

// listen opens the member's sockets, before anything is written, so that a
// port in use costs nothing but the message.
func listen(ctx context.Context, c Config) (listeners, error) {
	var l listeners
	var err error
	if l.client, err = listenAll(ctx, "client", c.ListenClientURLs, c.Sockets.Client); err != nil {
		return l, err
	}
	if l.peer, err = listenAll(ctx, "peer", c.ListenPeerURLs, c.Sockets.Peer); err != nil {
		l.close()
		return l, err
	}
	if err = l.listenWeb(ctx, c.Web); err != nil {
		l.close()
		return l, err
	}
	return l, nil
}

func listenAll(ctx context.Context, kind string, urls []string, given net.Listener) ([]net.Listener, error) {
	if given != nil {
		return []net.Listener{given}, nil
	}
	var open []net.Listener
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err == nil {
			var l net.Listener
			if l, err = openSocket(ctx, u); err == nil {
				open = append(open, l)
				continue
			}
		}
		for _, l := range open {
			_ = l.Close()
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s is in use by another process: stop it or change listen-%s-urls", socketName(u), kind)
		}
		return nil, fmt.Errorf("listen for %ss on %s: %w", kind, raw, err)
	}
	return open, nil
}

func (l listeners) close() {
	for _, each := range slices.Concat(l.client, l.peer, l.http, l.metrics) {
		_ = each.Close()
	}
}

// advertisePeers returns what other members are told to connect to.
func (l listeners) advertisePeers(c Config) []string {
	return advertised(c.AdvertisePeerURLs, c.ListenPeerURLs, l.peer)
}

// advertiseClients returns what clients are told to connect to.
func (l listeners) advertiseClients(c Config) []string {
	return advertised(c.AdvertiseClientURLs, c.ListenClientURLs, l.client)
}

func advertised(given, listened []string, open []net.Listener) []string {
	var urls []string
	for _, u := range given {
		urls = append(urls, strings.TrimSuffix(u, "/"))
	}
	if len(urls) > 0 {
		return urls
	}
	for i, each := range open {
		urls = append(urls, asSecure(urlOf(each), listened[min(i, len(listened)-1)]))
	}
	return urls
}
