package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A transaction as text has three blocks, each ended by an empty line or by
// the end of the input; etcdctl reads the same:
//
//	mod("stock/apples") = "12"
//	value("sale") != "over"
//
//	put stock/apples "3"
//	del sale
//
//	get stock/ --prefix
//
// The first block has the compares, the second the operations for when all of
// them hold, the third those for when one does not.
type txnText struct {
	compares         []txnCompare
	success, failure []txnOperation
}

// txnCompare is one line of the first block: target("key") relation "operand".
type txnCompare struct {
	target   string // one of txnTargets' values
	key      string
	relation string // one of txnRelations
	text     string // the operand of a compare of values
	number   int64  // the operand of any other
}

// txnOperation is one line of the other blocks, split into words.
type txnOperation struct {
	name string   // "get", "put" or "del"
	args []string // with flags, as after `latchkey get`
}

// txnTargets maps what may be compared, and its short forms, to its name.
var txnTargets = map[string]string{
	"value": "value", "val": "value",
	"version": "version", "ver": "version",
	"create": "create", "c": "create",
	"mod": "mod", "m": "mod",
	"lease": "lease",
}

// txnRelations are sorted so that none comes before one that it begins.
var txnRelations = []string{"!=", "=", "<", ">"}

// txnNames maps the operations, and other names of theirs, to their name.
var txnNames = map[string]string{"get": "get", "put": "put", "del": "del", "delete": "del"}

// txnLinesMax bounds one block, far above what any server takes.
const txnLinesMax = 65536

// readTxn reads a transaction. It calls prompt before each block, for somebody
// who types it. An error names the line that it is about.
func readTxn(r io.Reader, prompt func(block string)) (txnText, error) {
	var (
		t     txnText
		lines = bufio.NewScanner(r)
		count int
	)
	lines.Buffer(nil, 64<<20)
	block := func(title string, parse func(line string) error) error {
		prompt(title)
		for read := 0; lines.Scan(); read++ {
			count++
			line := strings.TrimSpace(lines.Text())
			if line == "" {
				return nil
			}
			if read == txnLinesMax {
				return fmt.Errorf("line %d: more than %d lines in one block", count, txnLinesMax)
			}
			if err := parse(line); err != nil {
				return fmt.Errorf("line %d: %w", count, err)
			}
		}
		return lines.Err()
	}
	err := block("compares:", func(line string) error {
		c, err := parseCompare(line)
		t.compares = append(t.compares, c)
		return err
	})
	if err != nil {
		return txnText{}, err
	}
	operations := func(list *[]txnOperation) func(string) error {
		return func(line string) error {
			o, err := parseOperation(line)
			*list = append(*list, o)
			return err
		}
	}
	if err := block("success requests (get, put, del):", operations(&t.success)); err != nil {
		return txnText{}, err
	}
	if err := block("failure requests (get, put, del):", operations(&t.failure)); err != nil {
		return txnText{}, err
	}
	return t, nil
}

const compareForm = `a compare looks like mod("key") > "0"`

func parseCompare(line string) (txnCompare, error) {
	word, rest, ok := strings.Cut(line, "(")
	target, known := txnTargets[strings.TrimSpace(word)]
	if !ok || !known {
		return txnCompare{}, fmt.Errorf("%q: %s; value, version, create, mod and lease can be compared", line, compareForm)
	}
	quoted, err := strconv.QuotedPrefix(strings.TrimSpace(rest))
	if err != nil {
		return txnCompare{}, fmt.Errorf("%q: the key is not in quotes: %s", line, compareForm)
	}
	c := txnCompare{target: target}
	if c.key, err = strconv.Unquote(quoted); err != nil {
		return txnCompare{}, fmt.Errorf("%q: the key is not in quotes: %s", line, compareForm)
	}
	rest = strings.TrimSpace(rest)[len(quoted):]
	rest, ok = strings.CutPrefix(strings.TrimSpace(rest), ")")
	if !ok {
		return txnCompare{}, fmt.Errorf("%q: no ) behind the key: %s", line, compareForm)
	}
	rest = strings.TrimSpace(rest)
	i := slices.IndexFunc(txnRelations, func(r string) bool { return strings.HasPrefix(rest, r) })
	if i < 0 {
		return txnCompare{}, fmt.Errorf("%q: none of = != < > behind the key: %s", line, compareForm)
	}
	c.relation = txnRelations[i]
	words, err := splitWords(rest[len(c.relation):])
	if err != nil || len(words) != 1 {
		return txnCompare{}, fmt.Errorf("%q: not one value behind %s: %s", line, c.relation, compareForm)
	}
	if target == "value" {
		c.text = words[0]
		return c, nil
	}
	base := 10
	if target == "lease" {
		base = 16 // as all commands print and take it
	}
	if c.number, err = strconv.ParseInt(words[0], base, 64); err != nil {
		return txnCompare{}, fmt.Errorf("%q: %q is not a number", line, words[0])
	}
	return c, nil
}

func parseOperation(line string) (txnOperation, error) {
	words, err := splitWords(line)
	if err != nil {
		return txnOperation{}, fmt.Errorf("%q: %w", line, err)
	}
	name, ok := txnNames[words[0]]
	if !ok {
		return txnOperation{}, fmt.Errorf("%q: an operation begins with get, put or del", line)
	}
	return txnOperation{name: name, args: words[1:]}, nil
}

// splitWords splits a line at its spaces. A word, or a part of it, can stand
// in double quotes, with Go's escapes, or in single quotes, as it is.
func splitWords(line string) ([]string, error) {
	var (
		words  []string
		word   strings.Builder
		inWord bool
	)
	for line != "" {
		switch c := line[0]; c {
		case ' ', '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
			line = line[1:]
		case '"', '\'':
			text, rest, err := cutQuoted(line)
			if err != nil {
				return nil, err
			}
			word.WriteString(text)
			inWord, line = true, rest
		default:
			word.WriteByte(c)
			inWord, line = true, line[1:]
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// cutQuoted reads the quoted text that line begins with.
func cutQuoted(line string) (text, rest string, err error) {
	if line[0] == '\'' {
		text, rest, ok := strings.Cut(line[1:], "'")
		if !ok {
			return "", "", errors.New("a quote has no end")
		}
		return text, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return "", "", errors.New("a quote has no end, or a wrong escape")
	}
	if text, err = strconv.Unquote(quoted); err != nil {
		return "", "", errors.New("a quote has a wrong escape")
	}
	return text, line[len(quoted):], nil
}
