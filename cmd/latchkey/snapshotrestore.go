package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/latchkey-go/latchkey/server"
)

const restoreLong = `Make the data directory of a member of a new cluster from a snapshot, of latchkey or of etcd 3.6 or 3.7. On each machine
of the new cluster do it once, from the same snapshot, with the --name and --initial-advertise-peer-urls of the member
and the same --initial-cluster; then start the members as usual.

Keys keep their values, versions, revisions and leases, and users and roles stay. The cluster and its members get new
ids. Revisions jump by --bump-revision and everything below counts as compacted, so that no fencing token and no watcher
goes backwards, whatever was written after the snapshot. --bump-revision=0 goes on exactly where the snapshot ends.`

func newSnapshotRestoreCommand(a *app) *cobra.Command {
	var r server.RestoreConfig
	var bump uint64
	var compacted bool
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "make the data directory of a new member from a snapshot",
		Long:  restoreLong,
		Example: `  latchkey snapshot restore backup.db --data-dir=new
  latchkey snapshot restore backup.db --name=a --data-dir=a.latchkey \
    --initial-advertise-peer-urls=http://10.0.0.1:2380 \
    --initial-cluster=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			r.Snapshot = args[0]
			if err := setBump(&r, bump, c.Flags().Changed("mark-compacted"), compacted); err != nil {
				return err
			}
			made, err := server.Restore(r)
			if err != nil {
				return err
			}
			if made.Detached > 0 {
				fmt.Fprintf(a.errOut, "latchkey: %d keys named leases that do not exist; they are kept without a lease\n", made.Detached)
			}
			return a.print(restoredAnswer(made))
		},
	}
	f := c.Flags()
	f.StringVar(&r.Name, "name", "", `name of the member (default "default")`)
	f.StringVar(&r.DataDir, "data-dir", "", "folder to make; it must not exist or be empty (default NAME.latchkey)")
	f.StringVar(&r.InitialCluster, "initial-cluster", "", "all members of the new cluster, NAME=URL,... (default this one alone)")
	f.StringVar(&r.InitialClusterToken, "initial-cluster-token", "", `keeps clusters with the same URLs apart (default "latchkey-cluster")`)
	f.StringSliceVar(&r.AdvertisePeerURLs, "initial-advertise-peer-urls", nil, "where the other members connect to this one (default http://127.0.0.1:2380)")
	f.Uint64Var(&bump, "bump-revision", server.DefaultBumpRevision, "how far to move the revision on; 0 leaves it")
	f.BoolVar(&compacted, "mark-compacted", true, "count everything up to the new revision as compacted; goes with --bump-revision")
	f.BoolVar(&r.SkipHashCheck, "skip-hash-check", false, "take a file without a hash, such as a copy of member/snap/db")
	return a.addOutput(c)
}

// setBump has etcdutl's rule: a bump without the mark, or the mark without a
// bump, is a mistake.
func setBump(r *server.RestoreConfig, bump uint64, said, compacted bool) error {
	switch {
	case said && compacted != (bump > 0):
		return usageErrorf("--mark-compacted=%t with --bump-revision=%d: one goes with the other", compacted, bump)
	case bump > bumpMax:
		return usageErrorf("--bump-revision %d is above %d", bump, uint64(bumpMax))
	case bump == 0:
		r.BumpRevision = -1
	default:
		r.BumpRevision = int64(bump)
	}
	return nil
}

// bumpMax leaves room for as many revisions again.
const bumpMax = 1 << 61

func restoredAnswer(r server.Restored) answer {
	object := struct {
		DataDir   string `json:"data_dir"`
		Name      string `json:"name"`
		ClusterID hexID  `json:"cluster_id"`
		MemberID  hexID  `json:"member_id"`
		Members   int    `json:"members"`
		Keys      int    `json:"keys"`
		Leases    int    `json:"leases"`
		Revision  int64  `json:"revision"`
		Compact   int64  `json:"compact_revision"`
		Detached  int    `json:"detached_keys"`
	}{
		r.DataDir, r.Name, hexID(r.ClusterID), hexID(r.MemberID), r.Members, r.Snapshot.Keys, r.Snapshot.Leases,
		r.Revision, r.CompactRevision, r.Detached,
	}
	return answer{json: object, simple: lines(
		"Restored %d keys and %d leases in %s\nMember %s (%s) of the new cluster %s of %d; revisions go on from %d\n"+
			"Start it with: latchkey server --name=%s --data-dir=%s",
		r.Snapshot.Keys, r.Snapshot.Leases, r.DataDir, hexID(r.MemberID), r.Name, hexID(r.ClusterID), r.Members, r.Revision,
		r.Name, r.DataDir)}
}

// lines is a simple form that is text.
func lines(format string, args ...any) func(w *bytes.Buffer) {
	return func(w *bytes.Buffer) { fmt.Fprintf(w, format+"\n", args...) }
}
