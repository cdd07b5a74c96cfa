package shard

// blindShare is a defect of the fleet itself: what moves shards shares transactions
// with what was decided before that.
const blindShare Fault = 255

// parcel is a request that waits for those of other workers, to share a
// transaction with them.
type parcel struct {
	r    *Request
	done func(*Answer)
}

// share sends a request, in some runs together with what others want to be sent.
func (x *sim) share(r *Request, done func(*Answer)) {
	if !x.shares || r.Read || r.Alone && x.plant != blindShare {
		x.send(r.Txn, &r.Again, done)
		return
	}
	x.parcels = append(x.parcels, parcel{r, done})
}

// ship sends what waits as one transaction. When its sender gives up, each request
// is its own worker's again.
func (x *sim) ship() {
	all := x.parcels
	if x.parcels = nil; len(all) == 0 {
		return
	}
	if len(all) > 1 {
		x.seen.Shared++
	}
	t := Txn{}
	for _, p := range all {
		t.Then = append(t.Then, nest(p.r.Txn))
	}
	x.net = append(x.net, &packet{txn: t, again: func() {
		for _, p := range all {
			p.r.Again = true
			x.send(p.r.Txn, &p.r.Again, p.done)
		}
	}, done: func(a *Answer) {
		for i, p := range all {
			p.done(a.Results[i].Txn)
		}
	}})
}
