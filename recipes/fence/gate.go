package fence

import "sync"

// Gate is the side of the resource: it remembers the newest token of each
// resource and refuses older ones. The zero Gate is ready to use and safe for
// concurrent use. It keeps one small entry for each resource until [Gate.Forget].
type Gate struct {
	mu        sync.Mutex // protects the map and each entry's users
	resources map[string]*resource
}

// resource is one resource's high-water mark.
type resource struct {
	mu     sync.Mutex // held while a write is under way; protects newest
	newest Token
	users  int // protected by the gate's mu; callers that have a pointer to this
	forget bool
}

// Admit records the token for the resource, or returns a [*StaleError] when the
// resource has seen a newer one. A write that follows must reach the resource
// before any other call of Admit for it: use [Gate.Do] where that is not given
// anyway.
func (g *Gate) Admit(name string, t Token) error {
	return g.Do(name, t, func() error { return nil })
}

// Do admits the token and calls write while no other call for the same resource
// can be admitted: an older holder's write can not end after a newer holder's
// was admitted. It returns a [*StaleError] without calling write, or write's
// error; the token counts as seen in either case but the first.
func (g *Gate) Do(name string, t Token, write func() error) error {
	r := g.enter(name)
	defer g.leave(name, r)
	r.mu.Lock()
	defer r.mu.Unlock()
	if t == 0 || t < r.newest {
		return &StaleError{Resource: name, Token: t, Newest: r.newest}
	}
	r.newest = t
	return write()
}

// Raise makes the gate refuse tokens below t for the resource, as if t had been
// admitted. It never lowers what the resource has seen. It is for a resource
// that stores the newest token with its data and starts again.
func (g *Gate) Raise(name string, t Token) {
	r := g.enter(name)
	defer g.leave(name, r)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest = max(r.newest, t)
}

// Newest returns the newest token that the resource has seen, or zero.
func (g *Gate) Newest(name string) Token {
	r := g.enter(name)
	defer g.leave(name, r)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest
}

// Forget drops the entry of a resource that is gone for good. Should it come
// back under the same name, any token is admitted to it again.
func (g *Gate) Forget(name string) {
	r := g.enter(name)
	g.mu.Lock()
	r.forget = true
	g.mu.Unlock()
	g.leave(name, r)
}

func (g *Gate) enter(name string) *resource {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.resources[name]
	if r == nil {
		r = &resource{}
		if g.resources == nil {
			g.resources = make(map[string]*resource)
		}
		g.resources[name] = r
	}
	r.users++
	return r
}

// leave drops the entry once nobody uses it, if it is to be forgotten or says
// nothing.
func (g *Gate) leave(name string, r *resource) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.users--
	if r.users > 0 {
		return
	}
	// Nobody else can hold r.mu now, nor come by: the lock is not needed.
	if r.forget || r.newest == 0 {
		delete(g.resources, name)
	}
}
