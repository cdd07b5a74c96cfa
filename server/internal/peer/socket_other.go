//go:build !linux

package peer

import (
	"net"
	"time"
)

// setUserTimeout has no portable form.
func setUserTimeout(net.Conn, time.Duration) {}
