package server

import "time"

// TLS says how connections of one kind, of clients or of members, are secured.
// Its zero value is no TLS. Certificate, key, CA and revocation list are read
// again when their files change, without a restart.
type TLS struct {
	// CertFile and KeyFile are this member's certificate chain and key, as PEM.
	CertFile, KeyFile string
	// ClientCertFile and ClientKeyFile are what the member shows when it is
	// the one that connects. Default: CertFile and KeyFile.
	ClientCertFile, ClientKeyFile string
	// TrustedCAFile holds the authorities whose certificates are accepted.
	TrustedCAFile string
	// ClientCertAuth demands a certificate of who connects, and checks it.
	// Setting TrustedCAFile, CRLFile, AllowedCN or AllowedHostnames does so too.
	ClientCertAuth bool
	// CRLFile lists revoked certificates, as PEM or DER.
	CRLFile string
	// AllowedCN and AllowedHostnames, if not empty, list the common names, and
	// the names in the certificate, of which the other side must show one.
	AllowedCN, AllowedHostnames []string
	// AllowedURIs, if not empty, list the identities, such as
	// "spiffe://trust.domain/latchkey/a", of which the certificate of the other
	// side must have one, whichever side connects; one that ends in "/" stands
	// for all with one segment more. For members only; setting it demands
	// certificates.
	AllowedURIs []string
	// SkipClientSANVerification accepts members whose certificate does not
	// name the address that they connect from.
	SkipClientSANVerification bool
	// Auto makes a self-signed certificate, valid for SelfSignedYears, in the
	// data directory. It encrypts; it proves nothing about the other side.
	Auto bool
	// SelfSignedYears is how long the certificate of Auto holds. Default 1.
	SelfSignedYears int
	// MinVersion and MaxVersion are "TLS1.2" or "TLS1.3". Defaults: TLS1.2 and
	// no bound.
	MinVersion, MaxVersion string
	// CipherSuites are the names, as in crypto/tls, of the suites that TLS 1.2
	// may use. Default: Go's own choice.
	CipherSuites []string
}

// Auth configures how users prove who they are. Whether users are needed at all
// is the cluster's own state, which AuthEnable changes.
type Auth struct {
	// Token is "simple", or "jwt" with etcd's options, as in
	// "jwt,sign-method=RS256,pub-key=app.pub,priv-key=app.key,ttl=5m". Default
	// "simple".
	Token string
	// TokenTTL is how long a simple token lives without being used. Default
	// 5 minutes.
	TokenTTL time.Duration
	// BcryptCost is what hashing a password costs, 4 to 31. Default 10.
	BcryptCost int

	loopback bool // count the wrong passwords of loopback addresses too: in tests
}

// Limits bounds what clients may take of a member. Zero fields have the
// defaults; none can be switched off.
type Limits struct {
	// Connections bounds the clients' connections of the member, and
	// ConnectionsPerHost those from one address that is not loopback.
	// Defaults 20,000 and 2,000.
	Connections, ConnectionsPerHost int
	// StreamsPerConnection bounds a connection's concurrent calls. Default 1,024.
	StreamsPerConnection int
	// WatchesPerStream and Watches bound the watchers of a stream, and of the
	// member. Defaults 10,000 and 1,000,000.
	WatchesPerStream, Watches int
	// Leases bounds the leases of the cluster, as this member sees it; one that is
	// granted beyond is refused. Default 1,000,000.
	Leases int
	// HandshakeTimeout bounds a connection's TLS handshake and its first bytes.
	// Default 10s.
	HandshakeTimeout time.Duration
	// KeepAliveMinTime is the least time between a client's pings. Default 1s.
	KeepAliveMinTime time.Duration
}

// Audit configures the audit log: who has asked for what, and with what outcome.
// Its zero value is none.
type Audit struct {
	// File gets a line, a JSON object, for each request that changes something or
	// that was refused for want of rights. It is appended to. While there is one,
	// small requests cost a goroutine each.
	File string
	// Reads has all other requests written too.
	Reads bool
}

// Web configures what the member serves over plain HTTP besides gRPC: the JSON
// gateway, health, version and metrics.
type Web struct {
	// ListenMetricsURLs are more addresses for metrics and health alone.
	ListenMetricsURLs []string
	// ListenClientHTTPURLs, if not empty, take all plain HTTP off the
	// ListenClientURLs, which then serve gRPC only.
	ListenClientHTTPURLs []string
	// DisableGateway switches the JSON gateway off.
	DisableGateway bool
	// CORS lists the origins whose pages may call the gateway; "*" for all.
	// Default: none but the page's own.
	CORS []string
	// HostWhitelist lists the host names by which plain HTTP may be asked on a
	// listener without TLS; "*" for all. Default "*".
	HostWhitelist []string
	// ExtensiveMetrics adds histograms for each gRPC method.
	ExtensiveMetrics bool
	// Pprof serves Go's profiles under /debug/pprof.
	Pprof bool
}

// Membership configures how the cluster's members may change.
type Membership struct {
	// LooseReconfigCheck allows changes that could cost the quorum.
	LooseReconfigCheck bool
	// MaxLearners bounds the learners of the cluster. Default 1.
	MaxLearners int
	// ForceNewCluster makes this member the only one of its cluster, keeping
	// its data: the last resort when a majority is lost for good.
	ForceNewCluster bool
	// Discovery, or DNS, finds the members of a new cluster, instead of
	// InitialCluster.
	Discovery Discovery
	DNS       DNS

	resolver resolver // net.DefaultResolver but in tests
}

// Checks configures how a member watches over itself and the others.
type Checks struct {
	// CorruptInterval is how often the leader compares the members' data by
	// HashKV, as etcd does. Default 0: never. The members' own check, by a
	// hash of the whole state that the log carries, always runs.
	CorruptInterval time.Duration
	// InitialCorrupt compares this member's data with the others' before it
	// serves.
	InitialCorrupt bool
	// StallTimeout is how long one sync of the log may take before the member
	// ends. Default 30s, at least two election timeouts.
	StallTimeout time.Duration

	every    time.Duration // between the members' own checks; checkInterval but in tests
	slowDisk time.Duration // slowDiskMin but in tests
	hold     time.Duration // quotaHold but in tests
}
