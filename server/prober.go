package server

import (
	"context"
	"time"
)

const (
	callPing byte = 18 // nothing -> nothing

	probeInterval = 5 * time.Second // between two questions to the same member, as in etcd
	probeTimeout  = time.Second
)

// probe measures, for the metrics, how long the other members take to answer:
// there and back on the connection that also carries heartbeats and votes.
func (s *Server) probe(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer context.AfterFunc(s.stopped, cancel)()
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			s.probeAll(ctx)
		}
	}
}

func (s *Server) probeAll(ctx context.Context) {
	for _, m := range (backend{s}).Members() {
		if m.ID == s.identity.MemberID || !s.alive(m.ID) {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, probeTimeout)
		began := time.Now()
		if _, err := s.peers.Call(asking, m.ID, callPing, nil); err == nil {
			s.meters.roundTrip(hex(m.ID)).Observe(time.Since(began).Seconds())
		}
		cancel()
	}
}
