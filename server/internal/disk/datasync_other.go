//go:build !linux

package disk

import "os"

// datasync has no cheaper portable form than a full sync.
func datasync(f *os.File) error { return f.Sync() }
