package main

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/server"
)

// doctorCodes are the exit codes of `latchkey doctor`; a condition that is not
// here is an error.
var doctorCodes = map[server.Condition]int{
	server.DirHealthy: exitOK,
	server.DirFresh:   10,
	server.DirInUse:   11,
	server.DirEtcd:    12,
	server.DirForeign: 13,
	server.DirDamaged: 14,
}

func newDoctorCommand(a *app) *cobra.Command {
	return a.addOutput(&cobra.Command{
		Use:   "doctor DATA-DIR",
		Short: "explain what a data folder is, and what is wrong with it",
		Long: `Read all of a data folder, explain what it is and whether a member can start on it, and end with one sentence that
says what to do. Nothing is changed. The member must not be running.

Exit codes: 0 a member can start on it, 10 there is no member in it, 11 a process has it open, 12 it is etcd's, 13 it
holds something else, 14 it is damaged, 1 it could not be read.`,
		Example: `  latchkey doctor default.latchkey
  latchkey doctor /var/lib/latchkey --output=json`,
		Args: exactly("DATA-DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			x := server.Examine(args[0])
			if err := a.print(doctorAnswer(x)); err != nil {
				return err
			}
			code, ok := doctorCodes[x.Condition]
			switch {
			case !ok:
				return exitCode{code: exitError}
			case code != exitOK:
				return exitCode{code: code}
			}
			return nil
		},
	})
}

func doctorAnswer(x server.Examination) answer {
	type findingJSON struct {
		Severity server.Severity `json:"severity"`
		Part     string          `json:"part"`
		Text     string          `json:"text"`
		File     string          `json:"file,omitempty"`
		Offset   *int64          `json:"offset,omitempty"`
	}
	object := struct {
		DataDir         string           `json:"data_dir"`
		Condition       server.Condition `json:"condition"`
		Findings        []findingJSON    `json:"findings"`
		Advice          string           `json:"advice"`
		ClusterID       hexID            `json:"cluster_id"`
		MemberID        hexID            `json:"member_id"`
		Members         int              `json:"members"`
		Revision        int64            `json:"revision"`
		CheckpointIndex uint64           `json:"checkpoint_index"`
		LastIndex       uint64           `json:"last_index"`
	}{
		x.DataDir, x.Condition, []findingJSON{}, x.Advice, hexID(x.ClusterID), hexID(x.MemberID), x.Members, x.Revision,
		x.CheckpointIndex, x.LastIndex,
	}
	t := &table{header: []string{"SEVERITY", "PART", "FINDING", "FILE", "OFFSET"}}
	for _, f := range x.Findings {
		finding := findingJSON{Severity: f.Severity, Part: f.Part, Text: f.Text, File: f.File}
		offset := ""
		if f.File != "" {
			finding.Offset = &f.Offset
			offset = strconv.FormatInt(f.Offset, 10)
		}
		object.Findings = append(object.Findings, finding)
		t.add(string(f.Severity), f.Part, f.Text, f.File, offset)
	}
	return answer{json: object, table: t, simple: func(w *bytes.Buffer) {
		for _, f := range x.Findings {
			fmt.Fprintf(w, "%-8s %-11s %s\n", f.Severity, f.Part, f.Text)
		}
		fmt.Fprintf(w, "%s: %s\n%s\n", x.DataDir, x.Condition, x.Advice)
	}}
}
