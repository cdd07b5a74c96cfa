package membership

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/internal/presence"
	"github.com/latchkey-go/latchkey/recipes/internal/view"
)

// Conditions to test for with errors.Is.
var (
	// ErrDuplicateID: another member has the id.
	ErrDuplicateID = errors.New("id belongs to another member")
	// ErrLeft is the cause of a member's context after Leave.
	ErrLeft = errors.New("member has left")
	// ErrName: the name can not be one of a group, a member or an item. See "Keys"
	// in the package's documentation.
	ErrName = errors.New("name can not be used")
)

// Option is an option of Join.
type Option func(*options)

type options struct {
	session *client.Session
	wait    bool
}

// WithSession binds the membership, and the shares of its Partitioner, to a session
// instead of the client's own one, and its next one after a loss. It must belong to
// the same cluster.
func WithSession(s *client.Session) Option { return func(o *options) { o.session = s } }

// WithWait makes Join wait while another member has the id: for programs that are
// restarted, and whose former membership may live on for as long as its lease.
func WithWait() Option { return func(o *options) { o.wait = true } }

// record is the value of a member's key.
type record struct {
	Meta   json.RawMessage `json:"meta"`
	Shares bool            `json:"shares,omitempty"`
	By     string          `json:"by"`
}

// Member is our membership in a group, until Leave. It is safe for concurrent use.
type Member[M any] struct {
	client    *client.Client
	group, id string
	by        string // the incarnation
	session   *client.Session
	key       *presence.Presence
	ctx       context.Context // that of key, with the causes of this package
	end       context.CancelCauseFunc
	stop      func() bool
}

// Join makes this process a member of the group, and keeps it one until Leave. ctx
// bounds the joining only; a Join that gives up leaves nothing behind.
//
// Errors: [ErrDuplicateID], [ErrName], those of ctx, and those of a write that
// trying again does not cure.
func Join[M any](ctx context.Context, c *client.Client, group, id string, meta M, opts ...Option) (*Member[M], error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if err := errors.Join(checkGroup(group), checkPart(id)); err != nil {
		return nil, err
	}
	m := &Member[M]{client: c, group: group, id: id, by: rand.Text(), session: o.session}
	value, err := m.encode(record{By: m.by}, &meta)
	if err != nil {
		return nil, err
	}
	m.key, err = presence.Keep(ctx, presence.Config{
		Client: c, Session: o.session, Key: m.Key(), Mine: m.isMine, Wait: o.wait,
	}, value)
	if err != nil {
		return nil, fmt.Errorf("join: %w", m.translate(err))
	}
	m.ctx, m.end = context.WithCancelCause(context.Background())
	m.stop = context.AfterFunc(m.key.Context(), func() { m.end(m.translate(context.Cause(m.key.Context()))) })
	return m, nil
}

func (m *Member[M]) isMine(value []byte) bool {
	var r record
	return json.Unmarshal(value, &r) == nil && r.By == m.by
}

// encode makes the value of a record, with another meta if that is not nil.
func (m *Member[M]) encode(r record, meta *M) ([]byte, error) {
	if meta != nil {
		var err error
		if r.Meta, err = json.Marshal(*meta); err != nil {
			return nil, fmt.Errorf("member %s: encode the metadata: %w", m.Key(), err)
		}
	}
	return json.Marshal(r)
}

func (m *Member[M]) translate(err error) error {
	switch {
	case errors.Is(err, presence.ErrTaken):
		return fmt.Errorf("member %s: %w: %w", m.Key(), ErrDuplicateID, err)
	case errors.Is(err, presence.ErrRemoved):
		return ErrLeft
	}
	return err
}

// ID returns the member's id.
func (m *Member[M]) ID() string { return m.id }

// Group returns the name of the group.
func (m *Member[M]) Group() string { return m.group }

// Key returns the member's key, without the client's namespace.
func (m *Member[M]) Key() string { return prefix(m.group) + m.id }

// Present says whether the others could see us when we last looked: not while the
// session is lost, and not after Leave. It is a cheap, local call.
func (m *Member[M]) Present() bool { return m.key.Live() }

// Context returns a context that lives as long as the membership. The loss of a
// session or of the key does not end it, as they are healed. Its cause is [ErrLeft]
// after Leave, [ErrDuplicateID] when another member has the id now, and the error of
// a session that was given or of the client when that ended.
func (m *Member[M]) Context() context.Context { return m.ctx }

// Update changes what we tell the others, and returns when that is in the store. If
// ctx ends first, the change may be made all the same: client.ErrUncertain.
func (m *Member[M]) Update(ctx context.Context, meta M) error {
	return m.change(ctx, func(r record) ([]byte, error) { return m.encode(r, &meta) })
}

func (m *Member[M]) change(ctx context.Context, f func(record) ([]byte, error)) error {
	err := m.key.Change(ctx, func(value []byte) ([]byte, error) {
		var r record
		if err := json.Unmarshal(value, &r); err != nil {
			return nil, fmt.Errorf("member %s: %w", m.Key(), err)
		}
		return f(r)
	})
	return m.translate(err)
}

// Leave ends the membership and returns when the key is known to be gone; if ctx
// ends first, with client.ErrUncertain, and the deletion goes on in the background
// until the session ends. Further calls wait for the same.
func (m *Member[M]) Leave(ctx context.Context) error {
	err := m.key.Remove(ctx)
	m.stop()
	m.end(m.translate(context.Cause(m.key.Context())))
	return err
}

// Peer is a member as others see it.
type Peer[M any] struct {
	ID   string
	Meta M
	// Shares says that it takes part in a Partitioner.
	Shares bool
}

// View is a group at one revision, and what has changed since the view before.
type View[M any] struct {
	Group    string
	Revision client.Revision
	Members  []Peer[M] // in the order of their ids

	Joined  []Peer[M] // new; in the first view, all
	Changed []Peer[M] // as they are now
	Left    []Peer[M] // as they were last
	Invalid []string  // keys whose values can not be read
	// Resynced says that history was compacted away before it was seen: who came
	// and went in between is missing.
	Resynced bool
}

// Members yields the group as it is, and then a view after each change, never of
// an older revision than the one before. It goes on over lost connections, members
// of the cluster and history. The loop ends with an error, when ctx is done or when
// trying again does not help, or by a break.
func Members[M any](ctx context.Context, c *client.Client, group string) iter.Seq2[View[M], error] {
	return func(yield func(View[M], error) bool) {
		if err := checkGroup(group); err != nil {
			yield(View[M]{}, err)
			return
		}
		known, first := make(map[string]known[M]), true
		for v, err := range view.Follow(ctx, c, prefix(group), nil) {
			if err != nil {
				yield(View[M]{}, err)
				return
			}
			next, changed := compare(group, v, known)
			if (changed || first) && !yield(next, nil) {
				return
			}
			first = false
		}
	}
}

// known is a member as it was in the view before.
type known[M any] struct {
	value []byte
	peer  Peer[M]
}

// compare makes a View of a view, and keeps it in was for the next.
func compare[M any](group string, v view.View, was map[string]known[M]) (out View[M], changed bool) {
	out = View[M]{Group: group, Revision: v.Revision, Resynced: v.Resynced}
	for _, kv := range v.KVs {
		if checkPart(kv.Key) != nil {
			continue // of a group whose name is longer
		}
		old, existed := was[kv.Key]
		if !existed || !bytes.Equal(old.value, kv.Value) {
			peer, err := decode[M](kv)
			if err != nil {
				out.Invalid = append(out.Invalid, prefix(group)+kv.Key)
				continue
			}
			if existed {
				out.Changed = append(out.Changed, peer)
			} else {
				out.Joined = append(out.Joined, peer)
			}
			old = known[M]{kv.Value, peer}
			was[kv.Key] = old
		}
		out.Members = append(out.Members, old.peer)
	}
	for _, kv := range v.Gone {
		if old, existed := was[kv.Key]; existed {
			out.Left = append(out.Left, old.peer)
			delete(was, kv.Key)
		}
	}
	return out, v.Resynced || len(out.Joined)+len(out.Changed)+len(out.Left)+len(out.Invalid) > 0
}

func decode[M any](kv client.KV) (Peer[M], error) {
	var r record
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return Peer[M]{}, err
	}
	p := Peer[M]{ID: kv.Key, Shares: r.Shares}
	if len(r.Meta) == 0 {
		return p, nil
	}
	return p, json.Unmarshal(r.Meta, &p.Meta)
}

// prefix is what the keys of a group's members begin with.
func prefix(group string) string { return group + "/" }

func checkGroup(group string) error {
	if group == "" || strings.HasSuffix(group, "/") || strings.Contains(group, "//") {
		return fmt.Errorf("group %q: %w", group, ErrName)
	}
	return nil
}

// checkPart says whether a member or an item can have the name.
func checkPart(name string) error {
	if name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("name %q: %w", name, ErrName)
	}
	return nil
}
