package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/client"
)

func newRmCommand(a *app) *cobra.Command {
	var flags rmFlags
	c := &cobra.Command{
		Use:   "rm KEY",
		Short: "delete a key, or a directory of keys",
		Long: `Delete a key, and print the value that it had. One that does not exist is an error, unlike for del.

With --recursive the key and all keys of the directory KEY are deleted, that is all that begin with KEY/; it prints how
many there were. A directory is nothing but its keys, so it is gone with the last of them: --dir, which removed an empty
one in etcd v2, only makes sure that it is empty.`,
		Example: `  latchkey rm /testdir/testkey
  latchkey rm /testdir --recursive
  latchkey rm counter --with-value=7
  latchkey rm counter --with-index=42`,
		Args: exactly("KEY"),
		RunE: func(c *cobra.Command, args []string) error {
			flags.swap.read(c.Flags())
			if err := flags.check(args[0]); err != nil {
				return err
			}
			return a.withClient(func(cl *client.Client) error { return a.remove(c.Context(), cl, args[0], flags) })
		},
	}
	c.Flags().BoolVar(&flags.recursive, "recursive", false, "with all keys below it")
	c.Flags().BoolVar(&flags.dir, "dir", false, "fail if there are keys below it")
	flags.swap.bind(c.Flags(), "")
	return a.addGlobals(c)
}

// rmFlags are the flags of rm.
type rmFlags struct {
	recursive, dir bool
	swap           swapFlags
}

func (f rmFlags) check(key string) error {
	switch conditional := f.swap.ifValue || f.swap.ifIndex; {
	case key == "":
		return usageErrorf("KEY is empty: `latchkey del \"\" --prefix` deletes everything")
	case f.recursive && f.dir:
		return usageErrorf("--recursive and --dir contradict each other")
	case (f.recursive || f.dir) && conditional:
		return usageErrorf("--with-value and --with-index are about one key")
	}
	return nil
}

func (a *app) remove(ctx context.Context, cl *client.Client, key string, f rmFlags) error {
	switch {
	case f.recursive:
		return a.removeAll(ctx, cl, key)
	case f.dir:
		return a.removeDirectory(ctx, cl, key)
	}
	f.swap.mustExist = true
	res, err := cl.Txn().If(f.swap.compares(key)...).
		Then(client.OpDelete(key, client.PrevKV())).Else(client.OpGet(key)).Commit(ctx)
	switch {
	case err != nil:
		return err
	case !res.Succeeded:
		return fmt.Errorf("rm %q: %w", key, f.swap.explain(res.Results[0].Get.KVs))
	}
	return a.print(removeAnswer(res.Results[0].Delete))
}

// removeAll deletes the key and all below it at once.
func (a *app) removeAll(ctx context.Context, cl *client.Client, key string) error {
	ops := []client.Op{client.OpDelete(directory(key), client.Prefix())}
	if key != directory(key) {
		ops = append(ops, client.OpDelete(key))
	}
	res, err := cl.Txn().Then(ops...).Commit(ctx)
	if err != nil {
		return err
	}
	total := &client.DeleteResult{Revision: res.Revision}
	for _, r := range res.Results {
		total.Deleted += r.Delete.Deleted
	}
	if total.Deleted == 0 {
		return fmt.Errorf("rm %q: %w", key, client.ErrNotFound)
	}
	return a.print(deleteAnswer(total))
}

func (a *app) removeDirectory(ctx context.Context, cl *client.Client, key string) error {
	res, err := cl.Get(ctx, directory(key), client.Prefix(), client.CountOnly())
	if err != nil {
		return err
	}
	if res.Count > 0 {
		return fmt.Errorf("rm %q: the directory has %d keys: --recursive deletes them", key, res.Count)
	}
	return a.print(deleteAnswer(&client.DeleteResult{Revision: res.Revision}))
}

// removeAnswer prints what was deleted as etcd v2 did.
func removeAnswer(res *client.DeleteResult) answer {
	r := deleteAnswer(res)
	prev := res.Prev[0]
	r.simple = func(w *bytes.Buffer) { fmt.Fprintf(w, "PrevNode.Value: %s\n", prev.Value) }
	r.json = struct {
		Revision client.Revision `json:"revision"`
		Deleted  int64           `json:"deleted"`
		Prev     keyJSON         `json:"prev"`
	}{res.Revision, res.Deleted, toJSON(prev, false)}
	return r
}
