package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

const txnLong = `Read a transaction from standard input and execute it in one step.

It has three blocks, each ended by an empty line or the end of the input: conditions, the operations for when all of
them hold, and those for when one does not. etcdctl reads the same. Conditions compare the value, version, create
(revision), mod (revision) or lease of a key by = != < or >. Operations are get, put and del with their flags. Words
with spaces stand in quotes, with the escapes of Go in double ones. Conditions that do not hold are no error: the first
line printed is SUCCESS or FAILURE.`

const txnExample = `  latchkey txn <<'END'
  mod("stock/apples") = "12"
  value("sale") != "over"

  put stock/apples "3"
  del sale

  get stock/ --prefix
  END
  latchkey txn --interactive`

func newTxnCommand(a *app) *cobra.Command {
	var interactive bool
	c := &cobra.Command{
		Use:     "txn",
		Short:   "execute a transaction",
		Long:    txnLong,
		Example: txnExample,
		Args:    exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			prompt := func(block string) {
				if interactive {
					fmt.Fprintln(a.errOut, block)
				}
			}
			request, err := parseTxn(a.in, prompt)
			if err != nil {
				return usageError{err}
			}
			return a.withClient(func(cl *client.Client) error {
				res, err := cl.Txn().If(request.compares...).
					Then(ops(request.success)...).Else(ops(request.failure)...).Commit(c.Context())
				if err != nil {
					return err
				}
				return a.print(request.answer(res))
			})
		},
	}
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "say what is expected next")
	return a.addGlobals(c)
}

// txnRequest is a transaction that can be executed, and how to print it.
type txnRequest struct {
	compares         []client.Compare
	success, failure []txnOp
}

type txnOp struct {
	op  client.Op
	get getFlags // how to print the answer of a get
}

func ops(list []txnOp) []client.Op {
	out := make([]client.Op, 0, len(list))
	for _, o := range list {
		out = append(out, o.op)
	}
	return out
}

// parseTxn reads a transaction; see txnText for how it is written.
func parseTxn(r io.Reader, prompt func(block string)) (*txnRequest, error) {
	text, err := readTxn(r, prompt)
	if err != nil {
		return nil, err
	}
	request := &txnRequest{}
	for _, c := range text.compares {
		request.compares = append(request.compares, c.compile())
	}
	for _, block := range []struct {
		from []txnOperation
		to   *[]txnOp
	}{{text.success, &request.success}, {text.failure, &request.failure}} {
		for _, o := range block.from {
			op, err := o.compile()
			if err != nil {
				return nil, err
			}
			*block.to = append(*block.to, op)
		}
	}
	return request, nil
}

func (c txnCompare) compile() client.Compare {
	switch c.target {
	case "value":
		return relate(client.Value(c.key), c.relation, []byte(c.text))
	case "version":
		return relate(client.Version(c.key), c.relation, c.number)
	case "create":
		return relate(client.CreateRevision(c.key), c.relation, client.Revision(c.number))
	case "mod":
		return relate(client.ModRevision(c.key), c.relation, client.Revision(c.number))
	case "lease":
		return relate(client.Lease(c.key), c.relation, client.LeaseID(c.number))
	}
	panic(fmt.Sprintf("compare of %q, which parseCompare does not make", c.target))
}

func relate[V any](f client.Field[V], relation string, v V) client.Compare {
	switch relation {
	case "=":
		return f.Equal(v)
	case "!=":
		return f.NotEqual(v)
	case "<":
		return f.Less(v)
	case ">":
		return f.Greater(v)
	}
	panic(fmt.Sprintf("relation %q, which parseCompare does not make", relation))
}

func (o txnOperation) compile() (txnOp, error) {
	switch o.name {
	case "get":
		var flags getFlags
		args, err := parseFlags("get", o.args, flags.bind, 1)
		if err != nil {
			return txnOp{}, err
		}
		options, err := flags.options()
		if err != nil {
			return txnOp{}, fmt.Errorf("get: %w", err)
		}
		return txnOp{client.OpGet(flags.key(args[0]), options...), flags}, nil
	case "put":
		var flags putFlags
		args, err := parseFlags("put", o.args, flags.bind, 2)
		if err != nil {
			return txnOp{}, err
		}
		options, err := flags.options()
		if err != nil {
			return txnOp{}, fmt.Errorf("put: %w", err)
		}
		return txnOp{op: client.OpPut(args[0], []byte(args[1]), options...)}, nil
	case "del":
		var flags delFlags
		args, err := parseFlags("del", o.args, flags.bind, 1)
		if err != nil {
			return txnOp{}, err
		}
		return txnOp{op: client.OpDelete(args[0], flags.options()...)}, nil
	}
	panic(fmt.Sprintf("operation %q, which parseOperation does not make", o.name))
}

// answer prints what the operations that were executed answered, in order.
func (t *txnRequest) answer(res *client.TxnResult) answer {
	done := t.failure
	if res.Succeeded {
		done = t.success
	}
	object := struct {
		Succeeded bool            `json:"succeeded"`
		Revision  client.Revision `json:"revision"`
		Results   []any           `json:"results"`
	}{res.Succeeded, res.Revision, []any{}}
	var answers []answer
	for i, r := range res.Results {
		switch {
		case r.Get != nil:
			answers = append(answers, getAnswer(r.Get, done[i].get))
		case r.Put != nil:
			answers = append(answers, putAnswer(r.Put))
		case r.Delete != nil:
			answers = append(answers, deleteAnswer(r.Delete))
		}
	}
	for _, one := range answers {
		object.Results = append(object.Results, one.json)
	}
	return answer{
		simple: func(w *bytes.Buffer) {
			if res.Succeeded {
				w.WriteString("SUCCESS\n")
			} else {
				w.WriteString("FAILURE\n")
			}
			for _, one := range answers {
				w.WriteByte('\n')
				one.simple(w)
			}
		},
		json: object,
	}
}
