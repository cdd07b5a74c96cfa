package disk

import (
	"fmt"
	"io/fs"
	"os"
)

// ReadOnly is the operating system's file system for those who only look: everything that would change it fails with
// fs.ErrPermission.
func ReadOnly() FS { return readOnlyFS{} }

type readOnlyFS struct{ osFS }

func (readOnlyFS) Open(name string) (File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (readOnlyFS) Create(name string) (File, error) { return nil, denied("create", name) }
func (readOnlyFS) Rename(oldname, _ string) error   { return denied("rename", oldname) }
func (readOnlyFS) Remove(name string) error         { return denied("remove", name) }
func (readOnlyFS) MkdirAll(dir string) error        { return denied("make directory", dir) }
func (readOnlyFS) SyncDir(dir string) error         { return denied("sync directory", dir) }

func denied(doing, name string) error {
	return fmt.Errorf("%s %s on a read-only file system: %w", doing, name, fs.ErrPermission)
}
