// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Features are the offloads of an interface that are on, as "ethtool -k" has them, by the names of
// net/ethtool/common.c: "rx-checksum", "tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-udp-segmentation"...
type Features map[string]bool

// ReadFeatures asks the kernel over netlink (Documentation/networking/ethtool-netlink.rst, Linux 5.7).
func ReadFeatures(ns *netns.NS, index int) (Features, error) {
	f := Features{}
	err := inside(ns, func() error {
		msgs, err := features(unix.ETHTOOL_MSG_FEATURES_GET, index, nil)
		if err != nil {
			return err
		}
		for _, m := range msgs {
			if err := f.parse(m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("traffic: features of interface %d: %w", index, err)
	}
	return f, nil
}

// SetFeatures switches features on or off, as "ethtool -K" does. What the interface cannot change stays as
// it is and is an error that names it and wraps EOPNOTSUPP.
func SetFeatures(ns *netns.NS, index int, want Features) error {
	bits := nl.NewRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		bit := bits.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(name))
		if want[name] {
			bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil)
		}
	}
	wanted := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_WANTED|unix.NLA_F_NESTED, nil)
	wanted.AddChild(bits)
	err := inside(ns, func() error {
		_, err := features(unix.ETHTOOL_MSG_FEATURES_SET, index, wanted)
		return err
	})
	if err != nil {
		return fmt.Errorf("traffic: set features of interface %d: %w", index, err)
	}
	got, err := ReadFeatures(ns, index)
	if err != nil {
		return err
	}
	for name, on := range want {
		if got[name] != on {
			return fmt.Errorf("traffic: set features of interface %d: %s stays %t: %w", index, name, got[name], unix.EOPNOTSUPP)
		}
	}
	return nil
}

// features sends a request about the features of an interface in the calling thread's namespace.
func features(command uint8, index int, more *nl.RtAttr) ([][]byte, error) {
	family, err := ethtoolFamily()
	if err != nil {
		return nil, err
	}
	header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
	header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_INDEX, nl.Uint32Attr(uint32(index)))
	req := nl.NewNetlinkRequest(int(family), unix.NLM_F_ACK)
	req.AddData(genlHeader{command, unix.ETHTOOL_GENL_VERSION})
	req.AddData(header)
	if more != nil {
		req.AddData(more)
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

// ethtoolFamily is the number that ethtool's messages go by.
func ethtoolFamily() (id uint16, err error) {
	req := nl.NewNetlinkRequest(unix.GENL_ID_CTRL, 0)
	req.AddData(genlHeader{unix.CTRL_CMD_GETFAMILY, 1})
	req.AddData(nl.NewRtAttr(unix.CTRL_ATTR_FAMILY_NAME, nl.ZeroTerminated(unix.ETHTOOL_GENL_NAME)))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, fmt.Errorf("family %s: %w", unix.ETHTOOL_GENL_NAME, err)
	}
	for _, m := range msgs {
		err = errors.Join(err, attrs(m[nl.SizeofGenlmsg:], func(typ uint16, v []byte) error {
			if typ == unix.CTRL_ATTR_FAMILY_ID && len(v) >= 2 {
				id = binary.NativeEndian.Uint16(v)
			}
			return nil
		}))
	}
	return id, err
}

// genlHeader is struct genlmsghdr: command, version and two bytes that are 0. The library's nl.Genlmsg has two bytes
// and sends four, so it reads whatever lies behind it, which the race detector rightly objects to.
type genlHeader [nl.SizeofGenlmsg]byte

func (h genlHeader) Len() int          { return len(h) }
func (h genlHeader) Serialize() []byte { return h[:] }

// parse takes a reply: of the sets in it, the one that is active, in which each bit has a name.
func (f Features) parse(msg []byte) error {
	return attrs(msg[nl.SizeofGenlmsg:], func(typ uint16, v []byte) error {
		if typ != unix.ETHTOOL_A_FEATURES_ACTIVE {
			return nil
		}
		return attrs(v, func(typ uint16, v []byte) error {
			if typ != unix.ETHTOOL_A_BITSET_BITS {
				return nil
			}
			return attrs(v, func(_ uint16, v []byte) error { return f.parseBit(v) })
		})
	})
}

func (f Features) parseBit(b []byte) error {
	return attrs(b, func(typ uint16, v []byte) error {
		if typ == unix.ETHTOOL_A_BITSET_BIT_NAME { // the set has no mask: who is in it is on
			f[string(bytes.TrimRight(v, "\x00"))] = true
		}
		return nil
	})
}

// attrs calls f for each attribute in b.
func attrs(b []byte, f func(typ uint16, v []byte) error) error {
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return fmt.Errorf("attribute of %d bytes in %d: %w", n, len(b), unix.EBADMSG)
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := f(typ, b[unix.SizeofNlAttr:n]); err != nil {
			return err
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return nil
}
