package interop_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/latchkey-go/latchkey/interop/harness"
)

// mainFlags are those that etcd's program adds to the ones of its embedded
// server, and two that only its help still has.
var mainFlags = []string{
	"config-file value", "discovery value", "discovery-fallback value", "discovery-proxy value",
	"initial-cluster-state value", "v2-deprecation value", "version switch",
}

// The list that the server's flags are tested against is etcd's: each line has
// a name, and whether it may stand without a value.
func TestListOfEtcdsFlags(t *testing.T) {
	dir, err := harness.ModuleDir()
	require.NoError(t, err)
	want, err := os.ReadFile(filepath.Join(dir, "..", "cmd", "latchkey", "testdata", "etcd-flags.txt"))
	require.NoError(t, err)

	flags := flag.NewFlagSet("etcd", flag.ContinueOnError)
	embed.NewConfig().AddFlags(flags)
	lines := slices.Clone(mainFlags)
	flags.VisitAll(func(f *flag.Flag) {
		kind := "value"
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); ok && b.IsBoolFlag() {
			kind = "switch"
		}
		lines = append(lines, fmt.Sprintf("%s %s", f.Name, kind))
	})
	slices.Sort(lines)
	require.Equal(t, string(want), strings.Join(lines, "\n")+"\n")
}
