// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/bench/internal/course"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/packetio"
)

const (
	ifName  = "plain0"
	batch   = 64
	waiting = 960 // packets that wait when reading begins: the kernel keeps 1000
	room    = 2048
)

// contestNames: write sends packets; read fetches what waits; echo writes what it has read.
var contestNames = []string{"write", "read", "echo"}

// packets is what a rival offers. bufs have room for what is read; both return how many packets it was.
type packets interface {
	read(bufs [][]byte) (int, error)
	write(packets [][]byte) (int, error)
	Close() error
}

// rival is a way of reading and writing.
type rival struct {
	name string
	goal bool
	open func(mode rtap.Mode) (packets, error)
}

// rivals take turns in this order. The last is a program that changed the line in which it opens the interface, and no more.
var rivals = []rival{
	{name: "water", open: openWater},
	{name: "packetio", goal: true, open: openPlain},
	{name: "packetio, one by one", open: func(mode rtap.Mode) (packets, error) {
		c, err := packetio.Open(rtap.Config{Name: ifName, Mode: mode})
		return &single{c}, err
	}},
}

// single is an io.ReadWriteCloser, a packet each.
type single struct{ io.ReadWriteCloser }

func (s *single) read(bufs [][]byte) (int, error) {
	n, err := s.Read(bufs[0][:cap(bufs[0])])
	bufs[0] = bufs[0][:n]
	return 1, err
}

func (s *single) write(packets [][]byte) (int, error) {
	for i, p := range packets {
		if _, err := s.Write(p); err != nil {
			return i, err
		}
	}
	return len(packets), nil
}

func openWater(mode rtap.Mode) (packets, error) {
	kind := water.DeviceType(water.TAP)
	if mode == rtap.ModeTUN {
		kind = water.TUN
	}
	i, err := water.New(water.Config{DeviceType: kind, PlatformSpecificParams: water.PlatformSpecificParams{Name: ifName}})
	if err != nil {
		return nil, err
	}
	return &single{i}, nil
}

// plain is packetio's packets, many at a time.
type plain struct{ *packetio.Conn }

func openPlain(mode rtap.Mode) (packets, error) {
	c, err := packetio.Open(rtap.Config{Name: ifName, Mode: mode})
	return plain{c}, err
}

func (p plain) read(bufs [][]byte) (int, error)     { return p.ReadPackets(bufs) }
func (p plain) write(packets [][]byte) (int, error) { return p.WritePackets(packets) }

// field is where a rival runs.
type field struct {
	packets
	inj    *traffic.Injector
	packet []byte
	sent   [][]byte // a batch of it
	bufs   [][]byte
}

// measure has a rival run once, and returns what a packet cost in ns.
func measure(r rival, mode rtap.Mode, contest string, o *options) (ns float64, err error) {
	space, err := course.NewNS()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, space.Close()) }()
	f := &field{packet: packet(mode, o.size), bufs: packetio.Buffers(batch, room)}
	for range batch {
		f.sent = append(f.sent, f.packet)
	}
	if err := space.Do(func() (err error) { f.packets, err = r.open(mode); return err }); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.up(space); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.inj.Close()) }()
	round := map[string]func() (int, error){"write": f.sendAll, "read": f.readAll, "echo": f.echoAll}[contest]
	now := wall
	if o.cpu {
		now = cpu
	}
	return f.repeat(round, contest != "write", o.time, now)
}

// up sets the interface up, for water does not, and opens the way to it.
func (f *field) up(space *netns.NS) error {
	conn, err := rtnl.Dial(space.FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	link, err := conn.LinkByName(ifName)
	if err != nil {
		return err
	}
	if err := errors.Join(conn.SetUp(link.Index), conn.SetTxQueueLen(link.Index, rtap.DefaultTxQueueLen)); err != nil {
		return err
	}
	f.inj, err = traffic.NewInjector(space, link.Index)
	return err
}

// repeat runs rounds for so long, and counts the time that they take, not what fills the queue in between.
func (f *field) repeat(round func() (int, error), fill bool, length time.Duration, now func() time.Duration) (float64, error) {
	n, spent := 0, time.Duration(0)
	for end := time.Now().Add(length); time.Now().Before(end); {
		for range waiting {
			if !fill {
				break
			}
			if err := f.inj.Inject(f.packet); err != nil {
				return 0, err
			}
		}
		begin := now()
		k, err := round()
		spent += now() - begin
		if err != nil {
			return 0, err
		}
		n += k
	}
	return float64(spent.Nanoseconds()) / float64(n), nil
}

var started = time.Now()

// wall is the time, and cpu that of this process.
func wall() time.Duration { return time.Since(started) }

func cpu() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // fails for no clock that is there
	return time.Duration(t.Nano())
}

func (f *field) sendAll() (int, error) {
	for range waiting / batch {
		if _, err := f.write(f.sent); err != nil {
			return 0, err
		}
	}
	return waiting, nil
}

func (f *field) readAll() (int, error) {
	return f.drain(func([][]byte) error { return nil })
}

func (f *field) echoAll() (int, error) {
	return f.drain(func(packets [][]byte) error { _, err := f.write(packets); return err })
}

// drain reads what waits.
func (f *field) drain(then func(packets [][]byte) error) (int, error) {
	for got := 0; got < waiting; {
		n, err := f.read(f.bufs)
		if err != nil {
			return 0, err
		}
		if len(f.bufs[0]) != len(f.packet) {
			return 0, fmt.Errorf("a packet of %d bytes came, want %d", len(f.bufs[0]), len(f.packet))
		}
		if err := then(f.bufs[:n]); err != nil {
			return 0, err
		}
		got += n
	}
	return waiting, nil
}

// packet is an Ethernet frame that the kernel has no use for, or an IPv4 packet.
func packet(mode rtap.Mode, size int) []byte {
	p := make([]byte, size)
	if mode == rtap.ModeTUN {
		copy(p, []byte{0x45, 0, byte(size >> 8), byte(size), 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2})
	} else {
		copy(p, []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xb5})
	}
	return p
}
