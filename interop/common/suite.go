//go:build e2e

package main

import _ "go.etcd.io/etcd/tests/v3/common" // keeps the suite in go.mod
