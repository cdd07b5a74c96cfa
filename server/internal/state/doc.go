// Package state is the replicated machine.
package state
