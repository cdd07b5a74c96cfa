package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// giveBackStart lets the kernel take back the pages of the program itself, which
// come again from its file when they are needed. Most are those of the start: of
// tables, of commands that a member does not have, of code that runs once.
func giveBackStart() error {
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
