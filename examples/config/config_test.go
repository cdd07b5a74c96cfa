package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The whole demonstration, as `go run ./examples/config` shows it.
func TestConfig(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), out.String())
	for _, line := range []string{"changed 49 times", "damages", "is mended", "is killed", "is compacted", "each of them whole"} {
		require.Contains(t, out.String(), line)
	}
	t.Log("\n" + out.String())
}

// Whoever interrupts it gets an error, and nothing is left behind.
func TestConfigEndsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, run(ctx, &bytes.Buffer{}), context.Canceled)
}

// The check can fail: a file that is half written, or of two versions, is found.
func TestReaderFindsDamage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shop.conf")
	whole := "# revision 7\n\n[database]\nversion = 1\n\n[web]\nversion = 1\n\n# end\n"
	for content, wrong := range map[string]string{
		whole: "",
		"# revision 7\n\n[database]\nversion = 1\n":                                "not whole",
		"# revision 7\n\n[database]\nversion = 1\n\n[web]\nversion = 2\n\n# end\n": "mixes versions",
		"# revision 7\n\n[web]\nversion = 2\n\n# end\n":                            "mixes versions",
	} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		_, err := readVersion(file)
		if wrong == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, wrong)
	}
}
