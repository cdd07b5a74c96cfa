package client

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// add1 adds one to a decimal number.
func add1(tx *Tx) error {
	kv, err := tx.Get("n")
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	n, _ := strconv.Atoi(string(kv.Value))
	tx.Put("n", []byte(strconv.Itoa(n+1)))
	return nil
}

// onTxn makes the only member treat the nth commit, from now, in its own way.
func onTxn(fake *fakeCluster, n int, before, after error) {
	m := fake.members["a"]
	m.set(func(m *fakeMember) {
		m.drop = func(method string, _ int) (error, error) {
			if method != "Txn" {
				return nil, nil
			}
			if n--; n == 0 {
				return before, after
			}
			return nil, nil
		}
	})
}

var errLost = status.Error(codes.Unavailable, "connection lost")

// TestUpdateUncertain: a commit whose answer is lost is reported, and never sent again.
func TestUpdateUncertain(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		for i, executed := range []bool{true, false} {
			if executed {
				onTxn(fake, 1, nil, errLost)
			} else {
				onTxn(fake, 1, errLost, nil)
			}
			runs := 0
			err := c.Update(ctx, func(tx *Tx) error {
				runs++
				tx.AfterCommit(func(Revision) { t.Error("it is not known to have been committed") })
				return add1(tx)
			})
			require.ErrorIs(t, err, ErrUncertain)
			require.Equal(t, 1, runs)
			require.Equal(t, i+1, fake.total("Txn"))
			require.Equal(t, "1", fake.value("n"))
		}
	})
}

// TestExactlyOnce loses the commit, its answer, and then also what asks for its fate, in every combination.
func TestExactlyOnce(t *testing.T) {
	for _, c := range []struct {
		name     string
		lose     map[int]bool // the nth transaction -> whether it was executed
		runs     int
		requests int
	}{
		{"nothing lost", nil, 1, 1},
		{"answer lost", map[int]bool{1: true}, 1, 2},
		{"commit lost", map[int]bool{1: false}, 2, 3},
		{"commit lost, and the answer about it", map[int]bool{1: false, 2: true}, 2, 4},
		{"commit and question lost", map[int]bool{1: false, 2: false}, 2, 4},
		{"answer lost, and the answer about it", map[int]bool{1: true, 2: true}, 1, 3},
		{"answer lost, and the question", map[int]bool{1: true, 2: false}, 1, 3},
		{"answer lost twice", map[int]bool{1: false, 3: true}, 2, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, cl *Client) {
				_, err := cl.Session(ctx)
				require.NoError(t, err)
				fake.members["a"].set(func(m *fakeMember) {
					m.drop = func(method string, n int) (error, error) {
						executed, lose := c.lose[n]
						switch {
						case method != "Txn" || !lose:
							return nil, nil
						case executed:
							return nil, errLost
						}
						return errLost, nil
					}
				})
				runs, hooks := 0, 0
				var rev Revision
				err = cl.Update(ctx, func(tx *Tx) error {
					runs++
					tx.AfterCommit(func(r Revision) { rev = r; hooks++ })
					return add1(tx)
				}, ExactlyOnce())
				require.NoError(t, err)
				require.Equal(t, "1", fake.value("n"))
				require.Equal(t, c.runs, runs)
				require.Equal(t, 1, hooks)
				require.Equal(t, c.requests, fake.total("Txn"))
				kv, err := cl.GetOne(ctx, "n")
				require.NoError(t, err)
				require.Equal(t, kv.ModRevision, rev, "the revision is known even so")

				// The marker goes on being of use.
				require.NoError(t, cl.Update(ctx, add1, ExactlyOnce()))
				require.Equal(t, "2", fake.value("n"))
				require.Len(t, fake.store.at(1<<40, []byte(markerPrefix), []byte(prefixEnd(markerPrefix))), 1)
			})
		})
	}
}

// TestExactlyOnceKeepsOutLateCommits: a commit that comes to the server after its fate was decided is not executed.
func TestExactlyOnceKeepsOutLateCommits(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		_, err := c.Session(ctx)
		require.NoError(t, err)
		m := fake.members["a"]
		var late *pb.TxnRequest
		m.set(func(m *fakeMember) {
			m.onTxn = func(r *pb.TxnRequest) error {
				if late != nil {
					return nil
				}
				late = r
				return errLost
			}
		})
		require.NoError(t, c.Update(ctx, func(tx *Tx) error { tx.Put("n", []byte("1")); return nil }, ExactlyOnce()))
		fake.put("n", "2")
		resp, err := m.Txn(ctx, late)
		require.NoError(t, err)
		require.False(t, resp.Succeeded)
		require.Equal(t, "2", fake.value("n"))
	})
}

// TestExactlyOnceGivesUp when the answer can not be had any more.
func TestExactlyOnceGivesUp(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		s, err := c.Session(ctx)
		require.NoError(t, err)
		// Its marker is gone with the session.
		m := fake.members["a"]
		m.set(func(m *fakeMember) {
			m.drop = func(method string, n int) (error, error) {
				if method == "Txn" && n == 1 {
					fake.store.mu.Lock()
					fake.store.revoke(int64(s.ID()))
					fake.store.mu.Unlock()
					return errLost, nil
				}
				return nil, nil
			}
		})
		require.ErrorIs(t, c.Update(ctx, add1, ExactlyOnce()), ErrUncertain)
		<-s.Context().Done()
		require.NoError(t, c.Update(ctx, add1, ExactlyOnce()), "with the next session it works again")

		// Nobody answers until the end of the context.
		m.set(func(m *fakeMember) { m.drop = func(string, int) (error, error) { return nil, errLost } })
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		err = c.Update(short, func(tx *Tx) error { tx.Put("n", nil); return nil }, ExactlyOnce())
		require.ErrorIs(t, err, ErrUncertain)
		m.set(func(m *fakeMember) { m.drop = nil })
	})
}

// TestUpdateIsBounded: in the number of runs, and by the context between them.
func TestUpdateIsBounded(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		runs := 0
		unlucky := func(tx *Tx) error {
			runs++
			err := add1(tx)
			fake.put("n", "changed")
			return err
		}
		require.ErrorIs(t, c.Update(ctx, unlucky), ErrConflict)
		require.Equal(t, updateRunsMax, runs)
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		err := c.Update(ctx, unlucky)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, runs, 2*updateRunsMax)
	})
}

// TestUpdateReadsAreOneMoment, and a transaction that only reads sends nothing else.
func TestUpdateReadsAreOneMoment(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		fake.put("a", "1")
		fake.put("b", "1")
		var got string
		require.NoError(t, c.Update(ctx, func(tx *Tx) error {
			a, err := tx.Get("a")
			require.NoError(t, err)
			fake.put("a", "2")
			fake.put("b", "2")
			b, err := tx.Get("b")
			require.NoError(t, err)
			_, err = tx.Get("a")
			require.NoError(t, err)
			got = string(a.Value) + string(b.Value)
			return nil
		}))
		require.Equal(t, "11", got)
		require.Equal(t, 2, fake.total("Range"), "a key is read once")
		require.Zero(t, fake.total("Txn"))

		// When the moment is compacted away, the function runs again, whatever it says.
		runs := 0
		require.NoError(t, c.Update(ctx, func(tx *Tx) error {
			if _, err := tx.Get("a"); err != nil {
				return err
			}
			if runs++; runs == 1 {
				fake.compact(fake.put("c", ""))
				_, err := tx.Get("b")
				require.ErrorIs(t, err, ErrCompacted)
				return errors.New("can not go on")
			}
			_, err := tx.Get("b")
			return err
		}))
		require.Equal(t, 2, runs)
	})
}

func TestUpdateAfterItsEnd(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		var kept *Tx
		require.NoError(t, c.Update(ctx, func(tx *Tx) error { kept = tx; return nil }))
		_, err := kept.Get("a")
		require.ErrorContains(t, err, "ended")
	})
}

// TestUpdateLostSession: that the session of the markers has ended costs a run, not the update.
func TestUpdateLostSession(t *testing.T) {
	inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, c *Client) {
		require.NoError(t, c.Update(ctx, add1, ExactlyOnce()))
		s, err := c.Session(ctx)
		require.NoError(t, err)
		fake.members["a"].set(func(m *fakeMember) {
			m.onTxn = func(*pb.TxnRequest) error {
				m.set(func(m *fakeMember) { m.onTxn = nil })
				require.NoError(t, s.Close(ctx))
				return nil
			}
		})
		require.NoError(t, c.Update(ctx, add1, ExactlyOnce()))
		require.Equal(t, "2", fake.value("n"))
	})
}

// TestUpdateConflicts changes something between the reads and the commit: the function runs again exactly when that is
// something it has read, or that would have been in a list that it has read.
func TestUpdateConflicts(t *testing.T) {
	list := func(opts ...ListOption) func(tx *Tx) error {
		return func(tx *Tx) error { _, err := tx.List("l/", append(opts, Prefix())...); return err }
	}
	get := func(key string) func(tx *Tx) error {
		return func(tx *Tx) error { _, _ = tx.Get(key); return nil }
	}
	for _, c := range []struct {
		name        string
		read        func(tx *Tx) error
		put, delete string
		runs        int
	}{
		{"key changed", get("l/1"), "l/1", "", 2},
		{"key deleted", get("l/1"), "", "l/1", 2},
		{"key created", get("none"), "none", "", 2},
		{"another changed", get("l/1"), "l/2", "", 1},
		{"listed changed", list(), "l/2", "", 2},
		{"listed deleted", list(), "", "l/3", 2},
		{"added in between", list(), "l/21", "", 2},
		{"beside the list", list(), "l0", "", 1},
		{"last of a limited list deleted", list(Limit(2)), "", "l/2", 2},
		{"added into a limited list", list(Limit(2)), "l/11", "", 2},
		{"behind a limited list", list(Limit(2)), "l/3", "", 1},
		{"limit not reached", list(Limit(4)), "l/4", "", 2},
		{"key absent from a list created", func(tx *Tx) error { _ = list()(tx); return get("l/9")(tx) }, "l/9", "", 2},
	} {
		inBubble(t, 1, nil, func(ctx context.Context, fake *fakeCluster, cl *Client) {
			for _, key := range []string{"l/1", "l/2", "l/3"} {
				fake.put(key, "")
			}
			runs := 0
			require.NoError(t, cl.Update(ctx, func(tx *Tx) error {
				runs++
				err := c.read(tx)
				if runs == 1 && c.put != "" {
					fake.put(c.put, "changed")
				}
				if runs == 1 && c.delete != "" {
					_, err := cl.Delete(ctx, c.delete)
					require.NoError(t, err)
				}
				tx.Put("result", nil)
				return err
			}))
			require.Equal(t, c.runs, runs, c.name)
		})
	}
}
