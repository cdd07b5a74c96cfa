package server

import "time"

// SetQuotaHold sets how long a raised NOSPACE alarm is on at least.
func SetQuotaHold(c *Config, d time.Duration) { c.Checks.hold = d }

// CountLoopback has wrong passwords counted that come from loopback addresses.
func CountLoopback(c *Config) { c.Auth.loopback = true }

// DefaultKeepAliveMinTime is how often a client may ping unless configured.
const DefaultKeepAliveMinTime = defaultKeepAliveMinTime
