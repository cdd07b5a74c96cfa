package shard

import "slices"

// Limits bound what a shard does.
type Limits struct {
	Lanes   int
	Crashes int // a job whose workers died so often is dead
	Group   int // jobs of one group that run at once
	// Weights share the claims among the lanes, those without one having 1. Nil: a
	// lane waits while one before it has something.
	Weights []int
	Planted Fault
}

func (l Limits) weight(lane int) int {
	if lane < len(l.Weights) {
		return l.Weights[lane]
	}
	return 1
}

// Fault is a defect that tests plant, to see that they find it.
type Fault uint8

// The defects of a test. Zero is none.
const (
	BlindEnd       Fault = iota + 1 // the end of a job does not compare the item
	BlindMark                       // the mark moves without looking at what is below it
	BlindEnqueue                    // an item is put below the mark
	BlindClaim                      // a claim does not compare the token
	UncountedCrash                  // an adoption does not count
	ForgottenPart                   // a chunk goes when its first message has ended
	EarlyGroup                      // a group's next job starts beside the one before
	BlindBatch                      // a batch is sent again without its number
)

const (
	journalMax  = 1024 // entries of a journal, adopted ones included
	endsMax     = 100  // items that one transaction ends
	readsMax    = 64   // items that one transaction reads
	pageFirst   = 16   // items of the first page, before their size is known
	pageMax     = 256
	pageBytes   = 1 << 20
	readyMax    = 512  // items known and not claimed, of a lane
	bufferMax   = 4096 // items that wait for their place in the order
	limboMax    = 1024 // events that wait for a page
	lastWordMax = 1024 // bytes of an error that is kept
)

// Request is a transaction that a shard wants executed. Whoever sends it sends
// it again, the same, until the answer is known.
type Request struct {
	Txn   Txn
	Read  bool // changes nothing
	Alone bool // writes what other workers' requests have as a condition
	Again bool // set by the sender when it may have been executed before
	done  func(a *Answer)
}

// Answer tells the shard what came of a request.
func (r *Request) Answer(a *Answer) { r.done(a) }

// Shard is what one worker knows of one shard. It belongs to the worker's loop.
type Shard struct {
	N      int
	me     string
	limits Limits
	tenure
	feed
	journal
	others

	Paused   bool // no claims and no starts
	Draining bool // no claims and no starts, for good
	// HoldGroups: no claims of messages of groups, as older ones may be in shards
	// that the queue had before.
	HoldGroups bool

	claims map[string]*Claim // by key: what our journal says, until it has ended
	order  []*Claim          // those with something to start, by lane and age
	seq    int64             // of the next claim
	acks   []Job             // ended without more ado
	acking bool
	wishes []*Request // to be sent at once
	loads  []*Claim   // whose items are to be read

	Ended []Job // since it was emptied: their end is in the store
	Lost  []Job // since it was emptied: somebody else has them now, or nobody
}

// tenure is whether the shard is ours.
type tenure struct {
	token   int64 // mod revision of the token while it is ours; 0 otherwise
	flagged bool  // the token says that others may take the shard
	taking  bool
}

// journal is what we have written of our claims, and will.
type journal struct {
	jCreate, jMod int64     // its revisions; 0 when there is none
	writing       bool      // a write of it, or of the token, is under way
	dirty         bool      // it does not say yet what it should
	current       *write    // under way
	doubt         *write    // may still be executed, until the journal is written again
	parts         []partEnd // ends of messages of chunks, to be written with it
}

// others are the journals of other workers that had the shard before.
type others struct {
	foreign map[string]*foreign // by worker
	parked  map[string]bool     // keys in them
	checks  []Entry             // that left one: are their items still there?
	unsure  map[string]int      // groups of those, until that is known
}

// New returns a shard that is not ours yet.
func New(n int, worker string, limits Limits) *Shard {
	limits.Lanes, limits.Group = max(1, limits.Lanes), max(1, limits.Group)
	s := &Shard{N: n, me: worker, limits: limits, claims: make(map[string]*Claim)}
	s.forget()
	return s
}

// Owned says whether the token is ours, as far as we know.
func (s *Shard) Owned() bool { return s.token != 0 }

// Token returns the mod revision of the token while it is ours.
func (s *Shard) Token() int64 { return s.token }

// Idle says that no claim and no request is left.
func (s *Shard) Idle() bool {
	for _, c := range s.claims {
		if !c.kept {
			return false
		}
	}
	return !s.writing && !s.acking && len(s.wishes) == 0 && !s.dirty && !s.taking
}

// Claimed counts the messages that are claimed and have not ended.
func (s *Shard) Claimed() (n int) {
	for _, c := range s.claims {
		n += c.left()
	}
	return n
}

// Token as others see it.
type Token struct {
	Worker  string // empty when nobody has it
	Flagged bool
	Mod     int64
}

// ParseToken reads a token.
func ParseToken(kv KV) Token {
	t := Token{Worker: string(kv.Value), Mod: kv.Mod}
	if n := len(t.Worker); n > 0 && t.Worker[n-1] == '!' {
		t.Worker, t.Flagged = t.Worker[:n-1], true
	}
	return t
}

// Take asks for the token, which was seen as old. dead says that its worker's
// session is over, which is made sure of.
func (s *Shard) Take(old Token, dead bool) {
	if s.taking || s.token != 0 || s.Draining || s.writing {
		return
	}
	s.taking = true
	t := Txn{
		If:   []Compare{modIs(TokenKey(s.N), old.Mod)},
		Then: []Op{put(TokenKey(s.N), []byte(s.me)), getAll(JournalsOf(s.N)), getAll("w/" + shardName(s.N) + "/")},
		Else: []Op{get(TokenKey(s.N)), getAll(JournalsOf(s.N)), getAll("w/" + shardName(s.N) + "/")},
	}
	if dead && old.Worker != "" {
		t.If = append(t.If, missing(WorkerKey(old.Worker)))
	}
	s.wishes = append(s.wishes, &Request{Txn: t, Alone: true, done: func(a *Answer) {
		s.taking = false
		token := a.Revision
		if !a.Succeeded {
			kv := a.Results[0].one()
			if string(kv.Value) != s.me {
				return
			}
			token = kv.Mod // an earlier attempt has got it
		}
		s.taken(token, a)
	}})
}

// taken begins our time: everything that is claimed by others is known from the
// same revision.
func (s *Shard) taken(token int64, a *Answer) {
	s.token, s.flagged = token, false
	s.forget()
	s.begin(a.Revision, a.Results[2].KVs)
	for _, kv := range a.Results[1].KVs {
		if worker := Record(kv.Key); worker != s.me {
			s.setForeign(worker, kv)
		}
	}
}

// Moved tells that the token is no longer what it was when we had it.
func (s *Shard) Moved(now Token) {
	if s.token == 0 || now.Mod <= s.token || now.Worker == s.me {
		return
	}
	s.lose()
}

// lose ends our time. What we have claimed stays ours.
func (s *Shard) lose() {
	s.token, s.flagged = 0, false
	s.forget()
	s.dirty = s.dirty || len(s.claims) == 0 && s.jMod != 0
}

// forget drops what only the owner needs.
func (s *Shard) forget() {
	s.feed = newFeed(s.limits.Lanes)
	s.others = others{foreign: make(map[string]*foreign), parked: make(map[string]bool), unsure: make(map[string]int)}
	s.knowOurs()
}

// knowOurs lets the feed skip what we have claimed already.
func (s *Shard) knowOurs() {
	for key := range s.claims {
		s.known[key] = true
	}
	if s.current != nil {
		for _, c := range s.current.added {
			s.known[c.Key] = true
		}
	}
}

// Tidy removes the journal when there is nothing in it, to be called now and
// then.
func (s *Shard) Tidy() {
	s.dirty = s.dirty || len(s.claims) == 0 && s.jMod != 0
}

// Flag tells others that there is more to do than we can.
func (s *Shard) Flag() {
	if s.token == 0 || s.flagged || s.writing || s.Draining {
		return
	}
	s.writing, s.flagged = true, true
	token := s.token
	s.wishes = append(s.wishes, &Request{Alone: true, Txn: Txn{
		If:   []Compare{modIs(TokenKey(s.N), token)},
		Then: []Op{put(TokenKey(s.N), []byte(s.me+"!"))},
		Else: []Op{get(TokenKey(s.N))},
	}, done: func(a *Answer) {
		s.writing = false
		if s.token != token {
			return
		}
		if a.Succeeded {
			s.token = a.Revision
		} else if kv := a.Results[0].one(); string(kv.Value) == s.me+"!" {
			s.token = kv.Mod
		} else {
			s.lose()
		}
	}})
}

// Release gives the token back.
func (s *Shard) Release() {
	if s.token == 0 {
		return
	}
	token := s.token
	s.lose()
	s.wishes = append(s.wishes, &Request{Alone: true, Txn: Txn{
		If:   []Compare{modIs(TokenKey(s.N), token)},
		Then: []Op{del(TokenKey(s.N))},
	}, done: func(*Answer) {}})
}

// Next returns what is to be sent now. budget is how many more messages the
// worker wants to claim.
func (s *Shard) Next(now int64, budget int) []*Request {
	s.ripen(now)
	if s.token != 0 {
		s.page()
		s.check()
	}
	s.load()
	s.ack()
	if !s.writing {
		s.write(now, budget)
	}
	out := s.wishes
	s.wishes = nil
	return out
}

// Wake returns when Next or Start may have something that they do not have now:
// ms since 1970, or 0.
func (s *Shard) Wake() (at int64) {
	if s.Paused || s.Draining {
		return 0
	}
	if len(s.due.items) > 0 {
		at = DueTime(s.due.items[0].Key)
	}
	for _, c := range s.order {
		if c.notBefore > 0 && (at == 0 || c.notBefore < at) {
			at = c.notBefore
		}
	}
	return at
}

// drop removes a claim.
func (s *Shard) drop(c *Claim) {
	c.over = true
	delete(s.claims, c.Key)
	if i := slices.Index(s.order, c); i >= 0 {
		s.order = slices.Delete(s.order, i, i+1)
	}
}
