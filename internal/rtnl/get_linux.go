// SPDX-License-Identifier: BSD-3-Clause

package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// native is the byte order of netlink.
var native = binary.NativeEndian

// Link returns the interface with that index, or an error that wraps [ErrNotFound].
func (c *Conn) Link(index int) (Link, error) {
	if index <= 0 {
		return Link{}, &Error{Op: "get link", Index: index, Err: ErrNotFound}
	}
	l, err := c.getOne(infoOf(index))
	if err != nil {
		return Link{}, &Error{Op: "get link", Index: index, Err: err}
	}
	return l, nil
}

// LinkByName returns the interface with that name, or an error that wraps [ErrNotFound].
func (c *Conn) LinkByName(name string) (Link, error) {
	l, err := c.getOne(nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err != nil {
		return Link{}, &Error{Op: "get link", Name: name, Err: err}
	}
	return l, nil
}

func (c *Conn) getOne(parts ...nl.NetlinkRequestData) (Link, error) {
	msgs, err := c.request(unix.RTM_GETLINK, 0, parts...)
	if err != nil {
		return Link{}, err
	}
	if len(msgs) != 1 {
		return Link{}, fmt.Errorf("%d answers instead of one", len(msgs))
	}
	return parseLink(msgs[0])
}

// Links returns all interfaces of the namespace in the order of their indices.
func (c *Conn) Links() ([]Link, error) {
	var msgs [][]byte
	err := error(nl.ErrDumpInterrupted)
	// A dump that interfaces come and go under is repeated; at the last attempt it is good enough.
	for try := 0; try < 10 && errors.Is(err, nl.ErrDumpInterrupted); try++ {
		msgs, err = c.request(unix.RTM_GETLINK, unix.NLM_F_DUMP, nl.NewIfInfomsg(unix.AF_UNSPEC))
	}
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) {
		return nil, &Error{Op: "list links", Err: err}
	}
	links := make([]Link, 0, len(msgs))
	for _, m := range msgs {
		l, err := parseLink(m)
		if err != nil {
			return nil, &Error{Op: "list links", Err: err}
		}
		links = append(links, l)
	}
	return links, nil
}

var errShort = errors.New("short message from the kernel")

// parseLink reads a struct ifinfomsg and its attributes (uapi linux/if_link.h).
func parseLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, errShort
	}
	flags := native.Uint32(b[8:])
	l := Link{
		Index:    int(int32(native.Uint32(b[4:]))),
		Up:       flags&unix.IFF_UP != 0,
		OperUp:   flags&unix.IFF_RUNNING != 0,
		Promisc:  flags&unix.IFF_PROMISC != 0,
		AllMulti: flags&unix.IFF_ALLMULTI != 0,
	}
	err := eachAttr(b[unix.SizeofIfInfomsg:], l.attr)
	return l, err
}

// nlaTypeMask leaves out NLA_F_NESTED and NLA_F_NET_BYTEORDER of uapi linux/netlink.h.
const nlaTypeMask = 0x3fff

// eachAttr walks netlink attributes. It stops at the first that does not fit.
func eachAttr(b []byte, f func(typ uint16, v []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		n, typ := int(native.Uint16(b)), native.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			return errShort
		}
		if err := f(typ&nlaTypeMask, b[unix.SizeofRtAttr:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

func (l *Link) attr(typ uint16, v []byte) error {
	switch typ {
	case unix.IFLA_IFNAME:
		l.Name = unix.ByteSliceToString(v)
	case unix.IFLA_ADDRESS:
		l.MAC = net.HardwareAddr(bytes.Clone(v))
	case unix.IFLA_MTU:
		return readInt(v, &l.MTU)
	case unix.IFLA_MIN_MTU:
		return readInt(v, &l.MinMTU)
	case unix.IFLA_MAX_MTU:
		return readInt(v, &l.MaxMTU)
	case unix.IFLA_TXQLEN:
		return readInt(v, &l.TxQueueLen)
	case unix.IFLA_GSO_MAX_SIZE:
		return readInt(v, &l.GSOMaxSize)
	case unix.IFLA_GSO_IPV4_MAX_SIZE:
		return readInt(v, &l.GSOIPv4MaxSize)
	case unix.IFLA_TSO_MAX_SIZE:
		return readInt(v, &l.TSOMaxSize)
	case unix.IFLA_CARRIER:
		return readBool(v, &l.Carrier)
	case unix.IFLA_STATS64:
		return l.Stats.parse(v)
	case unix.IFLA_LINKINFO:
		return l.parseInfo(v)
	}
	return nil
}

func (l *Link) parseInfo(b []byte) error {
	return eachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case unix.IFLA_INFO_KIND:
			l.Kind = unix.ByteSliceToString(v)
		case unix.IFLA_INFO_DATA:
			if l.Kind == "tun" { // the kernel puts the kind first: rtnl_link_fill
				return eachAttr(v, l.tunAttr)
			}
		}
		return nil
	})
}

// IFLA_TUN_* of uapi linux/if_link.h, since Linux 4.17.
const (
	iflaTunPersist           = 6
	iflaTunNumQueues         = 8
	iflaTunNumDisabledQueues = 9
)

func (l *Link) tunAttr(typ uint16, v []byte) error {
	switch typ {
	case iflaTunPersist:
		return readBool(v, &l.Persistent)
	case iflaTunNumQueues, iflaTunNumDisabledQueues:
		n := 0
		err := readInt(v, &n)
		l.TunQueues += n
		return err
	}
	return nil
}

// parse reads struct rtnl_link_stats64, of which newer kernels have more than the first eight.
func (s *Stats) parse(b []byte) error {
	fields := [...]*uint64{&s.RxPackets, &s.TxPackets, &s.RxBytes, &s.TxBytes,
		&s.RxErrors, &s.TxErrors, &s.RxDropped, &s.TxDropped}
	if len(b) < 8*len(fields) {
		return errShort
	}
	for i, f := range fields {
		*f = native.Uint64(b[8*i:])
	}
	return nil
}

func readInt(b []byte, v *int) error {
	if len(b) < 4 {
		return errShort
	}
	*v = int(native.Uint32(b))
	return nil
}

func readBool(b []byte, v *bool) error {
	if len(b) < 1 {
		return errShort
	}
	*v = b[0] != 0
	return nil
}
