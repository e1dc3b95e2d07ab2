// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// Endpoint is a network interface of a gVisor stack, whose other end is an interface of the kernel's. All methods
// may be called by any goroutine at any time.
type Endpoint struct {
	dev     *rtap.Device
	own     bool      // the device is not the caller's
	mem     []*memory // of each queue of our own
	txPool  *mbuf.Pool
	senders []*sender

	tun         bool
	lro         bool
	promiscuous bool
	caps        stack.LinkEndpointCapabilities
	gso         stack.SupportedGSO
	spin        time.Duration
	closedFunc  func(error)

	mtuMu sync.Mutex // from asking what the MTU is until it is stored
	mtu   atomic.Uint32
	addr  atomic.Value // tcpip.LinkAddress
	stats counters

	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
	session    *session // of the dispatchers that were started last, nil before the first
	onClose    func()
	stopEvents func()
	closed     bool
	why        error // why the dispatchers did by themselves
	left       error // why Close could not take everything down
}

var (
	_ stack.LinkEndpoint = (*Endpoint)(nil)
	_ stack.GSOEndpoint  = (*Endpoint)(nil)
)

// New makes an endpoint, ready to be given to stack.CreateNIC, and opens its port unless that is there. The error is
// the driver's, which says what to do, or says which field of cfg is wrong.
func New(cfg Config) (*Endpoint, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	e := &Endpoint{dev: cfg.Device, promiscuous: cfg.Promiscuous, closedFunc: cfg.Closed, spin: cfg.Spin}
	if e.dev != nil {
		if err := e.borrow(); err != nil {
			return nil, err
		}
	} else if err := e.open(&cfg); err != nil {
		return nil, errors.Join(err, e.discard())
	}
	if err := e.init(&cfg); err != nil {
		return nil, errors.Join(err, e.discard())
	}
	return e, nil
}

func (e *Endpoint) init(cfg *Config) error {
	info := e.dev.Info()
	e.tun = info.Mode == rtap.ModeTUN
	e.describe(cfg, info)
	if !e.tun {
		addr := cfg.LinkAddress
		if addr == "" {
			addr = randomAddress()
		}
		e.addr.Store(addr)
	}
	for i, s := range e.senders {
		s.q, s.cksum = e.dev.TxQueue(i), e.caps&stack.CapabilityTXChecksumOffload != 0
	}
	return e.followMTU()
}

// describe says to the stack what the port's offloads are good for.
func (e *Endpoint) describe(cfg *Config, info rtap.Info) {
	has := func(set, bits uint64) bool { return set&bits == bits }
	if info.EnabledRxOffloads&incomplete != 0 { // the stack would take them for wrong
		e.caps |= stack.CapabilityRXChecksumOffload
	}
	if cfg.TXChecksumOffload && has(info.EnabledTxOffloads, rtap.TxOffloadTCPCksum|rtap.TxOffloadUDPCksum) {
		e.caps |= stack.CapabilityTXChecksumOffload
	}
	if !e.tun {
		e.caps |= stack.CapabilityResolutionRequired
	}
	e.lro = has(info.EnabledRxOffloads, rtap.RxOffloadTCPLRO)
	e.gso = stack.GVisorGSOSupported // batches of packets
	if has(info.EnabledTxOffloads, rtap.TxOffloadTCPTSO|rtap.TxOffloadTCPCksum) {
		e.gso = stack.HostGSOSupported
	}
}

// followMTU takes over the interface's MTU, and what becomes of it.
func (e *Endpoint) followMTU() error {
	e.stopEvents = e.dev.OnEvent(func(ev rtap.Event) {
		if ev.Changed&rtap.ChangeMTU != 0 {
			_ = e.readMTU() // it fails when the interface is gone
		}
	})
	return e.readMTU()
}

// readMTU stores what the MTU is now. Whoever stores last has asked after the last change, in whatever order changes and
// events are handled.
func (e *Endpoint) readMTU() error {
	e.mtuMu.Lock()
	defer e.mtuMu.Unlock()
	link, err := e.dev.Link()
	if err == nil {
		e.mtu.Store(uint32(link.MTU))
	}
	return err
}

// Device is the port below.
func (e *Endpoint) Device() *rtap.Device { return e.dev }

// MTU is that of the interface in bytes, without the Ethernet header.
func (e *Endpoint) MTU() uint32 { return e.mtu.Load() }

// SetMTU changes the interface's MTU, and so both ends'. One that the kernel refuses changes nothing: MTU tells. A change
// from outside (ip link set mtu) is followed.
func (e *Endpoint) SetMTU(mtu uint32) {
	if e.dev.SetMTU(int(mtu)) == nil {
		_ = e.readMTU() // it fails when the interface is gone
	}
}

// MaxHeaderLength is the length of the Ethernet header, 0 on a TUN.
func (e *Endpoint) MaxHeaderLength() uint16 {
	if e.tun {
		return 0
	}
	return header.EthernetMinimumSize
}

// LinkAddress is the stack's Ethernet address, empty on a TUN.
func (e *Endpoint) LinkAddress() tcpip.LinkAddress {
	a, _ := e.addr.Load().(tcpip.LinkAddress)
	return a
}

// SetLinkAddress changes the stack's Ethernet address. That of the kernel's interface is another one.
func (e *Endpoint) SetLinkAddress(addr tcpip.LinkAddress) {
	if !e.tun {
		e.addr.Store(addr)
	}
}

// Capabilities implements stack.LinkEndpoint.
func (e *Endpoint) Capabilities() stack.LinkEndpointCapabilities { return e.caps }

// SupportedGSO is stack.HostGSOSupported where the kernel cuts TCP frames or passes them on whole,
// stack.GVisorGSOSupported otherwise.
func (e *Endpoint) SupportedGSO() stack.SupportedGSO { return e.gso }

// GSOMaxSize is the longest frame that the stack may send, in bytes.
func (e *Endpoint) GSOMaxSize() uint32 { return stack.GVisorGSOMaxSize }

// ARPHardwareType implements stack.LinkEndpoint.
func (e *Endpoint) ARPHardwareType() header.ARPHardwareType {
	if e.tun {
		return header.ARPHardwareNone
	}
	return header.ARPHardwareEther
}

// AddHeader implements stack.LinkEndpoint: the Ethernet header, nothing on a TUN.
func (e *Endpoint) AddHeader(pkt *stack.PacketBuffer) {
	if e.tun {
		return
	}
	eth := header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize))
	eth.Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}

// ParseHeader implements stack.LinkEndpoint.
func (e *Endpoint) ParseHeader(pkt *stack.PacketBuffer) bool {
	if e.tun {
		return true
	}
	b, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	if ok {
		pkt.NetworkProtocolNumber = header.Ethernet(b).Type()
	}
	return ok
}

// Attach starts delivering to d, from a goroutine for each queue; if a dispatcher is attached already, nothing happens.
// A nil d ends that. It does not wait for the goroutines, because the stack holds a lock meanwhile that
// these may want: Wait does. Attaching again is possible.
func (e *Endpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if (d == nil) == (e.dispatcher == nil) || d != nil && e.closed {
		return
	}
	e.dispatcher = d
	if d == nil {
		e.session.end()
		return
	}
	e.why = nil
	before := e.session
	s := newSession(len(e.senders))
	e.session = s
	for i := range e.senders {
		r := e.newReceiver(i, d, s)
		s.all.Go(func() {
			defer s.ended()
			if before != nil { // one goroutine at a time polls a queue; the one before may be in the stack
				s.enter()
				before.all.Wait()
				s.leave()
			}
			e.note(s, r.run())
		})
	}
}

// note keeps why a dispatcher of s has ended by itself.
func (e *Endpoint) note(s *session, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil || s.over.Load() || s.told {
		return
	}
	s.told, e.why = true, err
	if e.closedFunc != nil {
		go e.closedFunc(err)
	}
}

// IsAttached implements stack.LinkEndpoint.
func (e *Endpoint) IsAttached() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dispatcher != nil
}

// Wait waits for the goroutines that deliver to end: after Attach(nil) or Close, when the interface was deleted, when
// the Device was stopped. It does not wait if there are none; nor, after Attach(nil), for a packet that the stack has in its hands:
// the stack waits here with a lock that this packet may need. Nothing else is delivered then. Close waits for that, too.
func (e *Endpoint) Wait() {
	e.mu.Lock()
	s := e.session
	e.mu.Unlock()
	if s != nil {
		s.wait()
	}
}

// Err is nil while the endpoint works; otherwise why it ceased to, as Config.Closed was told, or why Close could not
// take everything down.
func (e *Endpoint) Err() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return errors.Join(e.why, e.left, e.dev.Err())
}

// SetOnCloseAction has Close call f first; nil calls nothing.
func (e *Endpoint) SetOnCloseAction(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onClose = f
}

// Close detaches the endpoint, waits for its goroutines and gives everything back; a port of its own is closed and its
// interface vanishes, unless it is persistent. The stack calls it when the NIC is removed or the stack destroyed. It must not be called
// by what the endpoint delivers to. Closing again does nothing.
func (e *Endpoint) Close() {
	e.mu.Lock()
	f := e.onClose
	e.onClose = nil
	first := !e.closed
	e.closed = true
	e.mu.Unlock()
	if f != nil {
		f()
	}
	if !first {
		return
	}
	e.Attach(nil)
	e.mu.Lock()
	s := e.session
	e.mu.Unlock()
	if s != nil {
		s.all.Wait()
	}
	err := e.free()
	e.mu.Lock()
	e.left = err
	e.mu.Unlock()
}

// discard is free when New fails: an interface that it made does not stay, also if it was to be persistent.
func (e *Endpoint) discard() error {
	var err error
	if e.own {
		err = e.dev.Discard()
	}
	return errors.Join(err, e.free())
}

// free gives back what New made. No dispatcher runs.
func (e *Endpoint) free() error {
	if e.stopEvents != nil {
		e.stopEvents()
	}
	var err error
	if e.own {
		err = e.dev.Close()
	}
	for _, m := range e.mem {
		err = errors.Join(err, m.close())
	}
	for _, s := range e.senders {
		s.close()
	}
	if e.txPool != nil {
		err = errors.Join(err, e.txPool.Close())
	}
	return err
}

// Stats are packets that the endpoint dropped; the port counts all others (rtap.Device.Stats).
type Stats struct {
	RxChecksum  uint64 // received with a wrong checksum
	RxMalformed uint64 // received without an Ethernet header, or on a TUN without an IP header
	RxOther     uint64 // received for another Ethernet address
	TxMalformed uint64 // not sent: what they ask for contradicts their headers
	TxNoBuffer  uint64 // not sent for want of memory
}

type counters struct {
	rxChecksum, rxMalformed, rxOther, txMalformed, txNoBuffer atomic.Uint64
}

// Stats reads the counters.
func (e *Endpoint) Stats() Stats {
	c := &e.stats
	return Stats{RxChecksum: c.rxChecksum.Load(), RxMalformed: c.rxMalformed.Load(), RxOther: c.rxOther.Load(),
		TxMalformed: c.txMalformed.Load(), TxNoBuffer: c.txNoBuffer.Load()}
}
