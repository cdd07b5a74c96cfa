package main

import (
	"errors"
	"fmt"
	"net"
)

// What the service manager is told, as for etcd: a unit of Type=notify counts
// as started once its clients are served.
const (
	notifyReady    = "READY=1"
	notifyStopping = "STOPPING=1"
)

// notify tells systemd, if it has started the program, how the member is.
func (a *app) notify(state string) error {
	socket := a.getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	_, err = c.Write([]byte(state))
	return errors.Join(err, c.Close())
}
