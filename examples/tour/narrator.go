package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// narrator prints what happens, a line at a time, with the time since the
// start. Any goroutine may use it.
type narrator struct {
	start time.Time

	mu     sync.Mutex // protects the rest
	out    io.Writer
	detail int // how many more details to print before the next heading
}

// detailMax is how many details a chapter has: the workers do much more than
// anybody wants to read.
const detailMax = 6

func newNarrator(out io.Writer) *narrator { return &narrator{start: time.Now(), out: out} }

// chapter begins a part of the story.
func (n *narrator) chapter(title string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.detail = detailMax
	fmt.Fprintf(n.out, "\n%s\n", title)
}

// say prints a line.
func (n *narrator) say(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.line(fmt.Sprintf(format, args...))
}

// mention prints a line if the chapter does not have enough of them yet.
func (n *narrator) mention(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.detail > 0:
		n.line("  " + fmt.Sprintf(format, args...))
	case n.detail == 0:
		n.line("  ... and so on")
	}
	n.detail--
}

func (n *narrator) line(text string) {
	fmt.Fprintf(n.out, "%6.2f s  %s\n", time.Since(n.start).Seconds(), text)
}
