package disk

import "errors"

// skeleton
var errTODO = errors.New("disk: not written yet")

type Mem struct{ seed uint64 }

type OpKind uint8

type Op struct {
	Kind   OpKind
	Name   string
	Offset int64
	Length int
	N      uint64
}

func NewMem(seed uint64) *Mem { return &Mem{seed: seed} }

func (m *Mem) Crash()                                {}
func (m *Mem) SetFault(f func(op Op) error)          {}
func (m *Mem) ReadFile(name string) ([]byte, error)  { return nil, errTODO }
func (m *Mem) WriteFile(name string, b []byte) error { return errTODO }
func (m *Mem) Names() []string                       { return nil }
func (m *Mem) Clone(seed uint64) *Mem                { return m }
func (m *Mem) Create(name string) (File, error)      { return nil, errTODO }
func (m *Mem) Open(name string) (File, error)        { return nil, errTODO }
func (m *Mem) Rename(oldname, newname string) error  { return errTODO }
func (m *Mem) Remove(name string) error              { return errTODO }
func (m *Mem) List(dir string) ([]string, error)     { return nil, errTODO }
func (m *Mem) MkdirAll(dir string) error             { return errTODO }
func (m *Mem) SyncDir(dir string) error              { return errTODO }
