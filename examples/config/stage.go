package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/client"
	"github.com/latchkey-go/latchkey/recipes/cache"
	"github.com/latchkey-go/latchkey/server"
)

// stage is the demonstration's world. It is used by one goroutine; those of the
// renderer and the reader have their own parts.
type stage struct {
	out    io.Writer
	dir    string
	config server.Config
	member *server.Server
	c      *client.Client
	r      *renderer
	p      program
	work   sync.WaitGroup
	end    context.CancelFunc
	failed chan error // receives why the renderer ended
}

// open starts a member, the renderer, and the program that reads the file.
func (s *stage) open(ctx context.Context) error {
	s.config = server.Config{DataDir: filepath.Join(s.dir, "data"), ListenPeerURLs: []string{"http://127.0.0.1:0"}}
	var err error
	if s.config.Sockets.Client, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	// Where clients find it now, they will find it again.
	endpoint := s.config.Sockets.Client.Addr().String()
	s.config.ListenClientURLs = []string{"http://" + endpoint}
	if s.member, err = server.Start(ctx, s.config); err != nil {
		return err
	}
	s.config.Sockets = server.Sockets{} // it was served, and ends with the member
	if s.c, err = client.New(client.Config{Endpoints: []string{endpoint}}); err != nil {
		return err
	}
	sections, err := cache.New[section](s.c, "config/shop/")
	if err != nil {
		return err
	}
	s.r = &renderer{sections: sections, file: filepath.Join(s.dir, "shop.conf"), rendered: make(chan client.Revision)}
	s.failed = make(chan error, 1)
	working, cancel := context.WithCancel(context.Background())
	s.end = cancel
	s.work.Go(func() { s.failed <- s.r.run(working) })
	s.p = program{file: s.r.file}
	return nil
}

// close ends all that open has begun.
func (s *stage) close() {
	if s.end != nil {
		s.end()
		s.work.Wait()
	}
	s.p.stop()
	if s.r != nil {
		_ = s.r.sections.Close()
	}
	if s.c != nil {
		_ = s.c.Close()
	}
	if s.member != nil {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		_ = s.member.Stop(ctx)
	}
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// set writes both sections in one transaction, and returns the revision.
func (s *stage) set(ctx context.Context, version int) (client.Revision, error) {
	var ops []client.Op
	for _, name := range []string{"database", "web"} {
		value, err := json.Marshal(section{"version": fmt.Sprint(version), "host": fmt.Sprintf("%s%d.example", name, version)})
		if err != nil {
			return 0, err
		}
		ops = append(ops, client.OpPut("config/shop/"+name, value))
	}
	res, err := s.c.Txn().Then(ops...).Commit(ctx)
	if err != nil {
		return 0, err
	}
	return res.Revision, nil
}

// reach waits until the file is of a revision or later.
func (s *stage) reach(ctx context.Context, rev client.Revision) error {
	for {
		select {
		case got := <-s.r.rendered:
			if got >= rev {
				return nil
			}
		case err := <-s.failed:
			return fmt.Errorf("the renderer ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the file did not reach revision %d: %w", rev, context.Cause(ctx))
		}
	}
}

// has checks that the file is of a version.
func (s *stage) has(version int) error {
	got, err := readVersion(s.r.file)
	if err == nil && got != fmt.Sprint(version) {
		err = fmt.Errorf("the file has version %s, and should have %d", got, version)
	}
	return err
}

func (s *stage) begins(ctx context.Context) error {
	rev, err := s.set(ctx, 1)
	if err != nil {
		return err
	}
	if err := s.reach(ctx, rev); err != nil {
		return err
	}
	s.say("Two sections are in the store, and %s has them.", filepath.Base(s.r.file))
	s.p.start()
	return s.has(1)
}

// versions is how many times the settings change in a row.
const versions = 50

func (s *stage) changes(ctx context.Context) error {
	for v := 2; v <= versions; v++ {
		rev, err := s.set(ctx, v)
		if err != nil {
			return err
		}
		if err := s.reach(ctx, rev); err != nil {
			return err
		}
	}
	s.say("The settings changed %d times, two sections in each transaction; a program read the file meanwhile.", versions-1)
	return s.has(versions)
}

func (s *stage) isDamaged(ctx context.Context) error {
	res, err := s.c.Put(ctx, "config/shop/web", []byte("{ not JSON"))
	if err != nil {
		return err
	}
	if err := s.r.sections.WaitRev(ctx, res.Revision); err != nil {
		return err
	}
	for key, err := range s.r.sections.View().Rejected() {
		s.say("Somebody damages %q: %v. The file stays.", key, err)
	}
	if err := s.has(versions); err != nil {
		return err
	}
	rev, err := s.set(ctx, versions+1)
	if err != nil {
		return err
	}
	if err := s.reach(ctx, rev); err != nil {
		return err
	}
	s.say("It is mended, and the file follows.")
	return s.has(versions + 1)
}

func (s *stage) isCutOff(ctx context.Context) error {
	s.member.Kill()
	s.say("The store is killed. The file stays, and the cache says what it last knew.")
	if _, ok := s.r.sections.Get("web"); !ok {
		return errors.New("the cache has lost its content")
	}
	var err error
	if s.member, err = server.Start(ctx, s.config); err != nil {
		return err
	}
	var rev client.Revision
	for v := versions + 2; v <= versions+4; v++ {
		if rev, err = s.set(ctx, v); err != nil {
			return err
		}
	}
	if err := s.c.Compact(ctx, rev); err != nil {
		return err
	}
	if err := s.reach(ctx, rev); err != nil {
		return err
	}
	s.say("The store is back, settings have changed, history is compacted: the file follows.")
	return s.has(versions + 4)
}

func (s *stage) verdict(context.Context) error {
	reads, seen, err := s.p.stop()
	if err != nil {
		return err
	}
	if reads < versions || seen < 3 {
		return fmt.Errorf("the program read the file %d times and saw %d versions: too few to prove anything", reads, seen)
	}
	s.say("The program has read the file %d times and saw %d versions, each of them whole.", reads, seen)
	return nil
}

// program reads the file again and again, as the one does that it is for.
type program struct {
	file  string
	done  chan struct{}
	group sync.WaitGroup

	// Owned by its goroutine, then by who has stopped it.
	reads int
	seen  map[string]bool
	err   error
}

func (p *program) start() {
	p.done, p.seen = make(chan struct{}), make(map[string]bool)
	p.group.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-p.done:
				return
			}
			version, err := readVersion(p.file)
			if err != nil {
				p.err = err
				return
			}
			p.reads++
			p.seen[version] = true
		}
	})
}

// stop ends the reading and returns how often the file was read, how many versions
// there were, and what was wrong with one. It may be called again.
func (p *program) stop() (reads, versions int, err error) {
	if p.done != nil {
		close(p.done)
		p.group.Wait()
		p.done = nil
	}
	return p.reads, len(p.seen), p.err
}

// readVersion returns the version in both sections of the file, which must be one.
func readVersion(file string) (string, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	sections, err := parse(string(content))
	if err != nil {
		return "", err
	}
	version := sections["web"]["version"]
	if version == "" || version != sections["database"]["version"] || len(sections) != 2 {
		return "", fmt.Errorf("the file mixes versions:\n%s", content)
	}
	return version, nil
}
