// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// dpdkOffloads are the offload bits that DPDK has names for. rtap has some beyond.
const dpdkOffloads = 1<<21 - 1

// mtuDefault is what ethdev fills in for an application that asks for no MTU (RTE_ETHER_MTU).
const mtuDefault = 1500

// queueNote is what an application has said of a queue.
type queueNote struct {
	set    bool
	ring   int
	memory *memory // of an Rx queue
}

// configure does rte_eth_dev_configure. c.MTU becomes the MTU that the port has then.
func (e *eth) configure(c *Conf) error {
	if c.RxQueues != c.TxQueues {
		return fmt.Errorf("%d Rx and %d Tx queues: want as many of one as of the other, because a queue pair "+
			"is one descriptor of /dev/net/tun: %w", c.RxQueues, c.TxQueues, syscall.EINVAL)
	}
	if odd := (c.RxOffloads | c.TxOffloads) &^ dpdkOffloads; odd != 0 {
		return fmt.Errorf("offloads %#x: DPDK has no such: %w", odd, syscall.EINVAL)
	}
	conf := e.wishes(*c)
	err := e.dev.Configure(rtap.PortConfig{RxQueues: int(conf.RxQueues), TxQueues: int(conf.TxQueues),
		RxOffloads: conf.RxOffloads, TxOffloads: conf.TxOffloads, MaxLROPktSize: int(conf.MaxLRO)})
	if err != nil {
		return err
	}
	e.conf = conf
	e.ports.resize(e, int(conf.RxQueues))
	if conf.MTU != 0 && int(conf.MTU) != e.link().mtu {
		if err := e.dev.SetMTU(int(conf.MTU)); err != nil {
			return err
		}
	}
	c.MTU = uint32(e.link().mtu)
	return nil
}

// wishes is c without what ethdev filled in where the application asked for nothing.
func (e *eth) wishes(c Conf) Conf {
	if c.RxOffloads&rtap.RxOffloadTCPLRO == 0 || c.MaxLRO == cmp.Or(c.MTU, mtuDefault)+frameOverhead {
		c.MaxLRO = 0
	}
	switch c.MTU {
	case 0:
	case mtuDefault:
		c.MTU = cmp.Or(e.mtu, mtuDefault)
	default:
		e.mtu = 0
	}
	return c
}

// resize makes notes of n queue pairs, keeps those that are there, and sees to it that all queues can be polled.
func (p *Ports) resize(e *eth, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.rx, e.tx = resized(e.rx, n), resized(e.tx, n)
	p.follow()
	all := 0
	for i := range p.ports {
		if o := p.ports[i].Load(); o != nil {
			all += len(o.rx)
		}
	}
	p.runtime.serve(all)
}

func resized(notes []queueNote, n int) []queueNote {
	if n <= len(notes) {
		clear(notes[n:])
		return notes[:n]
	}
	return append(notes, make([]queueNote, n-len(notes))...)
}

// note changes what is noted of a queue.
func (e *eth) note(notes *[]queueNote, queue uint32, n queueNote) error {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	if int(queue) >= len(*notes) {
		return fmt.Errorf("queue %d: %w: it has %d", queue, rtap.ErrNotConfigured, len(*notes))
	}
	(*notes)[queue] = n
	e.ports.follow()
	return nil
}

// setupRx does rte_eth_rx_queue_setup.
func (e *eth) setupRx(c *QueueConf) error {
	if err := extra(c, e.conf.RxOffloads); err != nil {
		return err
	}
	if c.Queue >= MaxQueues {
		return fmt.Errorf("queue %d: %w", c.Queue, rtap.ErrNotConfigured)
	}
	mem := newMemory(e.ports.host, c, &e.places[c.Queue].pen)
	if err := e.dev.SetupRxQueue(int(c.Queue), rtap.RxConfig{Ring: int(c.Ring), Memory: mem}); err != nil {
		return err
	}
	return e.note(&e.rx, c.Queue, queueNote{set: true, ring: int(c.Ring), memory: mem})
}

// setupTx notes what rte_eth_tx_queue_setup asks for. The queue is made by start, when the memory of all Rx queues is
// known: applications set up their Tx queues first.
func (e *eth) setupTx(c *QueueConf) error {
	if err := extra(c, e.conf.TxOffloads); err != nil {
		return err
	}
	if c.Ring > rtap.MaxRingSize {
		return fmt.Errorf("queue %d: %w", c.Queue, &rtap.ConfigError{Field: "descriptors", Value: c.Ring,
			Want: fmt.Sprintf("1 to %d", rtap.MaxRingSize)})
	}
	return e.note(&e.tx, c.Queue, queueNote{set: true, ring: int(c.Ring)})
}

// extra refuses offloads of one queue that the port has not.
func extra(c *QueueConf, port uint64) error {
	if more := c.Offloads &^ port; more != 0 {
		return fmt.Errorf("queue %d: offloads %#x beyond those of the port: configure them for the port: %w",
			c.Queue, more, syscall.EINVAL)
	}
	return nil
}

// releaseRx does the callback rx_queue_release, which may come for a queue that never was.
func (e *eth) releaseRx(q *U32) error {
	if !e.noted(&e.rx, q.V) {
		return nil
	}
	if err := e.dev.ReleaseRxQueue(int(q.V)); err != nil {
		return err
	}
	return e.note(&e.rx, q.V, queueNote{})
}

// releaseTx likewise.
func (e *eth) releaseTx(q *U32) error {
	if !e.noted(&e.tx, q.V) {
		return nil
	}
	if err := e.dev.ReleaseTxQueue(int(q.V)); err != nil {
		return err
	}
	return e.note(&e.tx, q.V, queueNote{})
}

func (e *eth) noted(notes *[]queueNote, queue uint32) bool {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	return int(queue) < len(*notes) && (*notes)[queue].set
}

// start does rte_eth_dev_start. Tx queues live from here to stop, so that what they have registered is never
// memory that was freed since.
func (e *eth) start(s *Started) error {
	*s = Started{}
	if err := e.makeTx(); err != nil {
		return errors.Join(err, e.dropTx(err))
	}
	if err := e.dev.Start(); err != nil {
		return errors.Join(err, e.dropTx(err))
	}
	if err := e.describe(s); err != nil {
		return errors.Join(err, e.stop())
	}
	e.generation++
	e.places.show(e.dev)
	return nil
}

// makeTx makes the Tx queues that were noted.
func (e *eth) makeTx() error {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	regions := e.ports.rxRegions()
	for i, n := range e.tx {
		if !n.set {
			continue // Start says so
		}
		err := e.dev.SetupTxQueue(i, rtap.TxConfig{Ring: n.ring, Free: sent{e.ports.host}, Regions: regions})
		if err != nil {
			return err
		}
	}
	e.regions = regions
	return nil
}

// dropTx undoes makeTx, unless the port is started, and that was why it failed.
func (e *eth) dropTx(why error) error {
	if errors.Is(why, rtap.ErrStarted) {
		return nil
	}
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	e.regions = nil
	var err error
	for i := range e.tx {
		err = errors.Join(err, e.dev.ReleaseTxQueue(i))
	}
	return err
}

// rxRegions is the memory that packets to be sent lie in: that of all Rx queues of all ports, since packets are
// forwarded. The caller holds mu.
func (p *Ports) rxRegions() []mbuf.Region {
	var pools [][]mbuf.Region
	for i := range p.ports {
		if o := p.ports[i].Load(); o != nil {
			for _, n := range o.rx {
				if n.set {
					pools = append(pools, n.memory.Regions())
				}
			}
		}
	}
	return append([]mbuf.Region{}, largest(union(pools...), maxRegions)...) // never nil, which would be rtap's choice
}

// follow has the started ports register what rxRegions is now. It comes before an application can free a mempool that
// no Rx queue uses any more: where the kernel has memory registered that was unmapped since, and something else is in its
// place, it would send what was there before. The caller holds mu.
func (p *Ports) follow() {
	regions := p.rxRegions()
	for i := range p.ports {
		if o := p.ports[i].Load(); o != nil && o.regions != nil && !slices.Equal(o.regions, regions) {
			o.register(regions)
		}
	}
}

func (e *eth) register(regions []mbuf.Region) {
	e.regions = regions
	for i := range e.tx {
		if err := e.dev.SetTxRegions(i, regions); err != nil && !errors.Is(err, rtap.ErrClosed) {
			e.ports.host.Log(LevelErr, fmt.Sprintf("%s: %v", e.name, err))
		}
	}
}

// describe says how the port was started.
func (e *eth) describe(s *Started) error {
	l := e.link()
	s.Queues = uint32(e.conf.RxQueues)
	s.LinkUp = flag(l.running)
	s.Scattered = flag(e.scatters(l.mtu))
	for i := range s.IntrFD {
		s.IntrFD[i] = -1
	}
	if e.conf.RxqIntr == 0 {
		return nil
	}
	for i := range int(s.Queues) {
		fd, err := e.dev.RxQueue(i).InterruptFD()
		if err != nil {
			return err
		}
		s.IntrFD[i] = int32(fd)
	}
	return nil
}

// scatters reports whether a packet may come in several mbufs.
func (e *eth) scatters(mtu int) bool {
	if e.conf.RxOffloads&rtap.RxOffloadScatter != 0 {
		return true
	}
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	return slices.ContainsFunc(e.rx, func(n queueNote) bool { return n.set && n.memory.DataRoom() < mtu+frameOverhead })
}

// stop does rte_eth_dev_stop.
func (e *eth) stop() error {
	err := e.dev.Stop()
	if err != nil {
		return err
	}
	e.places.hide()
	return e.dropTx(nil)
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
