package lint

import (
	"fmt"
	"slices"
	"strings"
)

// Exception lets one place be larger than its rule allows, up to Size.
type Exception struct {
	Kind Kind
	File string
	Name string // empty for a file
	Size int
	Why  string
}

// Exceptions only ever shrinks: an entry fails when nothing needs it, or when
// its Size is larger than what it excuses.
var Exceptions = []Exception{
	{WideAPI, "server/internal/disk/disk.go", "FS", 7, "seven is what a file system takes: four for files, three for folders"},
	{WideStruct, "server/config.go", "Config", 29, "one field for each setting of a member, which users read as one list"},
	{WideStruct, "server/internal/sim/counts.go", "Counts", 30, "one counter for each thing that can happen in a run"},
}

// applyExceptions drops the faults that are excused and adds one sentence for
// each exception that is stale. The result is sorted.
func applyExceptions(faults []Fault, exceptions []Exception) []string {
	used := make([]bool, len(exceptions))
	var out []string
	for _, f := range faults {
		i := slices.IndexFunc(exceptions, func(e Exception) bool {
			return e.Kind == f.Kind && e.File == f.File && e.Name == f.Name && e.Size >= f.Size && f.Size > 0
		})
		if i < 0 {
			out = append(out, f.String())
			continue
		}
		used[i] = true
		if exceptions[i].Size > f.Size {
			out = append(out, fmt.Sprintf("%s: lower the exception of the %s %s from %d to %d",
				f.File, f.Kind, f.Name, exceptions[i].Size, f.Size))
		}
	}
	for i, e := range exceptions {
		if !used[i] {
			out = append(out, fmt.Sprintf("%s: remove the exception of the %s %s: nothing needs it", e.File, e.Kind, e.Name))
		}
		if strings.TrimSpace(e.Why) == "" {
			out = append(out, fmt.Sprintf("%s: the exception of the %s %s gives no reason", e.File, e.Kind, e.Name))
		}
	}
	slices.Sort(out)
	return out
}
