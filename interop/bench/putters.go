package main

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/interop/harness"
)

// officialPutter writes through etcd's own client, with its defaults.
type officialPutter struct{ cli *clientv3.Client }

func (p officialPutter) Put(ctx context.Context, key, value string) error {
	_, err := p.cli.Put(ctx, key, value)
	return err
}

func (p officialPutter) Close() error { return p.cli.Close() }

func openOfficial(c *harness.Cluster) (putter, error) {
	cli, err := c.Client()
	if err != nil {
		return nil, err
	}
	return officialPutter{cli}, nil
}

// ourPutter writes through this project's client, with its defaults.
type ourPutter struct{ cli *client.Client }

func (p ourPutter) Put(ctx context.Context, key, value string) error {
	_, err := p.cli.Put(ctx, key, []byte(value))
	return err
}

func (p ourPutter) Close() error { return p.cli.Close() }

func openOurs(c *harness.Cluster) (putter, error) {
	cli, err := client.New(client.Config{Endpoints: c.Endpoints()})
	if err != nil {
		return nil, err
	}
	return ourPutter{cli}, nil
}

// putters are the clients that the failover scenario writes through.
var putters = []struct {
	name string
	open func(*harness.Cluster) (putter, error)
}{
	{"official client", openOfficial},
	{"latchkey client", openOurs},
}
