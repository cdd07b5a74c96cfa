package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"
)

// version is that of the last entry in CHANGELOG.md.
const version = "0.1.0-dev"

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print the version",
		Example: "  latchkey version",
		Args:    exactly(),
		RunE:    func(*cobra.Command, []string) error { return printVersion(a.out) },
	}
}

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintf(w, "latchkey %s\n%s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
