package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
)

// section is the settings of one part of the program: what one key holds.
type section map[string]string

// renderer writes the file whenever the cache has something new.
type renderer struct {
	sections *cache.Cache[section]
	file     string
	rendered chan client.Revision // receives the revision of each version of the file
}

// run renders until ctx is done or something is wrong with the disk. One that was
// started again begins with a Resynced, so what happened while it was away is
// rendered too.
func (r *renderer) run(ctx context.Context) error {
	for ev, err := range r.sections.Events(ctx) {
		if err != nil {
			return err
		}
		if ev.Type == cache.Rejected {
			continue // the file stays as it is until the key can be read again
		}
		// The view is of one revision, at or behind the event's: a transaction that
		// changed two sections is in one version of the file.
		view := r.sections.View()
		for range view.Rejected() {
			view = nil
			break
		}
		if view == nil {
			continue
		}
		if err := replace(r.file, render(view)); err != nil {
			return err
		}
		select {
		case r.rendered <- view.Rev():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// render writes the sections in the order of their names.
func render(view *cache.View[section]) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# revision %d\n", view.Rev())
	for name, item := range view.All() {
		fmt.Fprintf(&b, "\n[%s]\n", name)
		names := make([]string, 0, len(item.Value))
		for name := range item.Value {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&b, "%s = %s\n", name, item.Value[name])
		}
	}
	b.WriteString("\n# end\n")
	return b.Bytes()
}

// replace puts a file in the place of another in one step: a reader, or a crash, finds
// the old one or the new one.
func replace(file string, content []byte) error {
	next, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // of no effect once it has its new name
	_, err = next.Write(content)
	if err == nil {
		err = next.Sync()
	}
	if closed := next.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(next.Name(), file)
}

// parse reads a file back, and fails on one that is not whole.
func parse(content string) (map[string]section, error) {
	if !strings.HasPrefix(content, "# revision ") || !strings.HasSuffix(content, "\n# end\n") {
		return nil, fmt.Errorf("the file is not whole:\n%s", content)
	}
	out := make(map[string]section)
	var current section
	for line := range strings.Lines(content) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "["); ok {
			current = make(section)
			out[strings.TrimSuffix(name, "]")] = current
		} else if name, value, ok := strings.Cut(line, " = "); ok {
			current[name] = value
		}
	}
	return out, nil
}
