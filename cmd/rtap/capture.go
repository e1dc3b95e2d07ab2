// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/runtimedir"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/telemetry"
)

// captureOptions are the flags of rtap capture.
type captureOptions struct {
	prefix, file   string
	port, queue    int
	count, snapLen int
	duration       seconds
}

const captureIntro = `Writes what a port of a running rtap run receives and sends to a file, as libpcap has
them (pcap, nanoseconds), until --count, --duration, SIGINT (Ctrl-C) or SIGTERM. It is
a process of its own (DPDK's dumpcap): forwarding never waits for it. What is lost
because it does not keep up it counts, and says at the end.
`

const captureMore = `Packets are those that the workers of rtap run receive and that their Tx queues take,
also those of secondaries with a --proc-id that the primary's --num-procs knows. Each
is as the program has it: one that LRO merged, or that is to be cut on sending, is one
packet, its checksums may be missing, and a VLAN tag that was stripped is not in it.
Of a TUN (mode=tun) packets begin with their IP header, and the file says so (LINKTYPE_RAW).
Times are of when the worker copied it; between processes they may be out of order.
One process at a time captures a port.

Examples:
  rtap capture -w foo0.pcap
  rtap capture --port=1 --duration=10 -w - | tcpdump -n -r -
  rtap capture --file-prefix=blue --queue=0 --snaplen=96 --count=1000 -w blue.pcap

If the primary ends meanwhile, what was captured is in the file, and the exit code is 1.
`

func captureVerb(ctx context.Context, st streams, args []string) error {
	var o captureOptions
	f := newFlags("capture", captureIntro, captureMore)
	f.StringVar(&o.prefix, "file-prefix", telemetry.DefaultFilePrefix, "NAME: which rtap, as it says when it starts")
	f.IntVar(&o.port, "port", 0, "N: number of the port, as rtap ports has it (default 0)")
	f.IntVar(&o.queue, "queue", -1, "N: only packets of this queue pair, -1: of all")
	f.StringVar(&o.file, "w", "-", "FILE: where to, -: standard output")
	f.IntVar(&o.count, "count", 0, "PACKETS: end after so many, 0: no limit")
	f.Var(&o.duration, "duration", "SECONDS: end after so long, 0: no limit")
	f.IntVar(&o.snapLen, "snaplen", defaultSnapLen, "BYTES: of each packet, at most")
	if err := f.parse(args, st.out); err != nil {
		return err
	}
	if err := o.check(f, st.out); err != nil {
		return err
	}
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.duration))
		defer cancel()
	}
	c, err := o.open()
	if err != nil {
		return err
	}
	err = o.write(ctx, st, c)
	return errors.Join(err, c.dev.Close())
}

func (o *captureOptions) check(f *flags, out io.Writer) error {
	if err := runtimedir.CheckPrefix(o.prefix); err != nil {
		return f.usage("--file-prefix: %v", err)
	}
	for _, n := range []struct {
		name      string
		v, lo, hi int
	}{
		{"port", o.port, 0, maxPorts - 1}, {"queue", o.queue, -1, rtap.MaxQueues - 1},
		{"count", o.count, 0, 1<<31 - 1}, {"snaplen", o.snapLen, 1, maxSnapLen},
	} {
		if err := f.inRange(n.name, n.v, n.lo, n.hi); err != nil {
			return err
		}
	}
	if newDisplay(out).terminal != nil && o.file == "-" {
		return f.usage("standard output is a terminal: give -w FILE, or | tcpdump -n -r -")
	}
	return nil
}

// capture is the reading end of a port's rings.
type capture struct {
	dev   *rtap.Device
	rings []*captureSource
	since int64 // nanoseconds of Unix time: what is older is of an earlier capture
	bufs  []*mbuf.Mbuf

	packets, dropped uint64
}

// captureSource is the ring of one process.
type captureSource struct {
	ring *mbuf.Consumer
	seen bool
	last uint64 // captureRecord.dropped
}

// open attaches to the port, and has its packets captured from now on.
func (o *captureOptions) open() (*capture, error) {
	dev, err := rtap.AttachWith(rtap.AttachConfig{FilePrefix: o.prefix, Port: uint16(o.port), Name: "rtap capture"})
	if err != nil {
		return nil, err
	}
	c := &capture{dev: dev, since: time.Now().UnixNano(), bufs: make([]*mbuf.Mbuf, 64)}
	for id := 0; ; id++ {
		ring, err := dev.Consumer(captureRing(id))
		if errors.Is(err, rtap.ErrNoRing) && id > 0 {
			return c, nil
		}
		if err != nil {
			return nil, errors.Join(err, dev.Close())
		}
		c.rings = append(c.rings, &captureSource{ring: ring})
	}
}

// write writes the file.
func (o *captureOptions) write(ctx context.Context, st streams, c *capture) (err error) {
	to := st.out
	if o.file != "-" {
		file, err := os.Create(o.file)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		to = file
	}
	info := c.dev.Info()
	linkType := uint32(pcapEthernet)
	if info.Mode == rtap.ModeTUN {
		linkType = pcapRaw
	}
	w, err := newPcap(to, o.snapLen, linkType)
	if err == nil {
		err = w.Flush() // a reader may wait for it
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(st.err, "Capturing port %d, interface %s, %s\n", o.port, info.Name, plural(info.RxQueues, "queue pair"))
	err = errors.Join(o.copy(ctx, w, c), w.Flush())
	fmt.Fprintf(st.err, "%s captured, %d dropped\n", plural(int(c.packets), "packet"), c.dropped)
	return err
}

// captureSpin is for how long an empty ring is looked at before the next look is a sleep away.
const captureSpin = 200 * time.Microsecond

// copy copies packets from the rings to the file until it is time to end.
func (o *captureOptions) copy(ctx context.Context, w *pcapWriter, c *capture) error {
	idle := time.Now()
	for {
		n, err := o.round(w, c)
		switch {
		case err != nil:
			return err
		case o.done(c):
			return nil
		case ctx.Err() != nil:
			return o.rest(w, c)
		case c.dev.Err() != nil:
			return fmt.Errorf("port %d of file prefix %s: %w", o.port, o.prefix, c.dev.Err())
		case n > 0:
			idle = time.Now()
		case time.Since(idle) < captureSpin:
			runtime.Gosched()
		default:
			if err := w.Flush(); err != nil {
				return err
			}
			pause(ctx, time.Millisecond)
		}
	}
}

// rest copies what is in the rings already.
func (o *captureOptions) rest(w *pcapWriter, c *capture) error {
	for range captureRingSize / len(c.bufs) { // there may always be more
		if n, err := o.round(w, c); n == 0 || err != nil || o.done(c) {
			return err
		}
	}
	return nil
}

func (o *captureOptions) done(c *capture) bool { return o.count > 0 && c.packets >= uint64(o.count) }

// round takes a burst from each ring, and returns how many packets there were.
func (o *captureOptions) round(w *pcapWriter, c *capture) (found int, err error) {
	for _, s := range c.rings {
		n := s.ring.Dequeue(c.bufs)
		found += n
		for _, m := range c.bufs[:n] {
			if err == nil {
				err = o.packet(w, c, s, m)
			}
		}
		mbuf.FreeBulk(c.bufs[:n])
	}
	return found, err
}

// packet writes one packet if it is wanted.
func (o *captureOptions) packet(w *pcapWriter, c *capture, s *captureSource, m *mbuf.Mbuf) error {
	r, ok := takeCaptureRecord(m)
	if !ok || r.at < c.since {
		return nil
	}
	if !s.seen {
		s.seen, s.last = true, r.dropped
	}
	if r.dropped > s.last { // workers that race may bring them in another order
		c.dropped += r.dropped - s.last
		s.last = r.dropped
	}
	if o.done(c) || o.queue >= 0 && int(r.queue) != o.queue {
		return nil
	}
	c.packets++
	return w.packet(r.at, int(r.length), m)
}
