// Package latchkeyv1 has the messages of Latchkey's extension of etcd's API: [PipeClient] and [PipeServer], which carry
// many requests on one stream. docs/pipe.md tells how to speak it.
package latchkeyv1
