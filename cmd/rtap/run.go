// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/forward"
	"github.com/rtap-project/rtap/mbuf"
)

// runOptions are the flags of rtap run, as they were given.
type runOptions struct {
	vdevs, peers          list
	mode, topology        string
	rxq, txq              int
	burst, cores          int
	txpkts                ints
	engine                string
	statsPeriod, duration seconds
	json                  bool
	http                  httpAddr
	offloads              offloadOptions
	procs                 procOptions
	log                   logOptions
	telemetry             telemetryOptions
	session               sessionConfig
}

const runIntro = `Opens ports, forwards packets between them, and prints their statistics. The flags
have testpmd's names. It ends with --duration, SIGINT (Ctrl-C) or SIGTERM; the
interfaces go with it, unless they are persistent. An interface may be renamed or
moved to another network namespace meanwhile. If one is deleted, the other ports go
on, and the exit code is 1.
`

func runMore() string {
	var b strings.Builder
	b.WriteString("Forwarding modes:\n")
	for _, m := range forward.Modes() {
		fmt.Fprintf(&b, "  %-10s %s\n", m.Name, m.Help)
	}
	b.WriteString(offloadsText())
	b.WriteString(procsHelp)
	b.WriteString(`
A port is described by DPDK's device arguments: net_rtap and a number, then, after
commas,
  iface=NAME         the interface, at most 15 bytes; %d in it is the first free number (rtap%d)
  persist            it stays when rtap ends; an existing TAP or TUN of that name is taken over
  mtu=BYTES          68 to 65521, of a TUN to 65535
  mode=NAME          tap: Ethernet frames; tun: IP packets, no MAC addresses (tap)
  mac=ADDRESS        such as 02:00:00:00:00:01
  txqlen=PACKETS     how many wait in the kernel for each Rx queue before it drops (1000)
  netns=PATH         the namespace to create it in, such as /run/netns/blue
  engine=NAME        auto, uring or syscall, for this port
  no-carrier         it starts with the cable unplugged
  queues=N           queue pairs of this port, instead of --rxq and --txq

Examples:
  A host that answers ping (then: ip addr add 10.0.0.1/24 dev foo0; ping 10.0.0.2):
    rtap run --vdev=net_rtap0,iface=foo0 --forward-mode=icmpecho
  A cable between two interfaces, four queues each, two cores:
    rtap run --vdev=net_rtap0,iface=foo0 --vdev=net_rtap1,iface=foo1 --rxq=4 --txq=4 --nb-cores=2
  The same for large frames, five times as fast for TCP:
    rtap run --vdev=net_rtap0,iface=foo0 --vdev=net_rtap1,iface=foo1 --offloads=all
  The same at layer 3, between two TUNs:
    rtap run --vdev=net_rtap0,iface=foo0,mode=tun --vdev=net_rtap1,iface=foo1,mode=tun --offloads=all
  The same by testpmd's names, in mbufs of 2 KB:
    rtap run --vdev=net_rtap0,iface=foo0 --vdev=net_rtap1,iface=foo1 --enable-lro --enable-scatter
  A page at http://127.0.0.1:9100/ and metrics for Prometheus at /metrics:
    rtap run --vdev=net_rtap0,iface=foo0 --forward-mode=icmpecho --http=:9100
  Ports of two queues each, and two processes with a queue each, in two terminals:
    rtap run --vdev=net_rtap0,iface=foo0 --vdev=net_rtap1,iface=foo1 --rxq=2 --num-procs=2 --proc-id=0
    rtap run --proc-type=secondary --num-procs=2 --proc-id=1
  What goes on at the ports of a running rtap, every second:
    rtap run --proc-type=secondary --stats-period=1
  Send for ten seconds, packets of 1000 bytes in two segments, and report as JSON:
    rtap run --vdev=net_rtap0 --forward-mode=txonly --txpkts=500,500 --duration=10 --json

With --json standard output has one object: {"ports": [{"name", "interface", "ifindex",
"engine", "ipackets", "opackets", "ibytes", "obytes", "imissed", "ierrors", "oerrors",
"rx_nombuf", "rx_offloads": [...], "tx_offloads": [...]}...], "forward": {...},
"duration": seconds}. Everything else goes to standard error.
`)
	return b.String()
}

func (o *runOptions) flags() *flags {
	f := newFlags("run", runIntro, runMore())
	c := &o.session
	f.Var(&o.vdevs, "vdev", "DEVARGS: a port, such as net_rtap0,iface=foo0; repeatable")
	f.StringVar(&o.mode, "forward-mode", "io", "MODE: what to do with packets, see below")
	f.StringVar(&o.topology, "port-topology", "paired", "NAME: which port sends what another received: paired, chained or loop")
	f.Var(&o.peers, "eth-peer", "PORT,MAC: destination address that modes mac and txonly write on that port; repeatable")
	f.IntVar(&o.rxq, "rxq", 1, "N: Rx queues of each port, 1 to 128, as many as --txq")
	f.IntVar(&o.txq, "txq", 1, "N: Tx queues of each port, as many as --rxq")
	f.IntVar(&c.rxd, "rxd", rtap.DefaultRingSize, "PACKETS: Rx ring size, the most that one system call receives")
	f.IntVar(&c.txd, "txd", rtap.DefaultRingSize, "PACKETS: Tx ring size, the most that one system call sends")
	f.IntVar(&o.burst, "burst", forward.DefaultBurst, "PACKETS: size of a burst, 1 to 512")
	f.IntVar(&o.cores, "nb-cores", 1, "N: forwarding workers, one CPU each")
	f.IntVar(&c.mbufSize, "mbuf-size", 0, "BYTES: an mbuf's buffer, 128 of headroom included, at most 65535\n(default 2176; 65535 with LRO, unless --enable-scatter)")
	f.IntVar(&c.mbufs, "total-num-mbufs", 0, "N: mbufs in the pool of all ports (default: what the queues can hold)")
	f.BoolVar(&c.huge, "huge", false, "take the mbufs' memory from huge pages (vm.nr_hugepages)")
	o.offloads.register(f)
	f.Var(&o.txpkts, "txpkts", "LENGTHS: segments of a txonly packet, such as 64 or 42,22 (default 64)")
	f.Var(&o.statsPeriod, "stats-period", "SECONDS: between live statistics, 0: none (default: 1 on a terminal, else 0)")
	f.Var(&o.duration, "duration", "SECONDS: how long to run, 0: until a signal")
	f.StringVar((*string)(&c.rxMode), "rx-mode", string(rxAdaptive), "NAME: what a worker without packets does: poll; sleep until an interrupt;\nadaptive: poll for a while, then sleep")
	f.StringVar(&o.engine, "engine", "auto", "NAME: engine of all ports: auto, uring or syscall")
	o.log.flags(f)
	f.Var(&o.http, "http", "ADDR: serve a live page, /metrics for Prometheus and /healthz on this port of loopback, such\nas 9100 (0: a free one), or on a written address, such as 0.0.0.0:9100, to whoever gets there")
	f.BoolVar(&o.json, "json", false, "print the totals as one JSON object")
	o.telemetry.register(f)
	o.procs.register(f)
	return f
}

func runVerb(ctx context.Context, st streams, args []string) error {
	var o runOptions
	f := o.flags()
	if err := f.parse(args, st.out); err != nil {
		return err
	}
	if err := o.complete(f); err != nil {
		return err
	}
	log, err := o.log.logger(f, st.err)
	if err != nil {
		return err
	}
	o.session.log = log
	d := newDisplay(st.out)
	if o.json {
		d = newDisplay(st.err)
	}
	if d.terminal != nil && !f.given("stats-period") {
		o.statsPeriod = seconds(time.Second)
	}
	s, tel, err := o.open(f, d)
	if err != nil {
		return err
	}
	s.announce(d)
	stopHTTP, err := s.serveHTTP(o.http, d)
	if err != nil {
		return errors.Join(err, tel.close(), s.close())
	}
	r, err := s.run(ctx, d, time.Duration(o.duration), time.Duration(o.statsPeriod))
	err = errors.Join(err, stopHTTP(), tel.close(), s.close())
	d.printf("\nTotals%s after %.1f s%s:\n%s", s.whose(), r.Duration, s.how(), strings.TrimSuffix(r.totals(), "\n"))
	if r.Forward.FwdDropped+r.Forward.Malformed+r.Forward.NoMbuf > 0 {
		d.printf("Dropped while forwarding: %d not taken by the Tx queue, %d malformed, %d for want of mbufs",
			r.Forward.FwdDropped, r.Forward.Malformed, r.Forward.NoMbuf)
	}
	if o.json {
		err = errors.Join(err, json.NewEncoder(st.out).Encode(r))
	}
	return err
}

// open opens the ports, or attaches to those of another process.
func (o *runOptions) open(f *flags, d *display) (*session, telemetryServer, error) {
	if o.procs.kind != procPrimary {
		s, err := o.attach(f)
		if err == nil || o.procs.kind == procSecondary || !errors.Is(err, rtap.ErrNoPrimary) {
			return s, telemetryServer{}, asUsage(f, err)
		}
		if len(o.vdevs) == 0 {
			return nil, telemetryServer{}, f.usage("no port: there is no primary of file prefix %s, and to be one takes --vdev", o.telemetry.prefix)
		}
	}
	reserved, err := o.telemetry.reserve(f, d)
	if err != nil {
		return nil, telemetryServer{}, err
	}
	defer reserved.close()
	o.session.filePrefix = reserved.prefix
	s, err := openSession(o.session)
	if err != nil {
		return nil, telemetryServer{}, asUsage(f, err)
	}
	tel, err := o.telemetry.serve(s, d)
	if err != nil {
		return nil, telemetryServer{}, errors.Join(err, s.close())
	}
	return s, tel, nil
}

// asUsage makes what the forwarder cannot work with a usage error.
func asUsage(f *flags, err error) error {
	if pe := (planError{}); errors.As(err, &pe) {
		return f.usage("%s", strings.TrimPrefix(pe.Error(), "forward: "))
	}
	return err
}

// complete checks what was given and turns it into the session's configuration.
func (o *runOptions) complete(f *flags) error {
	c := &o.session
	if f.given("rxq") && !f.given("txq") {
		o.txq = o.rxq
	} else if f.given("txq") && !f.given("rxq") {
		o.rxq = o.txq
	}
	for _, n := range []struct {
		name      string
		v, lo, hi int
	}{
		{"rxq", o.rxq, 1, rtap.MaxQueues}, {"txq", o.txq, 1, rtap.MaxQueues},
		{"rxd", c.rxd, 1, rtap.MaxRingSize}, {"txd", c.txd, 1, rtap.MaxRingSize},
		{"burst", o.burst, 1, forward.MaxBurst}, {"nb-cores", o.cores, 1, 1024},
		{"total-num-mbufs", c.mbufs, 0, 1<<26 - 2},
	} {
		if err := f.inRange(n.name, n.v, n.lo, n.hi); err != nil {
			return err
		}
	}
	if f.given("mbuf-size") {
		if err := f.inRange("mbuf-size", c.mbufSize, 2*mbuf.DefaultHeadroom, mbuf.MaxBufLen); err != nil {
			return err
		}
	}
	if err := c.rxMode.check(); err != nil {
		return f.usage("--rx-mode is %v", err)
	}
	if o.rxq != o.txq {
		return f.usage("--rxq is %d and --txq is %d: they must be equal, because a queue pair is one descriptor", o.rxq, o.txq)
	}
	if _, err := engineNamed(o.engine); err != nil {
		return f.usage("--engine is %v", err)
	}
	c.engine = rtap.Engine(o.engine)
	if err := errors.Join(o.procs.check(f), o.telemetry.check(f)); err != nil {
		return err
	}
	if o.procs.kind == procSecondary {
		return errors.Join(o.procs.checkSecondary(f), o.offloads.check(f, o.mode), o.completeForward(f))
	}
	var err error
	if c.offloads, err = o.offloads.set(f, o.mode); err != nil {
		return err
	}
	return errors.Join(o.completePorts(f), o.completeForward(f))
}

func (o *runOptions) completePorts(f *flags) error {
	if len(o.vdevs) == 0 && o.procs.kind == procPrimary {
		return f.usage("no port: give one or more, such as --vdev=net_rtap0,iface=foo0")
	}
	for _, v := range o.vdevs {
		name, cfg, err := rtap.ParseDevargs(v)
		if err != nil {
			return f.usage("--vdev: %s", strings.TrimPrefix(err.Error(), "rtap: "))
		}
		if slices.ContainsFunc(o.session.ports, func(p portConfig) bool { return p.name == name }) {
			return f.usage("--vdev: two ports are called %s: number them, as net_rtap0, net_rtap1", name)
		}
		if cfg.Engine == "" {
			cfg.Engine = o.session.engine
		}
		if cfg.Queues == 0 {
			cfg.Queues = o.rxq
		}
		o.session.ports = append(o.session.ports, portConfig{name, cfg})
	}
	return nil
}

// engineNamed is the engine of that name.
func engineNamed(name string) (rtap.Engine, error) {
	switch e := rtap.Engine(name); e {
	case rtap.EngineAuto, rtap.EngineUring, rtap.EngineSyscall:
		return e, nil
	}
	return "", fmt.Errorf("%q: want auto, uring or syscall", name)
}

func (o *runOptions) completeForward(f *flags) error {
	topologies := []forward.Topology{forward.Paired, forward.Chained, forward.Loop}
	i := slices.IndexFunc(topologies, func(t forward.Topology) bool { return t.String() == o.topology })
	if i < 0 {
		return f.usage("--port-topology is %q: want paired, chained or loop", o.topology)
	}
	ports := len(o.vdevs)
	if o.procs.kind != procPrimary { // how many there are is not known yet
		ports = maxPorts
	}
	peers, err := parsePeers(o.peers, ports)
	if err != nil {
		return f.usage("--eth-peer is %v", err)
	}
	o.session.forward = forward.Config{Mode: o.mode, Burst: o.burst, Cores: o.cores, Topology: topologies[i],
		TxPkts: o.txpkts, EthPeers: peers, NumProcs: o.procs.num, ProcID: o.procs.id}
	return nil
}

// maxPorts is how many numbers there are for ports.
const maxPorts = 1 << 16

// parsePeers reads testpmd's --eth-peer: 1,02:00:00:00:00:01.
func parsePeers(args []string, ports int) (map[int][6]byte, error) {
	peers := map[int][6]byte{}
	for _, a := range args {
		num, addr, _ := strings.Cut(a, ",")
		n, err := strconv.Atoi(num)
		mac, macErr := net.ParseMAC(addr)
		if err != nil || macErr != nil || len(mac) != 6 || n < 0 || n >= ports {
			return nil, fmt.Errorf("%q: want a port, 0 to %d, and a MAC address, such as 0,02:00:00:00:00:01", a, max(ports-1, 0))
		}
		peers[n] = [6]byte(mac)
	}
	return peers, nil
}

// announce says what was opened.
func (s *session) announce(d *display) {
	for i, p := range s.ports {
		r, info := p.report(), p.dev.Info()
		d.printf("%s: interface %s, ifindex %d, %s, engine %s: %s", p.name, r.Interface, r.IfIndex,
			plural(s.cfg.ports[i].cfg.Queues, "queue pair"), info.Engine, info.EngineReason)
		if len(r.RxOffloads)+len(r.TxOffloads) > 0 {
			d.printf("  Rx offloads %s; Tx offloads %s", names(r.RxOffloads), names(r.TxOffloads))
		}
	}
	if s.pool == nil {
		d.printf("Another process's: nothing is forwarded here")
		return
	}
	d.printf("%d mbufs of %d bytes, %s", s.pool.Count(), s.cfg.mbufSize, plural(len(s.fwd.Workers()), "worker"))
	if p := s.packets.pool; p != nil {
		d.printf("%d mbufs of %d bytes for what frames are cut into", p.Count(), smallMbuf)
	}
	if s.uncaptured != nil {
		d.printf("rtap capture will not see what this process moves, for which the primary's --num-procs is to be the same: %v", s.uncaptured)
	}
	for _, w := range s.fwd.Workers() {
		for _, stream := range w.Streams() {
			d.printf("  worker %d: %s", w.ID(), stream.Route())
		}
	}
}

// names are names in a sentence.
func names(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// run forwards until ctx is done, the time is up, or every port is gone. The
// error names the ports that went.
func (s *session) run(ctx context.Context, d *display, limit, period time.Duration) (report, error) {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	changed := s.listen()
	done := make(chan error, 1)
	go func() { done <- s.forward(ctx) }()
	alive, stop := s.primaryAlive()
	defer stop()
	sampled := start
	var live <-chan time.Time
	if period > 0 {
		t := time.NewTicker(period)
		defer t.Stop()
		live = t.C
	}
	last := s.sample(0)
	for {
		select {
		case err := <-done:
			d.keep()
			s.watch(d)
			return s.sample(time.Since(start)), errors.Join(err, s.lost())
		case <-changed:
			if s.watch(d) == 0 {
				cancel()
			}
		case now := <-alive:
			if now.Sub(sampled) >= sampleEvery { // for the totals, when the primary cannot be asked any more
				s.sample(0)
				sampled = now
			}
			if s.watch(d) == 0 {
				cancel()
			}
		case <-live:
			now := s.sample(time.Since(start))
			d.block(rates(last, now))
			last = now
		}
	}
}

// forward forwards until ctx is done, or just waits where there is nothing to forward.
func (s *session) forward(ctx context.Context) error {
	if len(s.fwd.Workers()) == 0 {
		<-ctx.Done()
		return nil
	}
	return s.fwd.Run(ctx)
}

// whose says whose totals there are, if they are not all of the ports'.
func (s *session) whose() string {
	if s.far && s.pool != nil {
		return " of this process"
	}
	return ""
}

// how says what was done with packets.
func (s *session) how() string {
	if s.pool == nil {
		return ""
	}
	return ", mode " + s.fwd.Mode().Name
}

// listen has the workers follow what happens to the interfaces, and says when one is gone.
func (s *session) listen() <-chan struct{} {
	gone := make(chan struct{}, 1)
	tell := func() {
		select {
		case gone <- struct{}{}:
		default: // it will be seen that there are two
		}
	}
	for i, p := range s.ports {
		p.dev.OnEvent(func(e rtap.Event) {
			if e.Changed&rtap.ChangeMAC != 0 {
				s.setMAC(i, e.After.MAC)
			}
			if e.Changed&rtap.ChangeRemoved != 0 {
				tell()
			}
		})
		// And what happened before.
		if link, err := p.dev.Link(); err == nil {
			s.setMAC(i, link.MAC)
		} else {
			tell()
		}
	}
	return gone
}

func (s *session) setMAC(port int, mac net.HardwareAddr) {
	if port < len(s.ends) && len(mac) == 6 { // a TUN has none
		s.ends[port].SetMAC([6]byte(mac))
	}
}

// watch tells the user of ports whose interface was deleted, once each, and
// returns how many are left.
func (s *session) watch(d *display) int {
	left := 0
	var gone []*port
	for _, p := range s.ports {
		if p.dev.Err() == nil {
			left++
			continue
		}
		if !p.gone {
			p.gone = true
			gone = append(gone, p)
		}
	}
	for _, p := range gone {
		if !p.orphaned() {
			d.printf("%s: interface %s was deleted; %s left", p.name, p.dev.Name(), plural(left, "port"))
		}
	}
	return left
}

// lost is an error that names the ports that are gone.
func (s *session) lost() error {
	var err error
	for _, p := range s.ports {
		if p.orphaned() {
			return fmt.Errorf("the primary of file prefix %s has ended: %w", s.cfg.filePrefix, rtap.ErrPrimaryGone)
		}
		if p.gone {
			err = errors.Join(err, fmt.Errorf("port %s lost its interface %s: %w", p.name, p.dev.Name(), rtap.ErrGone))
		}
	}
	return err
}
