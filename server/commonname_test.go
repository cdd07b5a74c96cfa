package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// The name in a certificate counts if the certificate was verified, and not for a call that the gateway makes.
func TestCommonName(t *testing.T) {
	named := func(name string) *x509.Certificate { return &x509.Certificate{Subject: pkix.Name{CommonName: name}} }
	on := func(info credentials.AuthInfo) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info})
	}
	verified := credentials.TLSInfo{State: tls.ConnectionState{
		VerifiedChains: [][]*x509.Certificate{{}, {named("u"), named("authority")}, {named("other")}}}}
	require.Equal(t, "u", commonName(on(verified)))
	require.Empty(t, commonName(on(credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{named("u")}}})))
	require.Empty(t, commonName(on(nil)))
	require.Empty(t, commonName(t.Context()))
	gateway := metadata.NewIncomingContext(on(verified), metadata.Pairs("grpcgateway-accept", "*/*"))
	require.Empty(t, commonName(gateway))
}
