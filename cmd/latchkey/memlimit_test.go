package main

import (
	"math"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// TestContainerLimit reads the files of both versions of control groups.
func TestContainerLimit(t *testing.T) {
	const none = int64(math.MaxInt64)
	tests := map[string]struct {
		files map[string]string
		want  int64
	}{
		"no groups": {nil, none},
		"no bound":  {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, none},
		"version 2": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n"}, 256 << 20},
		"the one above has less": {map[string]string{
			"proc/self/cgroup":                       "0::/pod/container\n",
			"sys/fs/cgroup/pod/container/memory.max": "max\n",
			"sys/fs/cgroup/pod/memory.max":           "1048576\n",
			"sys/fs/cgroup/memory.max":               "2097152\n",
		}, 1 << 20},
		"a path of the host's": {map[string]string{"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/memory.max": "7\n"}, 7},
		"version 1": {map[string]string{
			"proc/self/cgroup": "12:pids:/a\n9:cpu,memory:/a\n1:name=systemd:/\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1000000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "9223372036854771712\n",
			"sys/fs/cgroup/pids/a/memory.max":              "5\n",
		}, 1000000},
		"nonsense": {map[string]string{"proc/self/cgroup": "0::/\nx\n", "sys/fs/cgroup/memory.max": "-1\n"}, none},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			files := make(fstest.MapFS)
			for path, text := range test.files {
				files[path] = &fstest.MapFile{Data: []byte(text)}
			}
			require.Equal(t, test.want, containerLimit(files))
		})
	}
}
