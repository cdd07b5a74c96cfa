package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tour's verdict is worth something only if it can be bad.
func TestJudge(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	good := func() (int, []entry, []tenure) {
		return 3, []entry{{"ann", 5, at(1)}, {"ann", 5, at(2)}, {"bob", 9, at(4)}},
			[]tenure{{"ann", 5, at(0), at(3), 2, true}, {"bob", 9, at(3), at(5), 1, true}}
	}
	tests := []struct {
		name   string
		change func(value *int, journal []entry, held []tenure)
		want   [3]int // faults of each check
	}{
		{"all is well", func(*int, []entry, []tenure) {}, [3]int{0, 0, 0}},
		{"a write is missing", func(value *int, _ []entry, _ []tenure) { *value = 2 }, [3]int{1, 0, 0}},
		{"a write that nobody was told of", func(_ *int, _ []entry, held []tenure) { held[0].writes = 1 }, [3]int{2, 0, 0}},
		{"a smaller token", func(_ *int, j []entry, _ []tenure) { j[2].token = 4 }, [3]int{0, 1, 0}},
		{"one token, two workers", func(_ *int, j []entry, _ []tenure) { j[1].worker = "bob" }, [3]int{0, 1, 0}},
		{"two holders at a time", func(_ *int, _ []entry, held []tenure) { held[1].from = at(2) }, [3]int{0, 0, 1}},
		{"two holders with one token", func(_ *int, _ []entry, held []tenure) { held[1].token = 5 }, [3]int{0, 0, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			value, journal, held := good()
			tt.change(&value, journal, held)
			var faults [3]int
			for i, c := range judge(value, journal, held) {
				faults[i] = len(c.faults)
			}
			require.Equal(t, tt.want, faults)
		})
	}
}

func TestJudgeWantsSomethingToJudge(t *testing.T) {
	require.NotEmpty(t, judge(0, nil, nil)[0].faults)
}
