package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/latchkey-go/latchkey/server/internal/rpc"
	"github.com/latchkey-go/latchkey/server/internal/state"
)

func putOn(ctx context.Context, m *Server, key, value string) error {
	_, err := backend{m}.Propose(ctx, state.Command{
		Kind: state.KindPut, Request: &pb.PutRequest{Key: []byte(key), Value: []byte(value)},
	})
	return err
}

// plant makes a member's state differ from the others': it has applied a write
// that the log does not have.
func plant(m *Server) {
	m.store.with(func(machine *state.Machine) {
		index, term := machine.Applied()
		clone := state.NewLoader(state.Config{})
		d := machine.Dump()
		for _, v := range d.Versions {
			wrong := *v
			if v.Key == "rotten" {
				wrong.Value = []byte("what nobody wrote")
			}
			must(clone.Version(&wrong))
		}
		for _, member := range d.Members {
			must(clone.Member(member))
		}
		other, err := clone.Finish(index, term, d.Revision, d.Compact)
		must(err)
		*machine = *other
	})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func quickChecks(every time.Duration) func(int, *Config) {
	return func(_ int, cfg *Config) { cfg.Checks.every = every }
}

// One member's state differs: whether it leads or follows, the log names it, it
// ends with a message that says what to do, and the others go on.
func TestOneMemberDiffers(t *testing.T) {
	for _, leads := range []bool{false, true} {
		t.Run(fmt.Sprint("leads=", leads), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			members := threeMembers(t, quickChecks(50*time.Millisecond))
			bad := leaderOf(t, members)
			if !leads {
				bad = (bad + 1) % 3
			}
			good := members[(bad+1)%3]
			require.NoError(t, putOn(ctx, good, "rotten", "v"))
			awaitChecks(t, ctx, members, 2)
			require.Empty(t, good.alarms())
			for _, m := range members {
				require.NoError(t, m.confirm(ctx)) // so that what is planted is planted everywhere at one revision
			}

			plant(members[bad])
			require.NoError(t, putOn(ctx, good, "another", "v"))
			select {
			case <-members[bad].Done():
				require.ErrorIs(t, members[bad].Err(), ErrDiverged)
			case <-ctx.Done():
				t.Fatal("nobody noticed")
			}
			require.NoError(t, putOn(ctx, good, "later", "v"))
			require.NoError(t, good.confirm(ctx))
			require.Equal(t, []state.Alarm{{Type: pb.AlarmType_CORRUPT, Member: members[bad].ID(), Raised: true}}, good.alarms())
		})
	}
}

// awaitChecks waits until the leaders have completed n comparisons.
func awaitChecks(t *testing.T, ctx context.Context, members []*Server, n int64) {
	t.Helper()
	for i := 0; ; i++ {
		require.NoError(t, putOn(ctx, members[0], "beat", fmt.Sprint(i))) // an idle cluster is not compared
		done := int64(0)
		for _, m := range members {
			done += m.meters.care.checks.Load()
		}
		if done >= n {
			return
		}
		require.True(t, members[0].pauseUntil(ctx, 10*time.Millisecond), "no comparison was completed")
	}
}

// A member that lost a wrong state with its memory, and has the right one from
// the log, serves again, and the alarm about it is taken back.
func TestMemberIsRightAfterARestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	configs := make([]Config, 3)
	members := threeMembers(t, quickChecks(50*time.Millisecond), func(i int, cfg *Config) { configs[i] = *cfg })
	bad := (leaderOf(t, members) + 1) % 3
	good := members[(bad+1)%3]
	require.NoError(t, putOn(ctx, good, "rotten", "v"))
	require.NoError(t, members[bad].confirm(ctx))
	require.NoError(t, members[bad].keeper.saveNow(ctx)) // the checkpoint is right
	plant(members[bad])
	require.NoError(t, putOn(ctx, good, "another", "v"))
	<-members[bad].Done()
	require.ErrorIs(t, members[bad].Err(), ErrDiverged)

	m := startAgain(ctx, t, configs[bad])
	select {
	case <-m.Ready():
	case <-m.Done():
		t.Fatal(m.Err())
	}
	for i := 0; len(good.alarms()) > 0; i++ {
		require.NoError(t, putOn(ctx, good, "beat", fmt.Sprint(i)))
		require.True(t, good.pauseUntil(ctx, 10*time.Millisecond), "the alarm stays")
	}
	require.NoError(t, m.confirm(ctx))
	require.Equal(t, "v", string(m.store.view().Get("rotten").Value))
}

// Nobody can tell who of two is right: the alarm stops the cluster.
func TestNobodyKnowsWhoDiffers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	members := threeMembers(t, quickChecks(50*time.Millisecond))
	leader := leaderOf(t, members)
	require.NoError(t, putOn(ctx, members[leader], "rotten", "v"))
	bad, gone := members[(leader+1)%3], members[(leader+2)%3]
	require.NoError(t, bad.confirm(ctx))
	gone.Kill()
	plant(bad)
	var err error
	for i := 0; err == nil; i++ {
		err = putOn(ctx, members[leader], "beat", fmt.Sprint(i))
		members[leader].pauseUntil(ctx, 10*time.Millisecond)
	}
	require.ErrorIs(t, err, state.ErrCorrupt)
	require.Equal(t, []state.Alarm{{Type: pb.AlarmType_CORRUPT, Raised: true}}, members[leader].alarms())
}

// Memory that changes by itself is noticed.
func TestMemoryChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m, err := Start(ctx, Config{
		DataDir:          t.TempDir(),
		ListenClientURLs: []string{"http://127.0.0.1:0"}, ListenPeerURLs: []string{"http://127.0.0.1:0"},
		Checks: Checks{every: 20 * time.Millisecond},
	})
	require.NoError(t, err)
	defer m.Kill()
	<-m.Ready()
	for i := range 3 {
		require.NoError(t, putOn(ctx, m, fmt.Sprint("key", i), "value"))
	}
	m.store.with(func(machine *state.Machine) {
		v := machine.View()
		wrong := *v.Get("key1")
		wrong.Value = []byte("valve") // a bit; the machine's own copy is not written to, as readers may have it
		*v.Get("key1") = wrong
	})
	select {
	case <-m.Done():
		require.ErrorIs(t, m.Err(), state.ErrMemory)
	case <-ctx.Done():
		t.Fatal("nobody noticed")
	}
}

func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		votes   map[uint64]string
		members int
		right   string
		wrong   []uint64
	}{
		"all agree":             {map[uint64]string{1: "a", 2: "a", 3: "a"}, 3, "", nil},
		"one is alone":          {map[uint64]string{1: "a"}, 3, "", nil},
		"one of three":          {map[uint64]string{1: "a", 2: "b", 3: "a"}, 3, "a", []uint64{2}},
		"all differ":            {map[uint64]string{1: "a", 2: "b", 3: "c"}, 3, "", []uint64{0}},
		"one does not answer":   {map[uint64]string{1: "a", 2: "b"}, 3, "", []uint64{0}},
		"one of two":            {map[uint64]string{1: "a", 2: "b"}, 2, "", []uint64{0}},
		"three of five say so":  {map[uint64]string{1: "a", 2: "a", 3: "a", 4: "b"}, 5, "a", []uint64{4}},
		"two of five are fewer": {map[uint64]string{1: "a", 2: "a", 4: "b"}, 5, "", []uint64{0}},
	} {
		right, wrong := verdictOf(c.votes, c.members)
		require.Equal(t, c.right, right, name)
		require.Equal(t, c.wrong, wrong, name)
	}
}

// A checkpoint that differs is found by the comparison of hashes, at intervals
// and before a member serves.
func TestCheckpointDiffers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	configs := make([]Config, 3)
	members := threeMembers(t, func(i int, cfg *Config) {
		cfg.Checks.InitialCorrupt = true // all start together: nothing to find
		cfg.Checks.every = time.Hour     // or it may find first that memory differs from its checksum
		configs[i] = *cfg
	})
	bad := (leaderOf(t, members) + 1) % 3
	good := members[(bad+1)%3]
	require.NoError(t, putOn(ctx, good, "rotten", "v"))
	require.NoError(t, members[bad].confirm(ctx))
	members[bad].store.with(func(machine *state.Machine) { // before the checkpoint has it
		for _, v := range []*state.Version{machine.View().Get("rotten")} {
			v.Value[0] = 'w'
		}
	})
	require.NoError(t, members[bad].keeper.saveNow(ctx))
	members[leaderOf(t, members)].compareHashes(ctx)
	<-members[bad].Done()
	require.ErrorIs(t, members[bad].Err(), ErrDiverged)

	m := startAgain(ctx, t, configs[bad])
	select {
	case <-m.Done():
		require.ErrorIs(t, m.Err(), ErrDiverged)
	case <-m.Ready():
		t.Fatal("it serves")
	case <-ctx.Done():
		t.Fatal("it neither serves nor ends")
	}
	require.NoError(t, putOn(ctx, good, "later", "v"))
	require.NotErrorIs(t, putOn(ctx, good, "later", "v"), rpc.ErrNoSpace)
}

// startAgain starts a member that had sockets from its test, at its peer address.
func startAgain(ctx context.Context, t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.ListenClientURLs = []string{"http://127.0.0.1:0"}
	cfg.ListenPeerURLs = []string{"http://" + cfg.Sockets.Peer.Addr().String()}
	cfg.Sockets = Sockets{}
	m, err := Start(ctx, cfg)
	require.NoError(t, err)
	t.Cleanup(m.Kill)
	return m
}
