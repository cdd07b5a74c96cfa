package auth

import (
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signer makes and checks JSON web tokens, with one algorithm and one key.
type signer struct {
	method jwt.SigningMethod
	sealed any // the key to sign with; nil if there is none
	open   any // the key to check with
	ttl    time.Duration
	parser *jwt.Parser
}

// claims is what a token says. All of it is required.
type claims struct {
	Username *string  `json:"username"`
	Revision *float64 `json:"revision"`
	jwt.RegisteredClaims
}

// newSigner reads etcd's options: sign-method, pub-key, priv-key, ttl.
func newSigner(options string, log *slog.Logger) (*signer, error) {
	s := &signer{ttl: TokenTTLDefault}
	values := make(map[string]string)
	for option := range strings.SplitSeq(options, ",") {
		name, value, ok := strings.Cut(option, "=")
		if _, twice := values[name]; !ok || twice || strings.Contains(value, "=") {
			return nil, fmt.Errorf("auth-token: jwt option %q is not name=value, or comes twice", name)
		}
		values[name] = value
		switch name {
		case "sign-method", "pub-key", "priv-key", "ttl":
		default:
			if log != nil {
				log.Warn("unknown jwt option", "option", name)
			}
		}
	}
	if ttl := values["ttl"]; ttl != "" {
		var err error
		if s.ttl, err = time.ParseDuration(ttl); err != nil || s.ttl <= 0 {
			return nil, fmt.Errorf("auth-token: jwt option ttl %q is no duration such as 5m", ttl)
		}
	}
	s.method = jwt.GetSigningMethod(values["sign-method"])
	if s.method == nil || s.method.Alg() == jwt.SigningMethodNone.Alg() {
		return nil, fmt.Errorf("auth-token: jwt option sign-method %q is none of RS256, PS256, ES256, HS256 and their like, or EdDSA",
			values["sign-method"])
	}
	if err := s.readKeys(values["priv-key"], values["pub-key"]); err != nil {
		return nil, fmt.Errorf("auth-token: %s: %w", s.method.Alg(), err)
	}
	return s, nil
}

// errNoKey: the method can not work without.
var errNoKey = errors.New("priv-key, or pub-key to check tokens only, must name a key file")

func (s *signer) readKeys(private, public string) error {
	var sealed, open []byte
	var err error
	if private != "" {
		if sealed, err = os.ReadFile(private); err != nil {
			return err
		}
	}
	if public != "" {
		if open, err = os.ReadFile(public); err != nil {
			return err
		}
	}
	switch s.method.(type) {
	case *jwt.SigningMethodHMAC:
		if len(sealed) == 0 {
			return errNoKey
		}
		s.sealed, s.open = sealed, sealed
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		err = takeKeys(s, sealed, open, jwt.ParseRSAPrivateKeyFromPEM, jwt.ParseRSAPublicKeyFromPEM)
	case *jwt.SigningMethodECDSA:
		err = takeKeys(s, sealed, open, jwt.ParseECPrivateKeyFromPEM, jwt.ParseECPublicKeyFromPEM)
	case *jwt.SigningMethodEd25519:
		err = takeKeys(s, sealed, open, jwt.ParseEdPrivateKeyFromPEM, jwt.ParseEdPublicKeyFromPEM)
	default:
		err = errors.New("sign-method is not supported")
	}
	if err != nil {
		return err
	}
	s.parser = jwt.NewParser(jwt.WithValidMethods([]string{s.method.Alg()}), jwt.WithExpirationRequired())
	// A key of another kind or curve than the method's shows now, and not with the first user.
	if s.sealed != nil {
		_, err = s.sign(Identity{User: "root"}, time.Now())
	}
	return err
}

// takeKeys parses the keys that were given, which must belong together.
func takeKeys[S, P any](s *signer, sealed, open []byte, private func([]byte) (S, error), public func([]byte) (P, error)) error {
	if len(sealed) == 0 && len(open) == 0 {
		return errNoKey
	}
	if len(sealed) > 0 {
		key, err := private(sealed)
		if err != nil {
			return fmt.Errorf("priv-key: %w", err)
		}
		s.sealed = key
		s.open = any(key).(crypto.Signer).Public()
	}
	if len(open) == 0 {
		return nil
	}
	key, err := public(open)
	if err != nil {
		return fmt.Errorf("pub-key: %w", err)
	}
	if s.open != nil && !s.open.(interface{ Equal(crypto.PublicKey) bool }).Equal(key) {
		return errors.New("pub-key is not that of priv-key")
	}
	s.open = key
	return nil
}

func (s *signer) sign(id Identity, now time.Time) (string, error) {
	if s.sealed == nil {
		return "", ErrVerifyOnly
	}
	return jwt.NewWithClaims(s.method, jwt.MapClaims{
		"username": id.User, "revision": id.Revision, "exp": now.Add(s.ttl).Unix(),
	}).SignedString(s.sealed)
}

func (s *signer) verify(token string, now time.Time) (Identity, bool) {
	var c claims
	parsed, err := s.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return s.open, nil })
	if err != nil || !parsed.Valid || c.Username == nil || c.Revision == nil || *c.Username == "" {
		return Identity{}, false
	}
	if c.ExpiresAt == nil || !now.Before(c.ExpiresAt.Time) {
		return Identity{}, false
	}
	r := *c.Revision
	if r < 1 || r != math.Trunc(r) || r > 1<<53 { // 0 would be any revision
		return Identity{}, false
	}
	return Identity{User: *c.Username, Revision: uint64(r)}, true
}
