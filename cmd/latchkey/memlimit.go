package main

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// memoryShare is how much of what a container may have the runtime is told to use:
// the rest is for the pages of files, the stacks of threads and the kernel's own.
const memoryShare = 0.9

// containerLimit returns the bytes of memory that the process's control groups allow
// it, of both of their versions, by what root (the root directory) says; MaxInt64
// when there is no bound, or none that can be read.
func containerLimit(root fs.FS) int64 {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return math.MaxInt64
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		// "0::/a/b" is of version 2, "9:memory:/a/b" of version 1.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		switch {
		case fields[0] == "0" && fields[1] == "":
		case strings.Contains(","+fields[1]+",", ",memory,"):
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// A group has no more than those above it. In a container the path may be the
		// host's, which is not to be seen there; its own root is.
		for dir := path.Clean("/" + fields[2]); ; dir = path.Dir(dir) {
			least = min(least, readLimit(root, path.Join(base, dir, file)))
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// readLimit returns the number in a file; MaxInt64 when it has none.
func readLimit(root fs.FS, name string) int64 {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n <= 0 { // "max"
		return math.MaxInt64
	}
	return n
}
