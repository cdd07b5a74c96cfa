package front

import (
	"encoding/binary"
	"time"
)

// settings applies the client's.
func (c *conn) settings(h frameHeader, b []byte) error {
	switch {
	case h.stream != 0:
		return protocolError("SETTINGS on a stream")
	case h.flags&flagAck != 0:
		if len(b) != 0 {
			return &connError{codeFrameSize, "an acknowledgement of SETTINGS with content"}
		}
		return nil
	case len(b)%6 != 0:
		return &connError{codeFrameSize, "SETTINGS of a wrong size"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	initial := c.initial
	for ; len(b) > 0; b = b[6:] {
		if err := c.setting(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])); err != nil {
			return err
		}
	}
	c.out = appendFrameHeader(c.out, 0, frameSettings, flagAck, 0)
	return c.changeWindows(c.initial - initial)
}

// changeWindows follows a change of the initial window, once a frame however often it names it. mu is held.
func (c *conn) changeWindows(change int64) error {
	if change == 0 {
		return nil
	}
	if c.changes++; c.changes > windowChangesMax {
		return &connError{codeCalm, "too many changes of the window"}
	}
	for _, st := range c.streams {
		if st.out.window += change; st.out.window > maxWindow {
			return &connError{codeFlowControl, "a stream's window is too large"}
		}
	}
	for _, st := range c.streams {
		if change > 0 && len(st.out.pending) > 0 {
			st.pump()
		}
	}
	return nil
}

func (c *conn) setting(id uint16, value uint32) error {
	switch id {
	case settingHeaderTable:
		// Two entries need little, but a client may want none. Ours are given up for good then.
		if value < headerTable && !c.answers.disabled {
			c.answers.disabled, c.answers.sizeUpdate = true, true
		}
	case settingPush:
		if value > 1 {
			return protocolError("ENABLE_PUSH is neither 0 nor 1")
		}
	case settingInitialWindow:
		if value > maxWindow {
			return &connError{codeFlowControl, "INITIAL_WINDOW_SIZE is too large"}
		}
		c.initial = int64(value)
	case settingMaxFrame:
		if value < maxFrameBytes || value > 1<<24-1 {
			return protocolError("MAX_FRAME_SIZE out of range")
		}
		// Larger frames than we take ourselves would only delay the others.
	}
	return nil
}

func (c *conn) windowUpdate(h frameHeader, b []byte) error {
	if len(b) != 4 {
		return &connError{codeFrameSize, "WINDOW_UPDATE of a wrong size"}
	}
	n := int64(binary.BigEndian.Uint32(b) & maxStreamID)
	if h.stream != 0 && c.idle(h.stream) {
		return protocolError("WINDOW_UPDATE on an idle stream")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.stream == 0 {
		if n == 0 {
			return protocolError("WINDOW_UPDATE by nothing")
		}
		if c.sendWindow += n; c.sendWindow > maxWindow {
			return &connError{codeFlowControl, "the connection's window is too large"}
		}
		c.resume()
		return nil
	}
	st := c.streams[h.stream]
	if st == nil {
		return nil
	}
	if n == 0 {
		c.resetStream(st, codeProtocol)
		return nil
	}
	if st.out.window += n; st.out.window > maxWindow {
		c.resetStream(st, codeFlowControl)
		return nil
	}
	if len(st.out.pending) > 0 {
		st.pump()
	}
	return nil
}

// resume goes on with streams that waited for the connection's window or for room, in the order in which they came, as
// long as there is both. A stream that wants more goes to the end of the line. mu is held.
func (c *conn) resume() {
	for len(c.waiting) > 0 && c.sendWindow > 0 && len(c.out) < outSoftBytes {
		st := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		st.out.queued = false
		st.pump()
	}
}

// pings counts those that come too often, by the rules of grpc-go's server.
type pings struct {
	last    time.Time
	strikes int
}

// pingStrikesMax is how many pings may come too early before the client is sent away.
const pingStrikesMax = 2

func (c *conn) ping(h frameHeader, b []byte) error {
	switch {
	case h.stream != 0:
		return protocolError("PING on a stream")
	case len(b) != 8:
		return &connError{codeFrameSize, "PING of a wrong size"}
	case h.flags&flagAck != 0:
		c.goodbye(b)
		return nil
	}
	now := time.Now()
	c.mu.Lock()
	c.acknowledge(b, now)
	answered := c.acks.answered
	c.acks.answered = false
	c.mu.Unlock()
	p := &c.pings
	switch {
	case answered: // a client may measure each answer
		p.strikes = 0
	case now.Sub(p.last) < c.s.cfg.MinPingInterval:
		p.strikes++
	}
	p.last = now
	if p.strikes > pingStrikesMax {
		return &connError{codeCalm, "too_many_pings"}
	}
	return nil
}

// ackInterval is the least time between two acknowledgements of pings on a connection. grpc-go's client, like others,
// pings with every answer that it gets while no ping of it is under way, to estimate the bandwidth: acknowledged at
// once, each small call costs two further packets and wakes both sides once more. What they estimate (bytes between a
// ping and its acknowledgement) is not less for some milliseconds that are added now and then. RFC 9113, 6.7, wants
// acknowledgements soon, and before other frames; who tells dead peers by them waits for seconds.
const ackInterval = 10 * time.Millisecond

// ackRestInterval is the same for pings that follow answers as small as most are: there is no bandwidth to be estimated,
// and a client that makes a call every few milliseconds would ping with each. Once half of it has passed an
// acknowledgement leaves with whatever is written, and at its end alone.
const ackRestInterval = 100 * time.Millisecond

// ackBulkBytes is how much was sent since the last acknowledgement when a client may have something to estimate: a
// quarter of the window that it begins with.
const ackBulkBytes = 16 << 10

// acks is what is owed for pings.
type acks struct {
	answered bool      // an answer was written since the last ping
	bytes    int       // of DATA that were written since the last acknowledgement
	last     time.Time // when acknowledgements were written
	owed     []byte    // those that wait
	timer    *time.Timer
	due      time.Time // when timer ends
}

// acksOwedMax bounds acks.owed, bytes. Who pings on without waiting for an answer is answered at once.
const acksOwedMax = 1 << 10

// acknowledge answers a ping, now or at the end of the interval. mu is held.
func (c *conn) acknowledge(b []byte, now time.Time) {
	a := &c.acks
	interval := ackInterval
	if a.answered && a.bytes < ackBulkBytes {
		interval = ackRestInterval
	}
	due := a.last.Add(interval)
	if !now.Before(due) || len(a.owed) >= acksOwedMax || c.leaving {
		a.owed = appendPing(a.owed, flagAck, b)
		c.payAcks(now)
		return
	}
	switch {
	case a.timer == nil:
		a.timer, a.due = time.AfterFunc(due.Sub(now), c.settleAcks), due
	case len(a.owed) == 0 || due.Before(a.due):
		a.timer.Reset(due.Sub(now))
		a.due = due
	}
	a.owed = appendPing(a.owed, flagAck, b)
}

// payAcks puts what is owed where the next flush writes it, in order. mu is held.
func (c *conn) payAcks(now time.Time) {
	a := &c.acks
	c.out = append(c.out, a.owed...)
	a.owed, a.last, a.bytes = a.owed[:0], now, 0
}

// joinAcks adds what is owed to what is about to be written, if that is so much that a client may estimate something, or
// the timer would soon wake both sides for it alone. mu is held.
func (c *conn) joinAcks() {
	a := &c.acks
	if len(a.owed) == 0 || len(c.out) == 0 {
		return
	}
	now := time.Now()
	if after := now.Sub(a.last); after >= ackRestInterval/2 || after >= ackInterval && a.bytes >= ackBulkBytes {
		a.timer.Stop()
		c.payAcks(now)
	}
}

// settleAcks is called when acknowledgements are due.
func (c *conn) settleAcks() {
	c.mu.Lock()
	if c.closed || len(c.acks.owed) == 0 {
		c.mu.Unlock()
		return
	}
	c.payAcks(time.Now())
	c.mu.Unlock()
	c.flush()
}

// goodbye follows the client's answer to leave's ping.
func (c *conn) goodbye(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving && !c.left && string(b) == leavePing {
		c.left, c.leftID = true, c.lastID
		c.out = appendGoAway(c.out, c.leftID, codeNone, "graceful_stop")
	}
}
