package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server"
)

func TestDoctor(t *testing.T) {
	sh, dataDir := stoppedMember(t)
	out := sh.must("", "doctor", dataDir)
	require.Contains(t, out, dataDir+": healthy\n")
	require.Equal(t, "healthy", jsonOf(t, sh.must("", "doctor", dataDir, "--output=json"))["condition"])
	code, out, errOut := sh.run("", "doctor", filepath.Join(dataDir, "none"))
	require.Equal(t, 10, code)
	require.Empty(t, errOut, "the code says it")
	require.Contains(t, out, "fresh")
	code, _, _ = sh.run("", "doctor")
	require.Equal(t, exitUsage, code)
}

func TestDoctorOutput(t *testing.T) {
	x := server.Examination{
		DataDir: "a.latchkey", Condition: server.DirDamaged, ClusterID: 3, MemberID: 0xabc, Members: 1, Revision: 42, CheckpointIndex: 7, LastIndex: 0,
		Findings: []server.Finding{
			{Severity: server.SeverityOK, Part: "lock", Text: "no process has the directory open"},
			{Severity: server.SeverityError, Part: "log", Text: "it is damaged", File: "a.latchkey/member/wal/1.wal", Offset: 512},
		},
		Advice: "Restore a snapshot.",
	}
	for _, output := range []string{"simple", "table", "json"} {
		var out bytes.Buffer
		a := &app{out: &out, output: output}
		require.NoError(t, a.print(doctorAnswer(x)))
		golden(t, filepath.Join("testdata", "doctor."+output+".txt"), out.Bytes())
	}
}
