package auth

import (
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

const (
	// TokenTTLDefault is how long a token lives by default: a simple one after its last use.
	TokenTTLDefault = 5 * time.Minute
	// tokenBytesMax bounds a token that is looked at.
	tokenBytesMax = 8 << 10
	// tokensMax bounds the simple tokens that a member remembers. Beyond, the one not used for longest is forgotten.
	tokensMax = 100_000
	// tokenLetters is the length of a token's random part: etcd's.
	tokenLetters = 16
	letters      = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// ErrVerifyOnly: tokens can be checked and not signed, since there is no private key.
var ErrVerifyOnly = errors.New("auth: token signing attempted with verify-only key")

// Identity is who a token belongs to.
type Identity struct {
	User string
	// Revision is that of users and roles when the token was signed; 0 for a token that is valid at any.
	Revision uint64
}

// Config configures Tokens. All of it is checked by NewTokens.
type Config struct {
	// Spec is "simple", or "jwt" with its options.
	Spec string
	// TTL is that of simple tokens; TokenTTLDefault if zero.
	TTL    time.Duration
	Logger *slog.Logger
	now    func() time.Time // nil for the real one
}

// Tokens makes tokens and tells whose they are. Simple tokens are assigned through the log: each member remembers them
// until they are not used for the TTL; their secret part is known to their owner only, the log and the members have its
// hash. It is safe for concurrent use.
type Tokens struct {
	ttl   time.Duration
	now   func() time.Time
	jwt   *signer // nil for simple tokens
	local string

	mu    sync.Mutex // protects what follows
	byKey map[string]*list.Element
	used  *list.List // of *held, the one used last at the back
}

// held is a simple token that was assigned.
type held struct {
	key, user string
	ends      time.Time
}

// NewTokens returns tokens as configured; the error says what to change.
func NewTokens(c Config) (*Tokens, error) {
	t := &Tokens{ttl: c.TTL, now: c.now, byKey: make(map[string]*list.Element), used: list.New(), local: "local." + rand.Text() + rand.Text()}
	if t.ttl == 0 {
		t.ttl = TokenTTLDefault
	}
	if t.now == nil {
		t.now = time.Now
	}
	kind, options, _ := strings.Cut(c.Spec, ",")
	switch kind {
	case "simple":
		return t, nil
	case "jwt":
		var err error
		t.jwt, err = newSigner(options, c.Logger)
		return t, err
	default:
		return nil, fmt.Errorf("auth-token %q is neither \"simple\" nor \"jwt,...\"", c.Spec)
	}
}

// Simple reports whether tokens are assigned through the log.
func (t *Tokens) Simple() bool { return t.jwt == nil }

// Local is a token of root for this process alone.
func (t *Tokens) Local() string { return t.local }

// Secret returns a new random part of a simple token, and its name in the log. After that name was assigned, the token
// is what Join makes of the secret and the answer.
func (t *Tokens) Secret() (secret, name string) {
	b := make([]byte, 0, tokenLetters)
	for len(b) < tokenLetters {
		var random [2 * tokenLetters]byte
		_, _ = rand.Read(random[:]) // never fails
		for _, r := range random {
			if int(r) < 256/len(letters)*len(letters) && len(b) < tokenLetters {
				b = append(b, letters[int(r)%len(letters)])
			}
		}
	}
	return string(b), nameOf(string(b))
}

func nameOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Join returns the token whose name was assigned.
func Join(secret, assigned string) string {
	_, index, _ := strings.Cut(assigned, ".")
	return secret + "." + index
}

// Index returns the index of the log at which a simple token was assigned. A member that has not applied that far does
// not know the token yet.
func Index(token string) (uint64, bool) {
	_, index, ok := strings.Cut(token, ".")
	n, err := strconv.ParseUint(index, 10, 64)
	return n, ok && err == nil && len(token) <= tokenBytesMax
}

// Sign returns a token for a user whose password was found right. It is for those that are not simple.
func (t *Tokens) Sign(id Identity) (string, error) { return t.jwt.sign(id, t.now()) }

// Identify returns whose token it is; ok is false for one that is not valid, or no longer.
func (t *Tokens) Identify(token string) (id Identity, ok bool) {
	if len(token) > tokenBytesMax {
		return id, false
	}
	if subtle.ConstantTimeCompare([]byte(token), []byte(t.local)) == 1 {
		return Identity{User: "root"}, true
	}
	if t.jwt != nil {
		return t.jwt.verify(token, t.now())
	}
	secret, index, ok := strings.Cut(token, ".")
	if !ok {
		return id, false
	}
	key := nameOf(secret) + "." + index
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.byKey[key]
	if e == nil {
		return id, false
	}
	h, now := e.Value.(*held), t.now()
	if now.After(h.ends) {
		t.forget(e)
		return id, false
	}
	h.ends = now.Add(t.ttl)
	t.used.MoveToBack(e)
	return Identity{User: h.user}, true
}

// Follow notes what the log says of tokens.
func (t *Tokens) Follow(events []state.AuthEvent) {
	if len(events) == 0 || t.jwt != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for _, e := range events {
		if e.Token == "" {
			t.end(e.User)
			continue
		}
		for front := t.used.Front(); front != nil && (t.used.Len() >= tokensMax || now.After(front.Value.(*held).ends)); front = t.used.Front() {
			t.forget(front)
		}
		if old := t.byKey[e.Token]; old != nil {
			t.forget(old)
		}
		t.byKey[e.Token] = t.used.PushBack(&held{key: e.Token, user: e.User, ends: now.Add(t.ttl)})
	}
}

// Clear forgets all simple tokens: what the log says of them was missed.
func (t *Tokens) Clear() { t.Follow([]state.AuthEvent{{}}) }

// end forgets the tokens of a user, of all users for "". The caller holds mu.
func (t *Tokens) end(user string) {
	for e := t.used.Front(); e != nil; {
		next := e.Next()
		if user == "" || e.Value.(*held).user == user {
			t.forget(e)
		}
		e = next
	}
}

func (t *Tokens) forget(e *list.Element) {
	delete(t.byKey, e.Value.(*held).key)
	t.used.Remove(e)
}
