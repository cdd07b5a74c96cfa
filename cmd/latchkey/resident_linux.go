package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// programKeptBytes is how much of the files that it has mapped, itself foremost, a
// member may have resident before it gives them back.
const programKeptBytes = 8 << 20

// giveBackProgram lets the kernel take back the pages of the program itself, which
// come again from its file when they are needed. Most are not: each page that is
// needed brings its neighbours, and after a while all of the program is resident,
// with the tables, the code that runs once, and that of other commands. What a busy
// member needs comes back with some hundred faults, of pages that are in memory, in
// less than a millisecond.
func giveBackProgram() error {
	if residentFiles() < programKeptBytes {
		return nil
	}
	return ofProgram(func(from, to uintptr) error {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return errno
		}
		return nil
	})
}

// ofProgram calls f with each range of addresses that has a part of the program
// as it stands in its file.
func ofProgram(f func(from, to uintptr) error) error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var rights string
		if !strings.HasSuffix(lines.Text(), exe) {
			continue
		}
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil || strings.Contains(rights, "w") {
			continue // what can be written to may differ from the file
		}
		if err := f(from, to); err != nil {
			return err
		}
	}
	return nil
}

// residentFiles returns how many bytes of mapped files are in memory; all of them if
// that can not be known.
func residentFiles() int64 {
	data, err := os.ReadFile("/proc/self/statm")
	var size, resident, shared int64
	if err == nil {
		_, err = fmt.Sscan(string(data), &size, &resident, &shared)
	}
	if err != nil {
		return math.MaxInt64
	}
	return shared * int64(os.Getpagesize())
}
