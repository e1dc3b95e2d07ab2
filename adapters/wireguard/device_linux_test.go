// SPDX-License-Identifier: BSD-3-Clause

package wireguard

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/header"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/rtnl"
)

const offset = 16 // device.MessageTransportHeaderSize

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// opened is a device in a namespace of its own, in which the kernel sends nothing of its own accord.
type opened struct {
	*Device
	ns    *netns.NS
	conn  *rtnl.Conn
	index int
	t     testing.TB
}

func open(t testing.TB, cfg rtap.Config) *opened {
	t.Helper()
	nettest.NeedTun(t)
	o := &opened{ns: nettest.QuietNS(t), t: t}
	o.conn = nettest.Conn(t, o.ns)
	cfg.Name = "wg0"
	must(t, o.ns.Do(func() (err error) { o.Device, err = New(cfg); return err }))
	t.Cleanup(func() { must(t, o.Close()) })
	link, err := o.conn.LinkByName("wg0")
	must(t, err)
	o.index = link.Index
	return o
}

var local, remote = netip.MustParsePrefix("10.0.0.2/24"), netip.MustParseAddr("10.0.0.1") // as fields have them

// up gives the interface an address and brings it up.
func (o *opened) up() {
	o.t.Helper()
	must(o.t, o.conn.AddAddr(o.index, local))
	must(o.t, o.conn.SetUp(o.index))
}

// next is the next event, within bounds; 0 if the channel is closed.
func (o *opened) next() tun.Event {
	o.t.Helper()
	select {
	case e := <-o.Events():
		return e
	case <-time.After(nettest.Bound(10 * time.Second)):
		o.t.Fatal("no event")
		return 0
	}
}

func buffers(n, size int) (bufs [][]byte, sizes []int) {
	bufs, sizes = make([][]byte, n), make([]int, n)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	return bufs, sizes
}

func TestDrop(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	var d tun.Device
	must(t, ns.Do(func() (err error) { d, err = CreateTUN("wg%d", 1380); return err }))
	defer func() { must(t, d.Close()) }()
	name, err := d.Name()
	must(t, err)
	mtu, err := d.MTU()
	must(t, err)
	link, err := nettest.Conn(t, ns).LinkByName("wg0")
	must(t, err)
	if name != "wg0" || mtu != 1380 || link.MTU != 1380 || link.Up || d.BatchSize() != 128 {
		t.Errorf("%s, MTU %d, %+v, batches of %d", name, mtu, link, d.BatchSize())
	}
	if d, err := CreateTUN("a name that is too long", 1380); err == nil || d != nil {
		t.Errorf("%v, %v", d, err)
	}
}

// TestEvents: what others do to the interface, in order, and nothing else.
func TestEvents(t *testing.T) {
	o := open(t, rtap.Config{MTU: 1400})
	for _, step := range []struct {
		do   func(int) error
		want tun.Event
	}{
		{o.conn.SetUp, tun.EventUp},
		{func(i int) error { return o.conn.SetMTU(i, 1300) }, tun.EventMTUUpdate},
		{o.conn.SetDown, tun.EventDown},
		{func(i int) error { return o.conn.SetName(i, "wg1") }, 0},
		{func(i int) error { return o.conn.SetMTU(i, 1380) }, tun.EventMTUUpdate},
		{o.conn.SetUp, tun.EventUp},
		{o.conn.Delete, tun.EventDown},
	} {
		must(t, step.do(o.index))
		if step.want == 0 {
			continue
		}
		if got := o.next(); got != step.want {
			t.Fatalf("event %d, want %d", got, step.want)
		}
		if mtu, err := o.MTU(); step.want == tun.EventMTUUpdate && (err != nil || mtu != 1300 && mtu != 1380) {
			t.Errorf("MTU %d, %v", mtu, err)
		}
	}
	must(t, o.Close())
	if e, ok := <-o.Events(); ok {
		t.Errorf("event %d, want the channel closed", e)
	}
}

// TestEventsUnread: nobody listens, and Close does not wait.
func TestEventsUnread(t *testing.T) {
	o := open(t, rtap.Config{})
	for range 20 {
		must(t, o.conn.SetUp(o.index))
		must(t, o.conn.SetDown(o.index))
	}
	must(t, o.Close())
}

// TestUpBefore: a persistent interface that is up is said to be.
func TestUpBefore(t *testing.T) {
	o := open(t, rtap.Config{Persist: true})
	must(t, o.Close())
	must(t, o.conn.SetUp(o.index))
	var d *Device
	must(t, o.ns.Do(func() (err error) { d, err = New(rtap.Config{Name: "wg0"}); return err }))
	o.Device = d // closed at the end of the test
	if e := o.next(); e != tun.EventUp {
		t.Errorf("event %d", e)
	}
	must(t, d.Close())
	must(t, o.conn.Delete(o.index))
}

// ended runs f, which must end within bounds.
func ended(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(nettest.Bound(10 * time.Second)):
		t.Fatal(what + " does not end")
	}
}

// TestEnd: a Read that waits and Writes that come again and again end with os.ErrClosed, whether the device is closed, by
// several at once, or the interface is deleted.
func TestEnd(t *testing.T) {
	for _, engine := range []rtap.Engine{rtap.EngineUring, rtap.EngineSyscall} {
		if engine == rtap.EngineUring && nettest.UringForbidden() {
			continue
		}
		for name, end := range map[string]func(o *opened){
			"closed": func(o *opened) {
				var all sync.WaitGroup
				for range 3 {
					all.Go(func() {
						if err := o.Close(); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
			},
			"deleted": func(o *opened) { must(t, o.conn.Delete(o.index)) },
		} {
			t.Run(string(engine)+" "+name, func(t *testing.T) {
				o := open(t, rtap.Config{Engine: engine})
				o.up()
				var all sync.WaitGroup
				var errs [3]error
				for i := range errs {
					all.Go(func() {
						bufs, sizes := buffers(4, 2000)
						packet := stream(false, false, 1, nil)[0].build()
						copy(bufs[0][offset:], packet)
						for errs[i] == nil {
							if i == 0 {
								_, errs[i] = o.Read(bufs, sizes, offset)
							} else {
								_, errs[i] = o.Write([][]byte{bufs[0][:offset+len(packet)]}, offset)
							}
						}
					})
				}
				// Each has been there.
				nettest.Eventually(t, 10*time.Second, "packets written", func() bool {
					s, err := o.Port().Stats()
					return err == nil && s.OPackets > 100
				})
				ended(t, "end", func() { end(o) })
				ended(t, "reading and writing", all.Wait)
				for i, err := range errs {
					if !errors.Is(err, os.ErrClosed) || (name == "deleted") != errors.Is(err, rtap.ErrGone) {
						t.Errorf("%d: %v", i, err)
					}
				}
				must(t, o.Close())
				bufs, sizes := buffers(1, 2000)
				if _, err := o.Read(bufs, sizes, offset); !errors.Is(err, os.ErrClosed) {
					t.Errorf("Read after Close: %v", err)
				}
				if _, err := o.Write(bufs, offset); !errors.Is(err, os.ErrClosed) {
					t.Errorf("Write after Close: %v", err)
				}
			})
		}
	}
}

// TestCloseWithPackets: what was received and not read is given back.
func TestCloseWithPackets(t *testing.T) {
	o := open(t, rtap.Config{})
	o.up()
	o.sender(64).send(640, 100)
	bufs, sizes := buffers(1, 2000)
	if n, err := o.Read(bufs, sizes, offset); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	must(t, o.Close())
}

// fileName asks a descriptor for its interface's name.
func fileName(t testing.TB, fd uintptr) string {
	t.Helper()
	ifr, err := unix.NewIfreq("")
	must(t, err)
	must(t, unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr))
	if ifr.Uint16()&unix.IFF_TUN == 0 {
		t.Errorf("flags %#x", ifr.Uint16())
	}
	return ifr.Name()
}

// TestFile: it says what the interface is, takes no packets, is closed with the device, and a duplicate, as another process may
// have it, holds the interface.
func TestFile(t *testing.T) {
	o := open(t, rtap.Config{})
	f := o.File()
	if f != o.File() {
		t.Error("each call gives another file")
	}
	must(t, o.conn.SetName(o.index, "wg1"))
	if name := fileName(t, f.Fd()); name != "wg1" {
		t.Errorf("name is %q", name)
	}
	o.up()
	s := o.sender(1)
	bufs, sizes := buffers(1, 2000)
	for range 5 {
		s.send(1, 100)
		if n, err := unix.Read(int(f.Fd()), make([]byte, 2000)); err != unix.EAGAIN {
			t.Fatalf("%d bytes are read from the file, %v", n, err)
		}
		if n, err := o.Read(bufs, sizes, offset); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	other, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	err = o.Close()
	link, linkErr := o.conn.LinkByName("wg1")
	name := fileName(t, uintptr(other))
	must(t, unix.Close(other))
	if err != nil || linkErr != nil || link.Index != o.index || name != "wg1" {
		t.Errorf("Close: %v; then %q, %+v, %v", err, name, link, linkErr)
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close the file is open: %v", err)
	}
	if link, err := o.conn.LinkByName("wg1"); !errors.Is(err, rtnl.ErrNotFound) {
		t.Errorf("%+v, %v, want it gone", link, err)
	}
}

// TestHandedOn: the interface and its addresses stay when a device ends, for another one that is made of it by name.
func TestHandedOn(t *testing.T) {
	o := open(t, rtap.Config{Persist: true})
	o.up()
	must(t, o.Close())
	d := o.Device
	must(t, o.ns.Do(func() (err error) { d, err = New(rtap.Config{Name: "wg0"}); return err }))
	o.Device = d // closed at the end of the test
	must(t, o.conn.SetUp(o.index))
	o.sender(1).send(1, 100)
	bufs, sizes := buffers(1, 2000)
	if n, err := o.Read(bufs, sizes, offset); n != 1 || err != nil {
		t.Error(n, err)
	}
	must(t, o.Close())
	must(t, o.conn.Delete(o.index))
}

// sender is a UDP socket of the kernel's, whose datagrams go out of the interface.
type sender struct {
	t        testing.TB
	fd       int
	segments int // datagrams in one system call, which the kernel leaves in one
	next     uint32
}

func (o *opened) sender(segments int) *sender {
	o.t.Helper()
	s := &sender{t: o.t, fd: -1, segments: segments}
	must(o.t, o.ns.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	o.t.Cleanup(func() { unix.Close(s.fd) })
	must(o.t, unix.Connect(s.fd, &unix.SockaddrInet4{Port: 9, Addr: remote.As4()}))
	return s
}

// send sends so many datagrams of so many bytes, numbered.
func (s *sender) send(count, size int) {
	s.t.Helper()
	if s.segments > 1 {
		must(s.t, unix.SetsockoptInt(s.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size))
	}
	for count > 0 {
		n := min(s.segments, count)
		b := make([]byte, n*size)
		for i := range n {
			be.PutUint32(b[i*size:], s.next)
			s.next++
		}
		_, err := unix.Write(s.fd, b)
		must(s.t, err)
		count -= n
	}
}

// TestRead: whatever the kernel has made of datagrams, and however many buffers there are, they come one by one, in order, as on
// a wire.
func TestRead(t *testing.T) {
	o := open(t, rtap.Config{})
	o.up()
	uso := o.Port().Info().RxOffloads&rtap.RxOffloadUDPLRO != 0
	for _, places := range []int{1, 7, 128, 200} {
		for _, segments := range []int{1, 2, 64} {
			s := o.sender(segments)
			if segments > 1 && !uso {
				t.Log("this kernel cuts UDP itself")
			}
			const count, size = 300, 200
			s.send(count, size)
			bufs, sizes := buffers(places, 2000)
			for at := uint32(0); at < count; {
				n, err := o.Read(bufs, sizes, offset)
				must(t, err)
				if n == 0 || n > places {
					t.Fatalf("%d packets in %d places", n, places)
				}
				for i := range n {
					b := bufs[i][offset : offset+sizes[i]]
					l := header.ParseIP(b)
					if len(b) != 28+size || header.IPLength(b) != len(b) || l.L3 != 20 || header.Sum(b[:20]) != 0xffff {
						t.Fatalf("%d places, %d in one: packet %d is %x", places, segments, at, b)
					}
					if sum := header.Add(header.PseudoSum(b, 17, len(b)-20), header.Sum(b[20:])); sum != 0xffff || be.Uint16(b[24:]) != size+8 {
						t.Fatalf("%d places, %d in one: UDP packet %d is %x, sum %#x", places, segments, at, b, sum)
					}
					if got := be.Uint32(b[28:]); got != at {
						t.Fatalf("%d places, %d in one: packet %d, want %d", places, segments, got, at)
					}
					at++
				}
			}
			if n := o.reader.cutter.Stats().Frames; uso && (n != 0) != (segments > 1) && places == 1 && segments < 64 {
				t.Errorf("%d frames cut, with %d datagrams in one", n, segments)
			}
		}
	}
	if n, err := o.Read(nil, nil, 0); n != 0 || err != nil {
		t.Errorf("without buffers: %d, %v", n, err)
	}
}

// TestReadWithoutDescriptors: a process that has none left reads on.
func TestReadWithoutDescriptors(t *testing.T) {
	o := open(t, rtap.Config{})
	o.up()
	s := o.sender(1)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 0
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	bufs, sizes := buffers(1, 2000)
	var n int
	var err error
	done := make(chan struct{})
	go func() { defer close(done); n, err = o.Read(bufs, sizes, offset) }()
	var inside, over bool
	for !inside && !over { // then it waits, or is about to
		if inside = !o.reader.mu.TryLock(); !inside {
			o.reader.mu.Unlock()
		}
		select {
		case <-done:
			over = true
		case <-time.After(time.Millisecond):
		}
	}
	s.send(1, 100)
	ended(t, "Read", func() { <-done })
	if n != 1 || err != nil {
		t.Error(n, err)
	}
}

// TestLease: nobody takes the queue away.
func TestLease(t *testing.T) {
	prefix := rtap.AttachConfig{FilePrefix: "wireguard", RuntimeDir: t.TempDir()}
	o := open(t, rtap.Config{FilePrefix: prefix.FilePrefix, RuntimeDir: prefix.RuntimeDir})
	other, err := rtap.AttachWith(prefix)
	must(t, err)
	defer func() { must(t, other.Close()) }()
	if _, err := other.Link(); err != nil {
		t.Error(err)
	}
	if err := other.Lease(0); !errors.Is(err, rtap.ErrLeaseDenied) {
		t.Errorf("Lease: %v", err)
	}
	o.up()
	o.sender(1).send(1, 100)
	bufs, sizes := buffers(1, 2000)
	if n, err := o.Read(bufs, sizes, offset); n != 1 || err != nil {
		t.Error(n, err)
	}
}

// TestReadShort: a packet that its buffer is too short for is lost, and no other.
func TestReadShort(t *testing.T) {
	o := open(t, rtap.Config{})
	o.up()
	s := o.sender(1)
	s.send(1, 1000)
	s.send(1, 100)
	bufs, sizes := buffers(1, 500)
	if n, err := o.Read(bufs, sizes, offset); n != 1 || err != nil || sizes[0] != 128 {
		t.Errorf("%d packets, %v, %v", n, sizes, err)
	}
}

// TestWrite: what is written arrives at a socket of the kernel's, in order, in few frames.
func TestWrite(t *testing.T) {
	o := open(t, rtap.Config{})
	o.up()
	s := o.sender(1)
	must(t, unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
	must(t, unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	here, err := unix.Getsockname(s.fd)
	must(t, err)
	var bufs [][]byte
	const count = 300 // more than a batch
	for i := range count {
		f := stream(false, false, 1, nil)[0]
		f.port, f.id, f.seq = uint16(here.(*unix.SockaddrInet4).Port), uint16(i), uint32(i)
		b := f.build()
		be.PutUint16(b[20:], 9) // whom the socket is connected to
		be.PutUint16(b[26:], header.Add(be.Uint16(b[26:]), ^uint16(8)))
		bufs = append(bufs, append(make([]byte, offset), b...))
	}
	n, err := o.Write(bufs, offset)
	if n != count || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, 2000)
	for i := range count {
		n, err := unix.Read(s.fd, got)
		if err != nil || n != 100 || got[1] != 1^byte(i) {
			t.Fatalf("datagram %d: %d bytes, %v, %x", i, n, err, got[:max(n, 0)])
		}
	}
	stats, err := o.Port().Stats()
	must(t, err)
	want := uint64(count/64 + 3) // three batches, frames of 64 datagrams
	if o.Port().Info().TxOffloads&rtap.TxOffloadUDPTSO == 0 {
		want = count
	}
	if stats.OPackets > want || stats.OErrors != 0 {
		t.Errorf("%+v, want at most %d packets", stats, want)
	}
}

// TestWriteDown: while the interface is down packets are lost, without an error, and counted; then they go again.
func TestWriteDown(t *testing.T) {
	o := open(t, rtap.Config{})
	packet := append(make([]byte, offset), stream(false, false, 1, nil)[0].build()...)
	for up := range 2 {
		if n, err := o.Write([][]byte{packet}, offset); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		if s, err := o.Port().Stats(); err != nil || s.OErrors != 1 || s.OPackets != uint64(up) {
			t.Errorf("%+v, %v", s, err)
		}
		if up == 0 {
			o.up()
		}
	}
}

func TestDoesNotAllocate(t *testing.T) {
	o := open(t, rtap.Config{})
	o.up()
	s := o.sender(1)
	datagram := make([]byte, 100)
	bufs, sizes := buffers(128, 2000)
	read := func() {
		if _, err := unix.Write(s.fd, datagram); err != nil {
			t.Fatal(err)
		}
		if n, err := o.Read(bufs, sizes, offset); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	var packets [][]byte
	for _, f := range stream(false, true, 40, nil) {
		packets = append(packets, append(make([]byte, offset), f.build()...))
	}
	write := func() {
		if n, err := o.Write(packets, offset); n != 40 || err != nil {
			t.Fatal(n, err)
		}
	}
	for _, c := range []struct {
		name string
		f    func()
	}{{"Read", read}, {"Write", write}} { // in this order: the kernel answers what is written
		if n := nettest.Allocs(nettest.Scale(200), c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}
