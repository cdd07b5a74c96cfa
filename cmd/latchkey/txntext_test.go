package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadTxn(t *testing.T) {
	tests := []struct {
		name string
		text string
		want txnText
	}{
		{"nothing", "", txnText{}},
		{"three blocks", `mod("stock") = "12"
value("sale")!="over"

put stock "3 left"
del sale

get stock/ --prefix
`, txnText{
			compares: []txnCompare{
				{target: "mod", key: "stock", relation: "=", number: 12},
				{target: "value", key: "sale", relation: "!=", text: "over"},
			},
			success: []txnOperation{{"put", []string{"stock", "3 left"}}, {"del", []string{"sale"}}},
			failure: []txnOperation{{"get", []string{"stock/", "--prefix"}}},
		}},
		{"no compare", "\nput a b\n", txnText{success: []txnOperation{{"put", []string{"a", "b"}}}}},
		{"no success block, no last newline", "ver(\"a\") > \"0\"\n\n\nget a", txnText{
			compares: []txnCompare{{target: "version", key: "a", relation: ">", number: 0}},
			failure:  []txnOperation{{"get", []string{"a"}}},
		}},
		{"what follows the third block is left alone", "\n\n\nnot a transaction\n", txnText{}},
		{"all targets and their short forms", `val("k") = "v"
value("k") = v
version("k") < 7
create("k") > 7
c("k") = 7
m("k") = -1
lease("k") != 694d77aa9e38260f
`, txnText{compares: []txnCompare{
			{target: "value", key: "k", relation: "=", text: "v"},
			{target: "value", key: "k", relation: "=", text: "v"},
			{target: "version", key: "k", relation: "<", number: 7},
			{target: "create", key: "k", relation: ">", number: 7},
			{target: "create", key: "k", relation: "=", number: 7},
			{target: "mod", key: "k", relation: "=", number: -1},
			{target: "lease", key: "k", relation: "!=", number: 0x694d77aa9e38260f},
		}}},
		{"quotes", "value(`a\"b`) = \"x\\ty\"\n\nput 'a b' \"c\\\"d\"'e f'g \"\"\n", txnText{
			compares: []txnCompare{{target: "value", key: `a"b`, relation: "=", text: "x\ty"}},
			success:  []txnOperation{{"put", []string{"a b", `c"de fg`, ""}}},
		}},
		{"spaces everywhere", "  mod ( \"a\" )  =  \"1\"  \r\n \r\n\tdelete\ta \r\n", txnText{
			compares: []txnCompare{{target: "mod", key: "a", relation: "=", number: 1}},
			success:  []txnOperation{{"del", []string{"a"}}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readTxn(strings.NewReader(tt.text), func(string) {})
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func TestReadTxnErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no compare", "a = b\n", `line 1: "a = b": a compare looks like mod("key") > "0"; value, version, create, mod and lease can be compared`},
		{"unknown target", "size(\"a\") = 1\n", `line 1: "size(\"a\") = 1": a compare looks like mod("key") > "0"; value, version, create, mod and lease can be compared`},
		{"bare key", "mod(a) = 1\n", `line 1: "mod(a) = 1": the key is not in quotes: a compare looks like mod("key") > "0"`},
		{"open", "mod(\"a\" = 1\n", `line 1: "mod(\"a\" = 1": no ) behind the key: a compare looks like mod("key") > "0"`},
		{"no relation", "mod(\"a\") 1\n", `line 1: "mod(\"a\") 1": none of = != < > behind the key: a compare looks like mod("key") > "0"`},
		{"no operand", "mod(\"a\") =\n", `line 1: "mod(\"a\") =": not one value behind =: a compare looks like mod("key") > "0"`},
		{"two operands", "mod(\"a\") = 1 2\n", `line 1: "mod(\"a\") = 1 2": not one value behind =: a compare looks like mod("key") > "0"`},
		{"no number", "mod(\"a\") = x\n", `line 1: "mod(\"a\") = x": "x" is not a number`},
		{"unknown operation", "\n\nmove a b\n", `line 3: "move a b": an operation begins with get, put or del`},
		{"open quote", "\nput \"a b\n", `line 2: "put \"a b": a quote has no end, or a wrong escape`},
		{"open single quote", "\nput 'a\n", `line 2: "put 'a": a quote has no end`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readTxn(strings.NewReader(tt.text), func(string) {})
			require.EqualError(t, err, tt.want)
		})
	}
}

func TestReadTxnPromptsBeforeEachBlock(t *testing.T) {
	var prompts []string
	_, err := readTxn(strings.NewReader("mod(\"a\") = 1\n\n\n"), func(block string) { prompts = append(prompts, block) })
	require.NoError(t, err)
	require.Equal(t, []string{
		"compares:", "success requests (get, put, del):", "failure requests (get, put, del):",
	}, prompts)
}

// The flags and arguments of operations are those of the commands.
func TestParseTxnOperations(t *testing.T) {
	tests := []struct{ text, want string }{
		{"get a --prefix --limit 3", ""},
		{"get", "get takes 1 arguments, not 0"},
		{"get a --perfix", "get: unknown flag: --perfix"},
		{"put a", "put takes 2 arguments, not 1"},
		{"put a -- -1", ""},
		{"put a b --lease=12ab", ""},
		{"put a b --lease=zz", `put: "zz" is not the id of a lease, such as 694d77aa9e38260f`},
		{"del a --prefix", ""},
		{"del a b", "del takes 1 arguments, not 2"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := parseTxn(strings.NewReader("\n"+tt.text+"\n"), func(string) {})
			if tt.want != "" {
				require.EqualError(t, err, tt.want)
				return
			}
			require.NoError(t, err)
			require.Len(t, got.success, 1)
		})
	}
}

// FuzzReadTxn: any text is a transaction or an error of one line, and what it
// is does not depend on how the input is cut into reads.
func FuzzReadTxn(f *testing.F) {
	f.Add("mod(\"stock\") = \"12\"\n\nput stock \"3 left\"\n\nget stock/ --prefix\n")
	f.Add("lease(`k`) != 694d77aa9e38260f\nval(\"\\x00\")<''")
	f.Add("\n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := readTxn(strings.NewReader(text), func(string) {})
		again, errAgain := readTxn(&oneByte{text}, func(string) {})
		require.Equal(t, got, again)
		require.Equal(t, err, errAgain)
		if err != nil {
			require.NotContains(t, messageOf(err), "\n")
			return
		}
		for _, c := range got.compares {
			c.compile() // panics on what it does not know
		}
		for _, o := range append(got.success, got.failure...) {
			_, _ = o.compile() // likewise
		}
	})
}

// FuzzSplitWords: words that are quoted again are the same words.
func FuzzSplitWords(f *testing.F) {
	f.Add(`put 'a b' "c\"d"'e f'g ""`)
	f.Fuzz(func(t *testing.T, line string) {
		words, err := splitWords(line)
		if err != nil {
			return
		}
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, quote(w))
		}
		again, err := splitWords(strings.Join(quoted, " "))
		require.NoError(t, err)
		require.Equal(t, words, again)
	})
}
