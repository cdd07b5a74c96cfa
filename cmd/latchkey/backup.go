package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/server"
)

// backupName is the file that `latchkey backup` makes.
const backupName = "snapshot.db"

func newBackupCommand(a *app) *cobra.Command {
	var dataDir, backupDir string
	c := &cobra.Command{
		Use:   "backup --data-dir DIR --backup-dir DIR",
		Short: "save the data of a member that is stopped",
		Long: `Save the data of a member that is stopped as ` + backupName + ` in the backup folder: its checkpoint, and the log on top
of it. The data folder is only read. "latchkey snapshot restore" takes the file, and so does etcdutl. A member that runs
is asked for its data with "latchkey snapshot save".`,
		Example: `  latchkey backup --data-dir=/var/lib/latchkey --backup-dir=/backup/monday`,
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			if dataDir == "" || backupDir == "" {
				return usageErrorf("backup needs --data-dir and --backup-dir")
			}
			if err := os.MkdirAll(backupDir, 0o700); err != nil {
				return err
			}
			made, err := server.Backup(dataDir, filepath.Join(backupDir, backupName))
			if err != nil {
				return err
			}
			if made.Left > 0 {
				fmt.Fprintf(a.errOut, "latchkey: %d entries of the log were not known to be committed and are left out; the other members may have them\n", made.Left)
			}
			return a.print(savedAnswer(made.File, made.Snapshot))
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", "", "folder of the member")
	c.Flags().StringVar(&backupDir, "backup-dir", "", "folder for the copy; it is made if it does not exist")
	return a.addOutput(c)
}
