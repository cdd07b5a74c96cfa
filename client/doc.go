// Package client is the typed client of Latchkey, and of any other server that speaks the etcd v3 API.
package client
