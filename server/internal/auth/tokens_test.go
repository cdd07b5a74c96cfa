package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/latchkey-go/latchkey/server/internal/state"
)

// clock is a time that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// A simple token lives as long as it is used, and until the log says otherwise. The log never has what proves it.
func TestSimpleTokens(t *testing.T) {
	c := &clock{at: time.Now()}
	tokens, err := NewTokens(Config{Spec: "simple", TTL: time.Minute, now: c.now})
	require.NoError(t, err)
	require.True(t, tokens.Simple())
	give := func(user string) string {
		secret, name := tokens.Secret()
		require.Len(t, secret, tokenLetters)
		require.NotContains(t, name, secret)
		tokens.Follow([]state.AuthEvent{{User: user, Token: name + ".7"}})
		_, ok := tokens.Identify(name + ".7")
		require.False(t, ok, "what the log has is no token")
		return Join(secret, name+".7")
	}
	requireUser := func(token, user string) {
		t.Helper()
		id, ok := tokens.Identify(token)
		require.Equal(t, user != "", ok)
		require.Equal(t, Identity{User: user}, id)
	}
	a, b := give("u"), give("v")
	index, ok := Index(a)
	require.True(t, ok)
	require.EqualValues(t, 7, index)
	requireUser(a, "u")
	requireUser(b, "v")
	requireUser(strings.TrimSuffix(a, "7")+"8", "")
	c.at = c.at.Add(50 * time.Second)
	requireUser(a, "u")
	c.at = c.at.Add(50 * time.Second)
	requireUser(a, "u")
	requireUser(b, "")
	c.at = c.at.Add(61 * time.Second)
	requireUser(a, "")
	require.Empty(t, tokens.byKey)
	require.Zero(t, tokens.used.Len())

	a, b = give("u"), give("v")
	tokens.Follow([]state.AuthEvent{{User: "u"}})
	requireUser(a, "")
	requireUser(b, "v")
	tokens.Clear()
	requireUser(b, "")
	c.at = c.at.Add(time.Hour)
	give("w")
	c.at = c.at.Add(time.Hour)
	give("w")
	require.Len(t, tokens.byKey, 1, "those whose time is over are forgotten")

	requireUser(tokens.Local(), "root")
	requireUser(strings.Repeat("x", tokenBytesMax+1), "")
}

func TestTokensConfigured(t *testing.T) {
	dir := t.TempDir()
	private, public, other := ecKeys(t, dir, "a"), filepath.Join(dir, "a.pub"), filepath.Join(dir, "b.pub")
	ecKeys(t, dir, "b")
	for spec, want := range map[string]string{
		"":                           "neither",
		"nop":                        "neither",
		"jwt":                        "name=value",
		"jwt,sign-method=none":       "sign-method",
		"jwt,sign-method=XY":         "sign-method",
		"jwt,sign-method=ES256":      "priv-key",
		"jwt,sign-method=HS256":      "priv-key",
		"jwt,ttl=1m,ttl=1m":          "twice",
		"jwt,sign-method=ES256,ttl=": "priv-key",
		"jwt,sign-method=ES256,priv-key=" + private + ",ttl=soon":         "ttl",
		"jwt,sign-method=ES256,priv-key=" + private + ",pub-key=" + other: "not that of",
		"jwt,sign-method=RS256,priv-key=" + private:                       "RS256",
		"jwt,sign-method=ES384,priv-key=" + private:                       "ES384",
		"jwt,sign-method=ES256,priv-key=" + filepath.Join(dir, "none"):    "no such file",
	} {
		_, err := NewTokens(Config{Spec: spec})
		require.ErrorContains(t, err, want, spec)
	}
	verify, err := NewTokens(Config{Spec: "jwt,sign-method=ES256,pub-key=" + public})
	require.NoError(t, err)
	_, err = verify.Sign(Identity{User: "u", Revision: 1})
	require.ErrorIs(t, err, ErrVerifyOnly)
	sign, err := NewTokens(Config{Spec: "jwt,sign-method=ES256,priv-key=" + private + ",pub-key=" + public + ",ttl=1m"})
	require.NoError(t, err)
	token, err := sign.Sign(Identity{User: "u", Revision: 1})
	require.NoError(t, err)
	id, ok := verify.Identify(token)
	require.True(t, ok)
	require.Equal(t, Identity{User: "u", Revision: 1}, id)
}

// Each family of algorithms signs and checks; every way to fool the check is refused.
func TestSignedTokens(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(secret, []byte("a key that is shared"), 0o600))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	rsaFile := writeKeys(t, dir, "rsa", rsaKey)
	files := map[string]string{
		"HS256": secret, "RS256": rsaFile, "PS512": rsaFile, "ES256": ecKeys(t, dir, "ec"), "EdDSA": writeKeys(t, dir, "ed", edKey),
	}
	c := &clock{at: time.Now()}
	for method, file := range files {
		tokens, err := NewTokens(Config{Spec: "jwt,sign-method=" + method + ",ttl=1m,priv-key=" + file, now: c.now})
		require.NoError(t, err, method)
		token, err := tokens.Sign(Identity{User: "u", Revision: 42})
		require.NoError(t, err)
		id, ok := tokens.Identify(token)
		require.True(t, ok, method)
		require.Equal(t, Identity{User: "u", Revision: 42}, id)
		part := strings.Split(token, ".")
		for name, bad := range map[string]string{
			"no signature":      part[0] + "." + part[1] + ".",
			"another signature": part[0] + "." + part[1] + "." + base64.RawURLEncoding.EncodeToString([]byte("signature")),
			"another user":      part[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"username":"root","revision":42,"exp":99999999999}`)) + "." + part[2],
			"nothing":           "",
			"dots":              "..",
		} {
			_, ok := tokens.Identify(bad)
			require.False(t, ok, "%s: %s", method, name)
		}
	}

	key, err := os.ReadFile(secret)
	require.NoError(t, err)
	tokens, err := NewTokens(Config{Spec: "jwt,sign-method=HS256,ttl=1m,priv-key=" + secret, now: c.now})
	require.NoError(t, err)
	good := func() jwt.MapClaims {
		return jwt.MapClaims{"username": "u", "revision": 3, "exp": c.at.Add(time.Minute).Unix()}
	}
	signed := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		require.NoError(t, err)
		return token
	}
	_, ok := tokens.Identify(signed(jwt.SigningMethodHS256, key, good()))
	require.True(t, ok)
	refused := map[string]string{
		"none":           signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good()),
		"another method": signed(jwt.SigningMethodHS512, key, good()),
		"another key":    signed(jwt.SigningMethodHS256, []byte("other"), good()),
	}
	for field, values := range map[string][]any{
		"username": {nil, "", 5},
		"revision": {nil, 0, -1, 1.5, "3", 1e30},
		"exp":      {nil, c.at.Add(-time.Second).Unix(), "soon"},
	} {
		for _, v := range values {
			claims := good()
			if claims[field] = v; v == nil {
				delete(claims, field)
			}
			refused[field] = signed(jwt.SigningMethodHS256, key, claims)
			_, ok := tokens.Identify(refused[field])
			require.False(t, ok, "%s: %v", field, v)
		}
	}
	for name, token := range refused {
		_, ok := tokens.Identify(token)
		require.False(t, ok, name)
	}
	// The public key of an asymmetric method is no secret for a symmetric one.
	tokens, err = NewTokens(Config{Spec: "jwt,sign-method=RS256,priv-key=" + rsaFile, now: c.now})
	require.NoError(t, err)
	public, err := os.ReadFile(filepath.Join(dir, "rsa.pub"))
	require.NoError(t, err)
	_, ok = tokens.Identify(signed(jwt.SigningMethodHS256, public, good()))
	require.False(t, ok)
}

func ecKeys(t *testing.T, dir, name string) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return writeKeys(t, dir, name, key)
}

// writeKeys writes name.key and name.pub and returns the path of the first.
func writeKeys(t *testing.T, dir, name string, key crypto.Signer) string {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	for ext, block := range map[string]*pem.Block{
		".key": {Type: "PRIVATE KEY", Bytes: private}, ".pub": {Type: "PUBLIC KEY", Bytes: public},
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name+ext), pem.EncodeToMemory(block), 0o600))
	}
	return filepath.Join(dir, name+".key")
}
