// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/vishvananda/netlink"
)

// ears hear a port's events in both forms.
type ears struct {
	p     *port
	sub   *Subscription
	calls chan Event
	last  *LinkStatus // After of the last event
	mark  int
}

// listen subscribes. What happened before must not be heard.
func (p *port) listen() *ears {
	p.t.Helper()
	e := &ears{p: p, calls: make(chan Event, 4096)}
	s := p.status()
	e.last = &s
	e.sub = p.Events()
	p.t.Cleanup(e.sub.Close)
	p.t.Cleanup(p.OnEvent(func(ev Event) { e.calls <- ev }))
	return e
}

// next is the next event, which both forms must give, and which must begin where the last one ended.
func (e *ears) next() Event {
	e.p.t.Helper()
	var got [2]Event
	for i, c := range []<-chan Event{e.sub.C, e.calls} {
		select {
		case ev, ok := <-c:
			if !ok {
				e.p.t.Fatalf("no more events after %+v", e.last)
			}
			got[i] = ev
		case <-time.After(nettest.Bound(wait)):
			e.p.t.Fatalf("no event (form %d) after %+v", i, e.last)
		}
	}
	if !reflect.DeepEqual(got[0], got[1]) {
		e.p.t.Fatalf("the forms differ:\n%+v\n%+v", got[0], got[1])
	}
	ev := got[0]
	if !reflect.DeepEqual(*e.last, ev.Before) {
		e.p.t.Fatalf("an event (%v) begins with %+v, the last ended with %+v", ev.Changed, ev.Before, *e.last)
	}
	if ev.Changed == 0 || ev.Time.IsZero() {
		e.p.t.Fatalf("an event says nothing: %+v", ev)
	}
	e.last = &ev.After
	return ev
}

// expect wants one event with exactly those bits, and with that after it.
func (e *ears) expect(want Change, after func(s LinkStatus) bool) Event {
	e.p.t.Helper()
	ev := e.next()
	if ev.Changed != want || ev.Resync || !after(ev.After) {
		e.p.t.Fatalf("want an event %v, got %v (resync %v)\nbefore %+v\nafter  %+v", want, ev.Changed, ev.Resync, ev.Before, ev.After)
	}
	return ev
}

// quiet checks that nothing was heard up to now.
func (e *ears) quiet() {
	e.p.t.Helper()
	e.mark++
	want := 500 + e.mark
	must(e.p.t, e.p.SetTxQueueLen(want))
	e.expect(ChangeTxQueueLen, func(s LinkStatus) bool { return s.TxQueueLen == want })
}

// closed checks that nothing follows.
func (e *ears) closed() {
	e.p.t.Helper()
	select {
	case ev, ok := <-e.sub.C:
		if ok {
			e.p.t.Fatalf("one more event: %+v", ev)
		}
	case <-time.After(nettest.Bound(wait)):
		e.p.t.Fatal("the channel is still open")
	}
	select {
	case ev := <-e.calls:
		e.p.t.Fatalf("one more call: %+v", ev)
	default:
	}
}

func anything(LinkStatus) bool { return true }

func isUp(up bool) func(LinkStatus) bool {
	return func(s LinkStatus) bool { return s.Up == up && s.Running == up && s.Carrier }
}

// TestEvents: each change that somebody else makes is one event, with the bits of what changed and no
// others, and with the state before and after it.
func TestEvents(t *testing.T) {
	p := startPort(t, Config{Name: "first"})
	e := p.listen()
	mac := net.HardwareAddr{2, 0, 0, 0, 7, 7}
	c, i := p.conn, p.index
	for _, s := range []struct {
		set   error
		want  Change // 0: no event
		after func(s LinkStatus) bool
	}{
		{c.SetDown(i), ChangeUp | ChangeLink, isUp(false)},
		{c.SetDown(i), 0, nil},
		{c.SetName(i, "second"), ChangeName, func(s LinkStatus) bool { return s.Name == "second" && s.Index == i }},
		{c.SetUp(i), ChangeUp | ChangeLink, isUp(true)},
		{c.SetMTU(i, 1400), ChangeMTU, func(s LinkStatus) bool { return s.MTU == 1400 }},
		{c.SetMTU(i, 9000), ChangeMTU, func(s LinkStatus) bool { return s.MTU == 9000 }},
		{c.SetMTU(i, 9000), 0, nil},
		{c.SetMAC(i, mac), ChangeMAC, func(s LinkStatus) bool { return s.MAC.String() == mac.String() }},
		{c.SetPromisc(i, true), ChangePromiscuous, func(s LinkStatus) bool { return s.Promiscuous }},
		{c.SetPromisc(i, false), ChangePromiscuous, func(s LinkStatus) bool { return !s.Promiscuous }},
		{c.SetAllMulticast(i, true), ChangeAllMulticast, func(s LinkStatus) bool { return s.AllMulticast }},
		{c.SetTxQueueLen(i, 77), ChangeTxQueueLen, func(s LinkStatus) bool { return s.TxQueueLen == 77 }},
		{c.SetGSOMaxSize(i, 9000), 0, nil},
		{p.pairs[0].tap.SetCarrier(false), ChangeCarrier | ChangeLink, func(s LinkStatus) bool { return s.Up && !s.Carrier && !s.Running }},
	} {
		must(t, s.set) // they are all done before the first event is looked at
		if s.want != 0 {
			e.expect(s.want, s.after)
		}
	}
	e.quiet()
	if s := p.status(); !reflect.DeepEqual(s, *e.last) {
		t.Errorf("link status is %+v, the last event ended with %+v", s, *e.last)
	}
}

// TestEventsOfOwnOperations: what the program does by the port's methods shows too, once, and what it does
// without changing anything does not.
func TestEventsOfOwnOperations(t *testing.T) {
	p := startPort(t, Config{})
	e := p.listen()
	for _, s := range []struct {
		do    func() error
		want  Change
		after func(s LinkStatus) bool
	}{
		{p.Stop, ChangeUp | ChangeLink, isUp(false)},
		{p.Device.Start, ChangeUp | ChangeLink, isUp(true)},
		{p.SetLinkDown, ChangeUp | ChangeLink, isUp(false)},
		{func() error { return p.SetCarrier(false) }, ChangeCarrier, func(s LinkStatus) bool { return !s.Carrier }}, // while down
		{p.SetLinkUp, ChangeUp, func(s LinkStatus) bool { return s.Up && !s.Running }},
		{func() error { return p.SetCarrier(true) }, ChangeCarrier | ChangeLink, isUp(true)},
		{func() error { return p.SetMTU(9000) }, ChangeMTU, func(s LinkStatus) bool { return s.MTU == 9000 }},
		{func() error { return p.SetMTU(9000) }, 0, nil},
		{func() error { return p.SetMAC(net.HardwareAddr{2, 0, 0, 0, 8, 8}) }, ChangeMAC, func(s LinkStatus) bool { return s.MAC[5] == 8 }},
		{func() error { return p.SetPromiscuous(true) }, ChangePromiscuous, func(s LinkStatus) bool { return s.Promiscuous }},
		{func() error { return p.SetAllMulticast(true) }, ChangeAllMulticast, func(s LinkStatus) bool { return s.AllMulticast }},
		{p.Stop, ChangeUp | ChangeLink, isUp(false)},
		{func() error { return p.SetCarrier(false) }, ChangeCarrier, func(s LinkStatus) bool { return !s.Carrier }}, // while stopped
		{func() error { return p.SetCarrier(true) }, ChangeCarrier, func(s LinkStatus) bool { return s.Carrier }},
		{func() error { p.setUp(3, RxConfig{}); return nil }, ChangeUp | ChangeLink, isUp(true)},
	} {
		must(t, s.do())
		if s.want != 0 {
			e.expect(s.want, s.after)
		}
	}
	e.quiet()
}

// TestCarrierFlaps: every change of the carrier by SetCarrier is an event, however fast they come.
func TestCarrierFlaps(t *testing.T) {
	p := startPort(t, Config{})
	e := p.listen()
	n := nettest.Scale(200)
	for i := range 2 * n {
		must(t, p.SetCarrier(i%2 != 0))
	}
	for i := range 2 * n {
		e.expect(ChangeCarrier|ChangeLink, func(s LinkStatus) bool { return s.Carrier == (i%2 != 0) && s.Running == s.Carrier })
	}
	e.quiet()
}

// TestFlaps: a burst of 1000 flaps, of which nobody reads until it is over, is 2000 events in their order.
func TestFlaps(t *testing.T) {
	p := startPort(t, Config{})
	e := p.listen()
	n := nettest.Scale(1000)
	for range n {
		must(t, p.conn.SetDown(p.index))
		must(t, p.conn.SetUp(p.index))
	}
	for i := range 2 * n {
		e.expect(ChangeUp|ChangeLink, isUp(i%2 != 0))
	}
	e.quiet()
}

// TestEventsMove: an interface is followed to another namespace, where it may have another index, and back;
// whatever is done to it there is heard of.
func TestEventsMove(t *testing.T) {
	for name, taken := range map[string]bool{"index free": false, "index taken": true} {
		t.Run(name, func(t *testing.T) {
			a, b := newNS(t), newNS(t)
			p := startPortIn(t, a, Config{Name: "mover"})
			if taken {
				if q := openPortIn(t, b, Config{}); q.index != p.index {
					t.Fatalf("the indices are %d and %d: the test does not test", p.index, q.index)
				}
			}
			e := p.listen()
			for round := range 3 {
				for _, to := range []*netns.NS{b, a} {
					must(t, p.conn.SetNetNS(p.index, to.FD()))
					e.expect(ChangeUp|ChangeLink, isUp(false)) // the kernel does that first
					e.expect(ChangeNetNS, func(s LinkStatus) bool { return !s.Up && s.Name == "mover" })
					if info := p.Info(); info.IfIndex != e.last.Index { // by the event alone
						t.Fatalf("the port's index is %d, want %d", info.IfIndex, e.last.Index)
					}
					if moved := e.last.Index != p.index; moved != (taken && round == 0 && to == b) {
						t.Fatalf("index %d became %d", p.index, e.last.Index)
					}
					p.conn, p.index = nettest.Conn(t, to), e.last.Index
					must(t, p.conn.SetUp(p.index))
					e.expect(ChangeUp|ChangeLink, isUp(true))
					must(t, p.conn.SetMTU(p.index, 1400))
					must(t, p.conn.SetMTU(p.index, 1500))
					e.expect(ChangeMTU, func(s LinkStatus) bool { return s.MTU == 1400 })
					e.expect(ChangeMTU, func(s LinkStatus) bool { return s.MTU == 1500 })
					e.quiet()
				}
			}
			if s := p.status(); !reflect.DeepEqual(s, *e.last) {
				t.Errorf("link status is %+v, the last event ended with %+v", s, *e.last)
			}
			must(t, p.conn.Delete(p.index))
			e.expect(ChangeUp|ChangeLink, isUp(false))
			e.expect(ChangeRemoved, func(s LinkStatus) bool { return reflect.DeepEqual(s, LinkStatus{}) })
			e.closed()
		})
	}
}

// TestEventsMoveFast: to and fro faster than the driver can look. There may be fewer events than moves, but
// each begins where the last one ended, and the last says what is.
func TestEventsMoveFast(t *testing.T) {
	a, b := newNS(t), newNS(t)
	p := openPortIn(t, a, Config{})
	q := openPortIn(t, b, Config{}) // has the index there
	e := p.listen()
	name := p.Name()
	must(t, q.conn.SetName(q.index, "other"))
	there := nettest.Conn(t, b)
	for range nettest.Scale(50) {
		link, err := p.conn.LinkByName(name)
		must(t, err)
		must(t, p.conn.SetNetNS(link.Index, b.FD()))
		link, err = there.LinkByName(name)
		must(t, err)
		must(t, there.SetNetNS(link.Index, a.FD()))
	}
	must(t, p.SetTxQueueLen(99))
	for e.last.TxQueueLen != 99 {
		if ev := e.next(); ev.Changed&^(ChangeNetNS|ChangeTxQueueLen) != 0 {
			t.Fatalf("an event of another interface: %+v", ev)
		}
	}
	p.moved(a)
	if s := p.status(); !reflect.DeepEqual(s, *e.last) {
		t.Errorf("link status is %+v, the last event ended with %+v", s, *e.last)
	}
	e.quiet()
}

// TestEventsDelete: the last event says so, at once, without a burst or an operation having looked.
func TestEventsDelete(t *testing.T) {
	eachLife(t, func(t *testing.T, p *port) {
		e := p.listen()
		up := p.Info().Started
		must(t, p.conn.Delete(p.index))
		if up {
			e.expect(ChangeUp|ChangeLink, isUp(false))
		}
		e.expect(ChangeRemoved, func(s LinkStatus) bool { return reflect.DeepEqual(s, LinkStatus{}) })
		wantIs(t, p.Err(), ErrGone)
		e.closed()
		if _, open := <-p.Events().C; open {
			t.Error("an event of a removed interface")
		}
		p.OnEvent(func(Event) { t.Error("a call for a removed interface") })()
		must(t, p.Close())
	})
}

// TestEventsNamespaceGone: watching keeps no namespace alive that the interface was moved to.
func TestEventsNamespaceGone(t *testing.T) {
	for range nettest.Scale(10) {
		p := startPort(t, Config{})
		e := p.listen()
		ns, err := netns.New()
		must(t, err)
		must(t, p.conn.SetNetNS(p.index, ns.FD()))
		e.expect(ChangeUp|ChangeLink, isUp(false))
		e.expect(ChangeNetNS, anything)
		must(t, ns.Close())
		e.expect(ChangeRemoved, func(s LinkStatus) bool { return reflect.DeepEqual(s, LinkStatus{}) })
		wantIs(t, p.Err(), ErrGone)
		e.closed()
		must(t, p.Close())
	}
}

// TestEventsPersistent: also of an interface that was taken over.
func TestEventsPersistent(t *testing.T) {
	ns := newNS(t)
	first := openPortIn(t, ns, Config{Name: "stay", Persist: true})
	must(t, first.Close())
	p := startPortIn(t, ns, Config{Name: "stay"})
	e := p.listen()
	must(t, p.conn.SetMTU(p.index, 1300))
	e.expect(ChangeMTU, func(s LinkStatus) bool { return s.MTU == 1300 })
	must(t, p.conn.Delete(p.index))
	e.expect(ChangeUp|ChangeLink, isUp(false))
	e.expect(ChangeRemoved, anything)
	e.closed()
}

// TestEventsOfOthers: other interfaces, and what a bridge has to say of its port, are nothing to us.
func TestEventsOfOthers(t *testing.T) {
	p := startPort(t, Config{})
	q := openPortIn(t, p.ns, Config{})
	e := p.listen()
	for range 10 {
		must(t, q.conn.SetUp(q.index))
		must(t, q.conn.SetDown(q.index))
	}
	must(t, q.Close())
	e.quiet()
	err := p.ns.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		us, err := netlink.LinkByIndex(p.index)
		if err != nil {
			return err
		}
		for range 3 {
			err = errors.Join(err, netlink.LinkSetMaster(us, bridge), netlink.LinkSetUp(bridge), netlink.LinkSetLearning(us, false),
				netlink.LinkSetLearning(us, true), netlink.LinkSetDown(bridge), netlink.LinkSetNoMaster(us))
		}
		return err
	})
	must(t, err)
	e.quiet()
}

// logbook is a slog.Handler that keeps what is logged, and who logs waits while it is held.
type logbook struct {
	slog.Handler
	lines chan slog.Record
	hold  chan bool // nil, or closed to let go
	mu    sync.Mutex
}

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	l.lines <- r
	if hold != nil {
		<-hold
	}
	return nil
}

// keep has the next to log wait until release is called.
func (l *logbook) keep() (release func()) {
	hold := make(chan bool)
	l.set(hold)
	return func() {
		l.set(nil)
		close(hold)
	}
}

func (l *logbook) set(hold chan bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = hold
}

// next is the next line.
func (l *logbook) next(t *testing.T) slog.Record {
	t.Helper()
	select {
	case r := <-l.lines:
		return r
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("nothing is logged")
		return slog.Record{}
	}
}

func newLogbook() *logbook { return &logbook{lines: make(chan slog.Record, 4096)} }

// TestEventsLogged: each once, and the end of the interface as a warning.
func TestEventsLogged(t *testing.T) {
	log := newLogbook()
	p := startPort(t, Config{Log: slog.New(log)})
	e := p.listen()
	for _, mtu := range []int{1400, 1300} {
		must(t, p.conn.SetMTU(p.index, mtu))
		e.expect(ChangeMTU, anything)
	}
	must(t, p.conn.Delete(p.index))
	e.expect(ChangeUp|ChangeLink, isUp(false))
	e.expect(ChangeRemoved, anything)
	for _, want := range []struct {
		level         slog.Level
		text, changed string
	}{
		{slog.LevelInfo, "port opened", ""}, {slog.LevelInfo, "link changed", "link,up"}, {slog.LevelInfo, "link changed", "mtu"},
		{slog.LevelInfo, "link changed", "mtu"}, {slog.LevelInfo, "link changed", "link,up"}, {slog.LevelWarn, "interface removed", ""},
	} {
		r := log.next(t)
		attrs := map[string]string{}
		r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.String(); return true })
		if r.Level != want.level || r.Message != want.text || attrs["changed"] != want.changed || attrs["interface"] != "rtap0" {
			t.Errorf("logged %v %q %v, want %+v", r.Level, r.Message, attrs, want)
		}
	}
	if len(log.lines) != 0 {
		t.Errorf("%d more lines", len(log.lines))
	}
}

// TestEventsResync: when the kernel drops messages, which is said of the events about then, the last event
// still says what is, and none contradicts another.
func TestEventsResync(t *testing.T) {
	log := newLogbook()
	p := startPort(t, Config{Log: slog.New(log)})
	e := p.listen()
	must(t, p.events.w.SetBuffer(8<<10))
	stall := func() (release func()) {
		e.quiet()
		for len(log.lines) > 0 {
			<-log.lines
		}
		release = log.keep()
		must(t, p.conn.SetTxQueueLen(p.index, 9))
		log.next(t) // there it waits
		return release
	}
	flap := func() {
		for range 100 {
			must(t, p.conn.SetDown(p.index))
			must(t, p.conn.SetUp(p.index))
		}
	}
	for round := range 3 {
		release := stall()
		flap()
		mtu := 1000 + round
		must(t, p.conn.SetMTU(p.index, mtu))
		release()
		e.expect(ChangeTxQueueLen, anything)
		n, resync := 0, 0
		for ; e.last.MTU != mtu; n++ {
			if e.next().Resync {
				resync++
			}
		}
		if resync == 0 || n >= 200 {
			t.Errorf("%d events, %d of them after losses", n, resync)
		}
		e.quiet() // whole again
		if s := p.status(); !reflect.DeepEqual(s, *e.last) {
			t.Errorf("link status is %+v, the last event ended with %+v", s, *e.last)
		}
	}
	// The message of the deletion is lost.
	release := stall()
	flap()
	must(t, p.conn.Delete(p.index))
	release()
	for e.next().Changed&ChangeRemoved == 0 {
	}
	wantIs(t, p.Err(), ErrGone)
	e.closed()
}

// TestMTUFollowed: an MTU that somebody else raises is followed by the Rx slots: longer frames are received.
func TestMTUFollowed(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := startPort(t, Config{Engine: e, Queues: 2})
		ears := p.listen()
		for _, mtu := range []int{9000, 1000, 2000, MaxMTU, DefaultMTU} {
			must(t, p.conn.SetMTU(p.index, mtu))
			ears.expect(ChangeMTU, func(s LinkStatus) bool { return s.MTU == mtu })
			for i := range p.queues() {
				f := flow(i, mtu+14)
				p.send(i, f) // so that the kernel directs the flow to this queue
				p.inject(f)
				if err := sameBytes(p.receive(1)[0].frame, f); err != nil {
					t.Fatalf("MTU %d: %v", mtu, err)
				}
			}
			if s := p.stats(); s.IErrors != 0 {
				t.Fatalf("MTU %d: %+v", mtu, s)
			}
		}
		must(t, p.Stop())
		must(t, p.conn.SetMTU(p.index, 9000))
		must(t, p.Device.Start())
		p.longest(9000)
	})
}

// TestMTUFollowedUp: slots are not made smaller when an MTU is, nor when it grows again to less than they take:
// what waits in them stays there.
func TestMTUFollowedUp(t *testing.T) {
	p := startPort(t, Config{})
	must(t, p.SetMTU(9000))
	e := p.listen()
	window := func() **mbuf.Mbuf {
		p.mu.Lock()
		defer p.mu.Unlock()
		return &p.pairs[0].rx.window[0]
	}
	before := window()
	for _, mtu := range []int{1000, 2000, 8999, DefaultMTU} {
		must(t, p.conn.SetMTU(p.index, mtu))
		e.expect(ChangeMTU, anything)
	}
	if window() != before {
		t.Error("the slots were made anew")
	}
}

// TestFindIsNotFooled: while names change hands, what is found by name may be somebody else.
func TestFindIsNotFooled(t *testing.T) {
	p := openPort(t, Config{Name: "a"})
	q := openPortIn(t, p.ns, Config{Name: "b"})
	w, err := rtnl.Watch(p.ns.FD())
	must(t, err)
	defer w.Close()
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for i, j := p.index, q.index; !done.Load(); i, j = j, i {
			for _, err := range []error{p.conn.SetName(i, "c"), p.conn.SetName(j, "a"), p.conn.SetName(i, "b")} {
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	e := &events{dev: p.Device, keep: p.keep, w: w}
	for range nettest.Scale(300) {
		m, err := e.find()
		if err != nil {
			t.Error(err)
			break
		}
		if m.Link.Index != p.index {
			t.Errorf("found interface %d, want %d", m.Link.Index, p.index)
			break
		}
	}
	done.Store(true)
	wg.Wait()
}

// TestCloseEndsEvents: whoever waits, reads slowly or not at all, Close leaves no goroutine behind and closes
// every channel.
func TestCloseEndsEvents(t *testing.T) {
	ns := newNS(t)
	conn := nettest.Conn(t, ns)
	before := nettest.Leaks()
	d, err := Start(Config{NetNS: nsPath(ns)})
	must(t, err)
	waits, blocked, closed := d.Events(), d.Events(), d.Events()
	closed.Close()
	closed.Close()
	if _, open := <-closed.C; open {
		t.Error("an event after Close")
	}
	entered, leave := make(chan bool, 1), make(chan bool)
	d.OnEvent(func(Event) { entered <- true; <-leave })
	d.OnEvent(func(Event) {})()
	for range 10 {
		must(t, conn.SetDown(d.Info().IfIndex))
		must(t, conn.SetUp(d.Info().IfIndex))
	}
	<-entered
	<-blocked.C
	must(t, d.Close())
	for range 2 {
		for _, s := range []*Subscription{waits, blocked, d.Events()} {
			if _, open := <-s.C; open {
				t.Error("an event after Device.Close")
			}
			s.Close()
		}
	}
	d.OnEvent(func(Event) { t.Error("a call after Device.Close") })()
	close(leave)
	must(t, d.Close())
	before.Check(t)
}

// TestCloseInCallback: a callback may close the device, and itself.
func TestCloseInCallback(t *testing.T) {
	p := startPort(t, Config{})
	done := make(chan error, 1)
	var cancel func()
	var ready sync.WaitGroup
	ready.Add(1)
	cancel = p.OnEvent(func(Event) {
		ready.Wait()
		cancel()
		done <- p.Close()
	})
	ready.Done()
	must(t, p.conn.SetDown(p.index))
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(nettest.Bound(wait)):
		t.Fatal("Close does not return")
	}
}

// TestWatchEndsWhenOpenFails: what Open began to watch with is given back.
func TestWatchEndsWhenOpenFails(t *testing.T) {
	ns := newNS(t)
	p := openPortIn(t, ns, Config{Name: "taken"})
	before := nettest.Leaks()
	d := &Device{cfg: p.cfg}
	d.keep, d.ns = p.keep, p.ns
	var err error
	d.events, err = d.watch()
	must(t, err)
	d.events.stop()
	d.events.stop()
	_, err = Start(Config{Name: "other", NetNS: nsPath(ns), RxRing: 1, Memory: noRoom{}})
	if err == nil {
		t.Error("Start succeeds")
	}
	before.Check(t)
}

// noRoom is memory that no queue takes.
type noRoom struct{ mbuf.Allocator }

func (noRoom) DataRoom() int          { return 1 }
func (noRoom) Headroom() int          { return 0 }
func (noRoom) Regions() []mbuf.Region { return nil }

// TestEventsConcurrently: anybody may subscribe, cancel and close at any time. Each subscription hears a
// sequence without gaps.
func TestEventsConcurrently(t *testing.T) {
	for range nettest.Scale(5) {
		p := startPort(t, Config{})
		var wg sync.WaitGroup
		stop := make(chan bool)
		stopped := func() bool {
			select {
			case <-stop:
				return true
			default:
				return false
			}
		}
		for range 4 {
			wg.Go(func() {
				for !stopped() {
					s := p.Events()
					var last *LinkStatus
					for range 5 {
						ev, ok := <-s.C
						if !ok {
							return
						}
						if last != nil && !reflect.DeepEqual(*last, ev.Before) {
							t.Errorf("an event begins with %+v, the last ended with %+v", ev.Before, *last)
						}
						mine := ev.After
						mine.MAC = slices.Clone(mine.MAC)
						last = &mine
						ev.Before.MAC[0], ev.After.MAC[0] = 0xee, 0xee // they are ours
					}
					s.Close()
				}
			})
			wg.Go(func() {
				for !stopped() {
					calls := make(chan bool)
					cancel := p.OnEvent(func(Event) {
						select {
						case calls <- true:
						case <-stop:
						}
					})
					select {
					case <-calls:
					case <-stop:
					}
					cancel()
				}
			})
		}
		wg.Go(func() {
			for i := 0; !stopped(); i++ {
				_ = p.conn.SetMTU(p.index, 1000+i%500)
			}
		})
		for range nettest.Scale(50) {
			must(t, p.SetCarrier(false))
			must(t, p.SetCarrier(true))
		}
		must(t, p.Close())
		close(stop)
		wg.Wait()
	}
}

func TestChangeString(t *testing.T) {
	for c, want := range map[Change]string{
		0: "", ChangeLink | ChangeUp: "link,up", ChangeMTU: "mtu", ChangeNetNS | ChangeName: "name,netns", ChangeRemoved: "removed",
		1<<32 - 1: "link,up,carrier,mtu,mac,name,netns,txqueuelen,promiscuous,allmulticast,removed",
	} {
		if c.String() != want {
			t.Errorf("%d is %q, want %q", c, c, want)
		}
	}
}
