package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is that of the last entry in CHANGELOG.md.
const version = "0.1.0-dev"

// etcdVersion is the release of etcd whose API and flags these are; the members
// report it as well.
const etcdVersion = "3.7.3"

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print the version",
		Example: "  latchkey version",
		Args:    exactly(),
		RunE:    func(*cobra.Command, []string) error { return printVersion(a.out) },
	}
}

// printVersion is for people.
func printVersion(w io.Writer) error {
	_, err := fmt.Fprintf(w, "latchkey %s, with the API of etcd %s\n%s %s/%s\n",
		version, etcdVersion, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// printVersions is for --version, which programs that run etcd ask for: they
// read its lines, and ours comes behind them.
func printVersions(w io.Writer) error {
	_, err := fmt.Fprintf(w, "etcd Version: %s\nGit SHA: %s\nGo Version: %s\nGo OS/Arch: %s/%s\nLatchkey Version: %s\n",
		etcdVersion, revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH, version)
	return err
}

// revision is the commit that the program was built from, if the build knew.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 9 {
				return s.Value[:9]
			}
		}
	}
	return "unknown"
}
