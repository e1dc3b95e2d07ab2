// SPDX-License-Identifier: BSD-3-Clause

// Package wgtest connects two wireguard-go devices of one program through two network namespaces, for tests and benches.
// Linux only; it needs root.
package wgtest

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
	"github.com/rtap-project/rtap/internal/traffic"
)

const (
	// Name is the tunnel's interface at either end, Outer that of the network it goes through.
	Name, Outer = "wg0", "outer0"
	// Port is where both ends listen.
	Port = 51820
)

// End is one side of a tunnel.
type End struct {
	NS     *netns.NS
	Tun    tun.Device
	Device *device.Device
	// Inner4 and Inner6 are its addresses in the tunnel, Outer4 and Outer6 those outside.
	Inner4, Inner6, Outer4, Outer6 netip.Prefix

	key *ecdh.PrivateKey
}

// Pair is a tunnel between two namespaces.
type Pair struct{ Ends [2]*End }

// Connect makes a pair: a cable between the namespaces, a TUN interface of create's in each, up and with addresses, and
// two devices, which are up and know each other. No handshake was made yet. Close it.
func Connect(ns [2]*netns.NS, create func(name string, mtu int) (tun.Device, error), log *device.Logger) (*Pair, error) {
	p := &Pair{}
	outer := [2]int{}
	var err error
	if outer[0], outer[1], err = traffic.AddVeth(ns[0], Outer, ns[1], Outer); err != nil {
		return nil, err
	}
	for i := range p.Ends {
		e := &End{NS: ns[i],
			Inner4: prefix("10.7.0.%d/24", i), Inner6: prefix("fd07::%d/64", i),
			Outer4: prefix("192.0.2.%d/24", i), Outer6: prefix("fd00::%d/64", i)}
		p.Ends[i] = e
		if err := e.open(outer[i], create, log); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	for i, e := range p.Ends {
		if err := e.peer(p.Ends[1-i]); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	return p, nil
}

func prefix(format string, end int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, end+1))
}

// open makes the interfaces and the device.
func (e *End) open(outer int, create func(name string, mtu int) (tun.Device, error), log *device.Logger) error {
	var err error
	if e.key, err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
		return err
	}
	if err := e.NS.Do(func() error { e.Tun, err = create(Name, device.DefaultMTU); return err }); err != nil {
		return err
	}
	c, err := rtnl.Dial(e.NS.FD())
	if err != nil {
		return err
	}
	defer c.Close()
	link, err := c.LinkByName(Name)
	if err != nil {
		return err
	}
	err = errors.Join(c.AddAddr(outer, e.Outer4), c.AddAddr(outer, e.Outer6),
		c.AddAddr(link.Index, e.Inner4), c.AddAddr(link.Index, e.Inner6))
	if err != nil {
		return err
	}
	e.Device = device.NewDevice(&inside{e.Tun, e.NS}, &bind{Bind: conn.NewStdNetBind(), ns: e.NS}, log)
	if err := e.Device.IpcSet(fmt.Sprintf("private_key=%s\nlisten_port=%d\n", hex.EncodeToString(e.key.Bytes()), Port)); err != nil {
		return err
	}
	return errors.Join(c.SetUp(link.Index), e.Device.Up())
}

// peer tells e of the other end.
func (e *End) peer(o *End) error {
	return e.Device.IpcSet(strings.Join([]string{
		"public_key=" + o.PublicKey(),
		"endpoint=" + netip.AddrPortFrom(o.Outer4.Addr(), Port).String(),
		"replace_allowed_ips=true",
		"allowed_ip=" + o.Inner4.Masked().String(),
		"allowed_ip=" + o.Inner6.Masked().String(),
		""}, "\n"))
}

// PublicKey is the end's key as IpcSet takes it.
func (e *End) PublicKey() string { return hex.EncodeToString(e.key.PublicKey().Bytes()) }

// Close ends both devices, and removes their interfaces and the cable.
func (p *Pair) Close() error {
	var err error
	for _, e := range p.Ends {
		if e == nil {
			continue
		}
		if e.Device != nil {
			e.Device.Close()
		}
		if e.Tun != nil {
			err = errors.Join(err, e.Tun.Close())
		}
	}
	if e := p.Ends[0]; e != nil {
		err = errors.Join(err, e.deleteOuter())
	}
	return err
}

func (e *End) deleteOuter() error {
	c, err := rtnl.Dial(e.NS.FD())
	if err != nil {
		return err
	}
	defer c.Close()
	link, err := c.LinkByName(Outer)
	if err != nil {
		return err
	}
	return c.Delete(link.Index)
}

// inside asks for the MTU in a namespace, which wireguard-go's own device has to be asked in.
type inside struct {
	tun.Device
	ns *netns.NS
}

func (t *inside) MTU() (mtu int, err error) {
	err = t.ns.Do(func() (err error) { mtu, err = t.Device.MTU(); return err })
	return mtu, err
}

// bind opens its sockets in a namespace: a socket belongs to the one it was made in.
type bind struct {
	conn.Bind
	ns *netns.NS
}

func (b *bind) Open(port uint16) (fns []conn.ReceiveFunc, actual uint16, err error) {
	err = b.ns.Do(func() (err error) {
		fns, actual, err = b.Bind.Open(port)
		return err
	})
	return fns, actual, err
}
