package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/latchkey-go/latchkey/client"
)

// answer is a result in the three forms of --output. The simple form is made
// for shells, the table for eyes, and the JSON, one object to a line, for
// programs. What cannot be a table prints its simple form instead.
type answer struct {
	simple func(w *bytes.Buffer)
	table  *table
	json   any
}

// print writes an answer in the form that the flags ask for, in one write.
func (a *app) print(r answer) error {
	var out bytes.Buffer
	switch {
	case a.output == "json":
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(r.json); err != nil {
			return fmt.Errorf("print result: %w", err)
		}
	case a.output == "table" && r.table != nil:
		r.table.write(&out, colorOf(a.out))
	default:
		r.simple(&out)
	}
	if _, err := a.out.Write(out.Bytes()); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}

// table is rows of cells under a header.
type table struct {
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write aligns the columns with spaces: cells are data and may contain
// anything, so what would break a line is quoted.
func (t *table) write(w *bytes.Buffer, color bool) {
	widths := make([]int, len(t.header))
	lines := append([][]string{t.header}, t.rows...)
	for _, line := range lines {
		for i, cell := range line {
			line[i] = printable(cell)
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i]))
		}
	}
	for n, line := range lines {
		var out strings.Builder
		for i, cell := range line {
			out.WriteString(cell)
			if i < len(line)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		fmt.Fprintln(w, paint(color && n == 0, bold, strings.TrimRight(out.String(), " ")))
	}
}

// printable returns s, quoted if it would not show as one line of text.
func printable(s string) string {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return fmt.Sprintf("%q", s)
		}
	}
	return s
}

// text is a key or a value in JSON: a string if it is UTF-8, and else an
// object, {"base64": "..."}, so that no byte is lost.
type text string

// MarshalJSON implements json.Marshaler.
func (t text) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	var err error
	if utf8.ValidString(string(t)) {
		err = encoder.Encode(string(t))
	} else {
		err = encoder.Encode(map[string][]byte{"base64": []byte(t)})
	}
	return bytes.TrimSpace(out.Bytes()), err
}

// hexID is an id as every command prints and takes it.
type hexID uint64

func (id hexID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText implements encoding.TextMarshaler.
func (id hexID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// keyJSON is one key in JSON.
type keyJSON struct {
	Key            text            `json:"key"`
	Value          *text           `json:"value,omitempty"` // nil with --keys-only
	CreateRevision client.Revision `json:"create_revision"`
	ModRevision    client.Revision `json:"mod_revision"`
	Version        int64           `json:"version"`
	Lease          *hexID          `json:"lease,omitempty"`
}

func toJSON(kv client.KV, keysOnly bool) keyJSON {
	out := keyJSON{
		Key: text(kv.Key), CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Version: kv.Version,
	}
	if !keysOnly {
		value := text(kv.Value)
		out.Value = &value
	}
	if kv.Lease != 0 {
		lease := hexID(kv.Lease)
		out.Lease = &lease
	}
	return out
}

// The colours that are used, as escape sequences of terminals.
const (
	bold  = "1"
	red   = "31"
	green = "32"
)

// paint wraps s in a colour, if colours are wanted at all.
func paint(wanted bool, color, s string) string {
	if !wanted {
		return s
	}
	return "\x1b[" + color + "m" + s + "\x1b[0m"
}

// colorOf says whether to write colours to w: only to a terminal, and only if
// nobody asked for none (https://no-color.org).
func colorOf(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
