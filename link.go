// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"net"
	"slices"

	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/tuntap"
)

// LinkStatus is what the kernel says of the interface at one moment.
type LinkStatus struct {
	Name         string           // it may have been renamed
	Index        int              // in the namespace where it is now
	MAC          net.HardwareAddr // Ethernet address; empty for a TUN
	MTU          int              // bytes
	TxQueueLen   int              // packets
	Up           bool             // administratively up (IFF_UP)
	Carrier      bool             // see SetCarrier
	Running      bool             // up and with carrier: packets flow (rte_eth_link.link_status)
	Promiscuous  bool
	AllMulticast bool
}

// control runs a link operation on the interface, wherever it is now.
func (d *Device) control(op string, f func(c *rtnl.Conn, index int) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.locate(); err != nil {
		return d.opErr(op, -1, err)
	}
	err := f(d.conn, d.index)
	if errors.Is(err, rtnl.ErrNotFound) { // moved or deleted since locate
		if err = d.locate(); err == nil {
			err = f(d.conn, d.index)
		}
	}
	return d.opErr(op, -1, err)
}

// controlMAC is control for what has to do with MAC addresses.
func (d *Device) controlMAC(op string, f func(c *rtnl.Conn, index int) error) error {
	return d.control(op, func(c *rtnl.Conn, index int) error {
		if d.layer2().isTUN() {
			return ErrNoLayer2
		}
		return f(c, index)
	})
}

// Link reads the interface's state (rte_eth_link_get).
func (d *Device) Link() (LinkStatus, error) {
	var s LinkStatus
	if d.far != nil {
		err := d.ask("link", request{}, &s)
		return s, d.failed("read link of", err)
	}
	err := d.control("read link of", func(c *rtnl.Conn, index int) error {
		l, err := c.Link(index)
		s = statusOf(l)
		return err
	})
	return s, err
}

func statusOf(l rtnl.Link) LinkStatus {
	return LinkStatus{Name: l.Name, Index: l.Index, MAC: l.MAC, MTU: l.MTU, TxQueueLen: l.TxQueueLen,
		Up: l.Up, Carrier: l.Carrier, Running: l.Up && l.Carrier, Promiscuous: l.Promisc, AllMulticast: l.AllMulti}
}

// SetLinkUp sets the interface up (rte_eth_dev_set_link_up), as Start does.
func (d *Device) SetLinkUp() error { return d.control("set up", (*rtnl.Conn).SetUp) }

// SetLinkDown sets the interface down; see SetLinkUp.
func (d *Device) SetLinkDown() error { return d.control("set down", (*rtnl.Conn).SetDown) }

// SetPromiscuous sets the interface's promiscuous mode
// (rte_eth_promiscuous_enable). A TAP hands every frame to the program whatever
// this says; the kernel shows it to tools and bridges. Of a TUN it is ErrNoLayer2.
func (d *Device) SetPromiscuous(on bool) error {
	return d.controlMAC("set promiscuous mode of", func(c *rtnl.Conn, index int) error { return c.SetPromisc(index, on) })
}

// SetAllMulticast sets whether the interface takes all multicast
// (rte_eth_allmulticast_enable), with SetPromiscuous's meaning.
func (d *Device) SetAllMulticast(on bool) error {
	return d.controlMAC("set allmulticast of", func(c *rtnl.Conn, index int) error { return c.SetAllMulticast(index, on) })
}

// SetMAC sets the interface's Ethernet address, six bytes, unicast
// (rte_eth_dev_default_mac_addr_set). Of a TUN it is ErrNoLayer2.
func (d *Device) SetMAC(mac net.HardwareAddr) error {
	return d.controlMAC("set mac of", func(c *rtnl.Conn, index int) error {
		if err := checkMAC("mac", mac); err != nil {
			return err
		}
		return c.SetMAC(index, mac)
	})
}

// SetTxQueueLen sets how many packets wait in the kernel for each Rx queue, 1 to
// 1048576. Packets that wait stay, as many as there is room for.
func (d *Device) SetTxQueueLen(packets int) error {
	return d.control("set tx queue length of", func(c *rtnl.Conn, index int) error {
		if err := checkRange("tx queue length", packets, 1, maxTxQueueLen); err != nil {
			return err
		}
		return c.SetTxQueueLen(index, packets)
	})
}

// SetMTU sets the interface's MTU in bytes, MinMTU to Info.MaxMTU, and makes the Rx
// queues' slots large enough first (rte_eth_dev_set_mtu). Packets may flow
// meanwhile; a burst that comes at the moment of the change returns 0. An MTU
// that somebody else raises (ip link set mtu) is followed as soon as the kernel
// says so; longer frames that are received before that count in ierrors. Processes that
// have leased queues are told first, and must have answered.
func (d *Device) SetMTU(mtu int) error {
	if d.far == nil && mtu > 0 && mtu <= d.layer2().maxMTU() {
		if err := d.fitLeases(mtu); err != nil { // without the lock
			return d.failed("set mtu of", err)
		}
	}
	return d.control("set mtu of", func(c *rtnl.Conn, index int) error {
		if err := checkRange("mtu", mtu, MinMTU, d.layer2().maxMTU()); err != nil {
			return err
		}
		before, err := c.Link(index)
		if err != nil {
			return err
		}
		if err := d.fitAll(max(mtu, before.MTU)); err != nil { // frames of the old MTU still wait
			return err
		}
		if err := d.boundLRO(); err != nil {
			return err
		}
		return c.SetMTU(index, mtu)
	})
}

// followMTU makes the Rx slots large enough when the kernel has said that the MTU was raised to mtu. What it is
// now counts: that may be old news, of a change that the program has undone since. Slots are never made smaller
// here, because frames of the old MTU may wait. Those of a stopped port are fitted by Start.
func (d *Device) followMTU(mtu int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != stateStarted || !d.tooSmall(mtu) {
		return nil
	}
	if err := d.locate(); err != nil {
		return err
	}
	link, err := d.conn.Link(d.index)
	if err != nil || !d.tooSmall(link.MTU) {
		return err
	}
	if err := d.fitAll(link.MTU); err != nil {
		return err
	}
	return d.boundLRO()
}

// followMTUElsewhere has the processes that lease queues do the same.
func (d *Device) followMTUElsewhere(mtu int) {
	if err := d.fitLeases(mtu); err != nil {
		d.cfg.Log.Warn("frames of the new MTU cannot be received by another process", "interface", d.Name(), "mtu", mtu, "error", err)
	}
}

// tooSmall reports whether the slots of an Rx queue cannot take frames of that MTU.
func (d *Device) tooSmall(mtu int) bool {
	shape := d.rxShape(mtu)
	return slices.ContainsFunc(d.pairs, func(p *pair) bool {
		segs, _ := p.rx.slotFor(shape)
		return segs > p.rx.segs
	})
}

// fitAll fits the slots of all Rx queues to mtu, shutting each queue for the time.
func (d *Device) fitAll(mtu int) error {
	var err error
	for _, p := range d.pairs {
		if p.rx == nil {
			continue
		}
		open := p.rx.gate.isOpen()
		p.rx.gate.shut()
		err = errors.Join(err, p.rx.fit(d.rxShape(mtu)))
		if open {
			p.rx.gate.open()
		}
	}
	return err
}

// SetCarrier plugs the cable in or out, as the kernel sees it (TUNSETCARRIER,
// since Linux 4.20). The setting lasts over Stop and Start.
func (d *Device) SetCarrier(on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := func(q *tuntap.Queue) error { return q.SetCarrier(on) }
	err := d.locate()
	switch {
	case err != nil:
	case d.state == stateStarted:
		err = set(d.pairs[0].tap)
	default:
		err = d.withKeep(set)
	}
	if err == nil {
		d.carrier = on
		d.events.ask() // of an interface that is down, the kernel does not say it by itself
	}
	return d.opErr("set carrier of", -1, err)
}
