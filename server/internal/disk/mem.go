package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
)

// ErrPowerCut is what a file that was open when the power was cut answers.
var ErrPowerCut = errors.New("disk: power was cut")

// errAcross: the log renames within one directory only, and two directories' changes would need an order here.
var errAcross = errors.New("disk: rename across directories is not supported in memory")

// Mem is a file system in memory that forgets what was not synced when its power is cut. It is as unkind as the promises
// of FS allow: sectors written since the last Sync survive or not one by one, in any of the states that they went
// through; so do directory changes since the last SyncDir, in any combination; Sync of a file says nothing about its name.
// What it does depends on nothing but the seed and the order of the calls. A write costs what it writes.
type Mem struct {
	mu         sync.Mutex // protects all below, and the inodes
	rng        *rand.Rand
	fault      func(Op) error
	ops        uint64 // operations begun
	generation uint64 // power cuts so far; a file opened in an earlier one is dead
	dirs       map[string]*directory
}

// directory keeps what programs see, what would be there after a power cut, and the way from one to the other.
type directory struct {
	now     map[string]*inode
	durable map[string]*inode
	changes []change
}

// change is one step of a directory: a name given to a file, a name taken away, or both at once.
type change struct {
	add, drop string // empty for none
	file      *inode
}

func (c change) apply(names map[string]*inode) {
	if c.drop != "" {
		delete(names, c.drop)
	}
	if c.add != "" {
		names[c.add] = c.file
	}
}

// NewMem makes an empty file system whose only directories are "/" and ".".
func NewMem(seed uint64) *Mem {
	m := &Mem{rng: newRand(seed), dirs: map[string]*directory{}}
	m.dirs["/"], m.dirs["."] = newDirectory(), newDirectory()
	return m
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6c617463686b6579)) }

func newDirectory() *directory {
	return &directory{now: map[string]*inode{}, durable: map[string]*inode{}}
}

// SetFault makes f be called before every operation, without a lock held: it may call Crash or any helper. When it
// returns an error the operation fails with it: a failed WriteAt may have written some of its leading sectors; a failed
// Sync leaves the bytes readable but marks them clean, so that no later Sync writes them (what Linux does); any other
// failed operation has no effect. nil ends it.
func (m *Mem) SetFault(f func(op Op) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Crash cuts the power and restores it: what was not durable survives or not, and every open file is dead.
func (m *Mem) Crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generation++
	seen := map[*inode]bool{}
	for _, name := range slices.Sorted(maps.Keys(m.dirs)) {
		d := m.dirs[name]
		for _, c := range d.changes {
			if m.rng.IntN(2) == 0 {
				c.apply(d.durable)
			}
		}
		d.changes = nil
		d.now = maps.Clone(d.durable)
		for _, base := range slices.Sorted(maps.Keys(d.now)) {
			if f := d.now[base]; !seen[f] {
				seen[f] = true
				f.name = path.Join(name, base)
				f.crash(m.rng)
			}
		}
	}
}

// Clone is an independent copy in the same state, pending writes included, with a seed of its own and no fault. Files
// that are open stay with the original. Clone and Crash together show what a power cut now would leave.
func (m *Mem) Clone(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &Mem{rng: newRand(seed), dirs: make(map[string]*directory, len(m.dirs))}
	copies := map[*inode]*inode{}
	file := func(f *inode) *inode {
		if f != nil && copies[f] == nil {
			copies[f] = f.clone()
		}
		return copies[f]
	}
	for name, d := range m.dirs { // the order does not matter: nothing is drawn here
		n := newDirectory()
		for base, f := range d.now {
			n.now[base] = file(f)
		}
		for base, f := range d.durable {
			n.durable[base] = file(f)
		}
		for _, ch := range d.changes {
			n.changes = append(n.changes, change{add: ch.add, drop: ch.drop, file: file(ch.file)})
		}
		c.dirs[name] = n
	}
	return c
}

// ReadFile returns a copy of a file's bytes as programs see them. It is not an operation: no fault, no count.
func (m *Mem) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.find(name)
	if err != nil {
		return nil, err
	}
	return slices.Clone(f.data), nil
}

// WriteFile makes a file hold these bytes, durably and whatever was pending on it, creating it durably if it is missing:
// for tests that damage a disk. It is not an operation. Files that are open see the bytes.
func (m *Mem) WriteFile(name string, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.split(name)
	if err != nil {
		return err
	}
	f := d.now[base]
	if f == nil {
		f = &inode{name: path.Clean(name)}
	}
	d.now[base], d.durable[base] = f, f
	f.data = slices.Clone(b)
	f.settle()
	return nil
}

// Names returns the paths of all files, sorted. It is not an operation.
func (m *Mem) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for dir, d := range m.dirs {
		for base := range d.now {
			names = append(names, path.Join(dir, base))
		}
	}
	slices.Sort(names)
	return names
}

// Ops returns how many operations have begun.
func (m *Mem) Ops() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// begin counts an operation and asks the fault. It must be called without the lock. An open file goes by its latest name.
func (m *Mem) begin(op Op, f *inode) error {
	m.mu.Lock()
	if f != nil {
		op.Name = f.name
	}
	m.ops++
	op.N = m.ops
	fault := m.fault
	m.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(op)
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	name = path.Clean(name)
	if err := m.begin(Op{Kind: OpCreate, Name: name}, nil); err != nil {
		return nil, pathError("create", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.split(name)
	if err != nil {
		return nil, err
	}
	// An existing file is replaced, not cut: after a power cut its name leads to the old bytes or to the new file.
	f := &inode{name: name}
	d.step(change{add: base, file: f})
	return &memFile{mem: m, file: f, generation: m.generation}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	name = path.Clean(name)
	if err := m.begin(Op{Kind: OpOpen, Name: name}, nil); err != nil {
		return nil, pathError("open", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.find(name)
	if err != nil {
		return nil, err
	}
	return &memFile{mem: m, file: f, generation: m.generation}, nil
}

// Rename implements FS, within one directory.
func (m *Mem) Rename(oldname, newname string) error {
	oldname, newname = path.Clean(oldname), path.Clean(newname)
	if err := m.begin(Op{Kind: OpRename, Name: oldname, To: newname}, nil); err != nil {
		return pathError("rename", oldname, err)
	}
	if path.Dir(oldname) != path.Dir(newname) {
		return pathError("rename", oldname, errAcross)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.find(oldname)
	if err != nil || oldname == newname {
		return err
	}
	m.dirs[path.Dir(oldname)].step(change{drop: path.Base(oldname), add: path.Base(newname), file: f})
	f.name = newname
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = path.Clean(name)
	if err := m.begin(Op{Kind: OpRemove, Name: name}, nil); err != nil {
		return pathError("remove", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(name); err != nil {
		return err
	}
	m.dirs[path.Dir(name)].step(change{drop: path.Base(name)})
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	if err := m.begin(Op{Kind: OpList, Name: dir}, nil); err != nil {
		return nil, pathError("list", dir, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[dir]
	if d == nil {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	return slices.Sorted(maps.Keys(d.now)), nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	dir = path.Clean(dir)
	if err := m.begin(Op{Kind: OpMkdirAll, Name: dir}, nil); err != nil {
		return pathError("mkdir", dir, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; m.dirs[dir] == nil; dir = path.Dir(dir) {
		m.dirs[dir] = newDirectory()
	}
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = path.Clean(dir)
	if err := m.begin(Op{Kind: OpSyncDir, Name: dir}, nil); err != nil {
		return pathError("sync", dir, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[dir]
	if d == nil {
		return pathError("sync", dir, fs.ErrNotExist)
	}
	for _, c := range d.changes {
		c.apply(d.durable)
	}
	d.changes = d.changes[:0]
	return nil
}

// step changes what programs see now, and remembers the change until SyncDir.
func (d *directory) step(c change) {
	c.apply(d.now)
	d.changes = append(d.changes, c)
}

func (m *Mem) split(name string) (*directory, string, error) {
	dir, base := path.Dir(path.Clean(name)), path.Base(name)
	d := m.dirs[dir]
	if d == nil {
		return nil, "", pathError("open", name, fs.ErrNotExist)
	}
	return d, base, nil
}

func (m *Mem) find(name string) (*inode, error) {
	d, base, err := m.split(name)
	if err != nil {
		return nil, err
	}
	f := d.now[base]
	if f == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return f, nil
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// OpKind says what an operation does.
type OpKind uint8

// The operations of FS and File.
const (
	OpCreate OpKind = iota + 1
	OpOpen
	OpRename
	OpRemove
	OpList
	OpMkdirAll
	OpSyncDir
	OpRead
	OpWrite
	OpSize
	OpSync
	OpClose
)

// String is the operation's name in lower case.
func (k OpKind) String() string {
	switch k {
	case OpCreate:
		return "create"
	case OpOpen:
		return "open"
	case OpRename:
		return "rename"
	case OpRemove:
		return "remove"
	case OpList:
		return "list"
	case OpMkdirAll:
		return "mkdir"
	case OpSyncDir:
		return "syncdir"
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpSize:
		return "size"
	case OpSync:
		return "sync"
	case OpClose:
		return "close"
	default:
		return fmt.Sprintf("op %d", uint8(k))
	}
}

// Op is one operation on a Mem.
type Op struct {
	Kind   OpKind
	Name   string // cleaned path; of an open file, the latest that it was given
	To     string // of a rename
	Offset int64  // of a read or write
	Length int    // of a read or write, in bytes
	N      uint64 // operations begun, this one included: 1 for the first
}
