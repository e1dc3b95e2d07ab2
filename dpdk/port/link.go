// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"errors"

	"github.com/rtap-project/rtap"
)

// frameOverhead is what a frame has beyond the MTU: the Ethernet header and two VLAN tags. ethdev finds it in
// Info as MaxRxPktLen less MaxMTU.
const frameOverhead = 22

// linkSpeed is what a TAP says of itself, in Mb/s. It means nothing.
const linkSpeed = 10000

// lastLink is what was last known of the interface.
type lastLink struct {
	running bool
	mtu     int
	mac     [6]byte
}

// link is what is known of the interface now. One that was deleted is down, and else as it was.
func (e *eth) link() lastLink {
	s, err := e.dev.Link()
	if err != nil {
		e.last.running = false
		return e.last
	}
	e.last = lastLink{running: s.Running, mtu: s.MTU}
	copy(e.last.mac[:], s.MAC)
	return e.last
}

// readLink does the callback link_update.
func (e *eth) readLink(l *Link) error {
	s, err := e.dev.Link()
	if err != nil && !errors.Is(err, rtap.ErrGone) {
		return err
	}
	*l = Link{Up: flag(s.Running), Speed: linkSpeed}
	return nil
}

func (e *eth) setLink(u *U32) error {
	if u.V != 0 {
		return e.dev.SetLinkUp()
	}
	return e.dev.SetLinkDown()
}

func (e *eth) setPromiscuous(u *U32) error  { return e.dev.SetPromiscuous(u.V != 0) }
func (e *eth) setAllMulticast(u *U32) error { return e.dev.SetAllMulticast(u.V != 0) }
func (e *eth) setMAC(m *MAC) error          { return e.dev.SetMAC(m.Addr[:]) }

// setMTU does rte_eth_dev_set_mtu, also while packets flow. From then on the application has a wish.
func (e *eth) setMTU(u *U32) error {
	err := e.dev.SetMTU(int(u.V))
	if err == nil {
		e.mtu = 0
	}
	return err
}

// info does the callback dev_infos_get.
func (e *eth) info(out *Info) error {
	i, l := e.dev.Info(), e.link()
	*out = Info{
		MinRxBuf: uint32(i.MinRxBufSize), MaxRxPktLen: uint32(i.MaxRxPktLen), MinMTU: uint32(i.MinMTU), MaxMTU: uint32(i.MaxMTU),
		MaxQueues: uint32(i.MaxRxQueues), MaxLRO: rtap.MaxLROPktSize, IfIndex: uint32(i.IfIndex),
		DescMin: uint32(i.RxDesc.Min), DescMax: uint32(i.RxDesc.Max), SegMax: uint32(i.RxDesc.SegMax),
		Ring: uint32(i.RxDefaults.RingSize), Burst: uint32(i.RxDefaults.BurstSize),
		RxCapa: i.RxOffloads & dpdkOffloads, TxCapa: i.TxOffloads & dpdkOffloads,
		MTU: uint32(l.mtu), MAC: l.mac,
	}
	return nil
}

// version does the callback fw_version_get. testpmd has room for 31 characters.
func (e *eth) version(t *Text) error {
	t.set("rtap " + rtap.Version + ", " + string(e.dev.Info().Engine))
	return nil
}

// burstMode does the callbacks rx_burst_mode_get and tx_burst_mode_get.
func (e *eth) burstMode(t *Text) error {
	i := e.dev.Info()
	t.set(string(i.Engine) + ": " + i.EngineReason)
	return nil
}

// set makes t say s, or as much as there is room for.
func (t *Text) set(s string) {
	*t = Text{}
	copy(t.S[:len(t.S)-1], s)
}

// isRemoved does the callback is_removed.
func (e *eth) isRemoved() int32 { return int32(flag(errors.Is(e.dev.Err(), rtap.ErrGone))) }

// enableInterrupt does the callback rx_queue_intr_enable. Poll loops call it, so it takes no lock of the port's.
func (e *eth) enableInterrupt(q *U32) error {
	rx := e.places.rx(q.V)
	if rx == nil {
		return rtap.ErrStopped
	}
	return rx.EnableInterrupt()
}

func (e *eth) disableInterrupt(q *U32) error {
	rx := e.places.rx(q.V)
	if rx == nil {
		return nil // nothing is enabled
	}
	return rx.DisableInterrupt()
}

// rx is an Rx queue of a started port, nil if there is none.
func (p *places) rx(queue uint32) *rtap.RxQueue {
	if queue >= MaxQueues {
		return nil
	}
	return p[queue].rx.Load()
}
