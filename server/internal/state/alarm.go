package state

import (
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Alarm is an alarm that is on.
type Alarm struct {
	Type   pb.AlarmType // NOSPACE or CORRUPT; others are kept, and mean nothing
	Member uint64       // that it concerns; 0 for the cluster
	// Raised tells that a member found the reason by itself, and so may find that it has passed. What an operator
	// activated stays until an operator deactivates it, even if a member had raised it before.
	Raised bool
}

// Notices is what the cluster says of itself.
type Notices struct {
	Alarms    []Alarm // ascending by type and member
	Downgrade string  // the version that a downgrade was announced to, such as "3.6.0"; empty for none
}

// notices is the machine's end of Notices.
type notices struct {
	Notices
	noSpace, corrupt bool // what the alarms forbid
}

// Message returns the alarm as etcd's message.
func (a Alarm) Message() *pb.AlarmMember { return &pb.AlarmMember{MemberID: a.Member, Alarm: a.Type} }

func (a Alarm) compare(b Alarm) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Member, b.Member))
}

// Alarms returns the alarms that are on, ascending by type and member. It is never written to, by anybody.
func (m *Machine) Alarms() []Alarm { return m.notices.Alarms }

// Downgrade returns the version that a downgrade was announced to, empty for none.
func (m *Machine) Downgrade() string { return m.notices.Downgrade }

// alarm lists, activates or deactivates. As in etcd, a list is of one type or, for NONE, of all, whatever member it
// names; the others concern exactly the alarm named, answer with it, and with none if it was not there.
//
// A member lowers only what a member raised: an operator may have activated the same alarm in the meantime.
func (m *Machine) alarm(r *pb.AlarmRequest, raised bool) *pb.AlarmResponse {
	n := &m.notices
	response := &pb.AlarmResponse{Header: m.header()}
	at := Alarm{Type: r.GetAlarm(), Member: r.GetMemberID(), Raised: raised}
	i, on := slices.BinarySearchFunc(n.Alarms, at, Alarm.compare)
	switch r.GetAction() {
	case pb.AlarmRequest_GET:
		for _, a := range n.Alarms {
			if at.Type == pb.AlarmType_NONE || at.Type == a.Type {
				response.Alarms = append(response.Alarms, a.Message())
			}
		}
		return response
	case pb.AlarmRequest_ACTIVATE:
		if at.Type == pb.AlarmType_NONE {
			return response
		}
		response.Alarms = append(response.Alarms, at.Message())
		switch {
		case !on:
			n.Alarms = slices.Insert(slices.Clone(n.Alarms), i, at)
		case n.Alarms[i].Raised && !raised:
			n.Alarms = slices.Clone(n.Alarms)
			n.Alarms[i] = at
		default:
			return response
		}
	case pb.AlarmRequest_DEACTIVATE:
		if !on || raised && !n.Alarms[i].Raised {
			return response
		}
		response.Alarms = append(response.Alarms, at.Message())
		n.Alarms = slices.Delete(slices.Clone(n.Alarms), i, i+1)
	default:
		return response
	}
	n.judge()
	m.pending.notices = true
	return response
}

// judge works out what the alarms forbid. A CORRUPT alarm that a member raised about one member concerns that one alone,
// which keeps itself from serving: the others agree with each other and go on. Any other stops the cluster, as in etcd.
func (n *notices) judge() {
	n.noSpace, n.corrupt = false, false
	for _, a := range n.Alarms {
		switch a.Type {
		case pb.AlarmType_NOSPACE:
			n.noSpace = true
		case pb.AlarmType_CORRUPT:
			n.corrupt = n.corrupt || !a.Raised || a.Member == 0
		}
	}
}

// Barred tells whether alarms forbid a command: ErrNoSpace, ErrCorrupt or nil. Apply asks the same.
func Barred(alarms []Alarm, c *Command) error {
	n := notices{Notices: Notices{Alarms: alarms}}
	n.judge()
	return n.barred(c)
}

// barred tells whether the alarms forbid a command. The end of leases whose time is up is never forbidden: it makes room,
// and it was promised.
func (n *notices) barred(c *Command) error {
	switch c.Request.(type) {
	case *pb.PutRequest, *pb.LeaseGrantRequest, *pb.TxnRequest,
		*pb.DeleteRangeRequest, *pb.CompactionRequest, *pb.LeaseRevokeRequest:
		if n.corrupt {
			return ErrCorrupt
		}
	}
	if n.noSpace && Cost(c) > 0 {
		return ErrNoSpace
	}
	return nil
}

// leaseCost is what the quota charges for a lease, in bytes; etcd's.
const leaseCost = 64

// Cost returns the bytes that a command may add to the live data, as the quota charges them: 0 for one that can only
// read or delete. A transaction costs what the more expensive of its branches does, nested ones included.
func Cost(c *Command) int64 {
	switch r := c.Request.(type) {
	case *pb.PutRequest:
		return costOfPut(r)
	case *pb.LeaseGrantRequest:
		return leaseCost
	case *pb.TxnRequest:
		return costOfTxn(r)
	default:
		return 0
	}
}

func costOfPut(r *pb.PutRequest) int64 {
	return int64(len(r.GetKey()) + len(r.GetValue()) + liveKeyBytes)
}

func costOfTxn(r *pb.TxnRequest) int64 {
	return max(costOfOps(r.GetSuccess()), costOfOps(r.GetFailure()))
}

func costOfOps(ops []*pb.RequestOp) (cost int64) {
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			cost += costOfPut(p)
		}
		if t := op.GetRequestTxn(); t != nil {
			cost += costOfTxn(t)
		}
	}
	return cost
}

// downgrade announces a downgrade, or takes the announcement back. Whoever proposed it has checked the version; what may
// have changed since is checked here.
func (m *Machine) downgrade(r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	to := ""
	switch r.GetAction() {
	case pb.DowngradeRequest_ENABLE:
		if m.notices.Downgrade != "" {
			return nil, ErrDowngrading
		}
		to = r.GetVersion()
	case pb.DowngradeRequest_CANCEL:
	default:
		return nil, ErrCommand
	}
	m.notices.Downgrade, m.pending.notices = to, true
	return &pb.DowngradeResponse{Header: m.header()}, nil
}

// Notices adds what the cluster said of itself.
func (l *Loader) Notices(n Notices) error {
	n.Alarms = slices.SortedFunc(slices.Values(n.Alarms), Alarm.compare)
	l.m.notices.Notices = n
	l.m.notices.judge()
	return nil
}

func (m *Machine) checkNotices() error {
	n := m.notices
	for i, a := range n.Alarms {
		if i > 0 && n.Alarms[i-1].compare(a) >= 0 || a.Type == pb.AlarmType_NONE {
			return broken("alarms ascend by type and member, each once", "%+v", n.Alarms)
		}
	}
	if n.judge(); n.noSpace != m.notices.noSpace || n.corrupt != m.notices.corrupt {
		return broken("what is forbidden follows from the alarms", "%+v", m.notices)
	}
	return nil
}
