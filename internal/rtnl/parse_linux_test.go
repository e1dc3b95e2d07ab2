// SPDX-License-Identifier: BSD-3-Clause

package rtnl

import (
	"bytes"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// build is parseLink's counterpart.
func build(l Link) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	native.PutUint32(b[4:], uint32(l.Index))
	var flags uint32
	for flag, on := range map[uint32]bool{unix.IFF_UP: l.Up, unix.IFF_RUNNING: l.OperUp,
		unix.IFF_PROMISC: l.Promisc, unix.IFF_ALLMULTI: l.AllMulti} {
		if on {
			flags |= flag
		}
	}
	native.PutUint32(b[8:], flags)
	attr := func(typ uint16, v []byte) []byte {
		a := native.AppendUint16(nil, uint16(4+len(v)))
		a = append(native.AppendUint16(a, typ), v...)
		for len(a)%4 != 0 {
			a = append(a, 0)
		}
		return a
	}
	u32 := func(v int) []byte { return native.AppendUint32(nil, uint32(v)) }
	u8 := func(v bool) []byte {
		if v {
			return []byte{1}
		}
		return []byte{0}
	}
	var stats []byte
	s := reflect.ValueOf(l.Stats)
	for _, f := range []string{"RxPackets", "TxPackets", "RxBytes", "TxBytes", "RxErrors", "TxErrors", "RxDropped", "TxDropped"} {
		stats = native.AppendUint64(stats, s.FieldByName(f).Uint())
	}
	info := attr(unix.IFLA_INFO_KIND, append([]byte(l.Kind), 0))
	if l.Kind == "tun" {
		info = append(info, attr(unix.IFLA_INFO_DATA|unix.NLA_F_NESTED,
			append(attr(iflaTunPersist, u8(l.Persistent)), attr(iflaTunNumQueues, u32(l.TunQueues))...))...)
	}
	return bytes.Join([][]byte{b,
		attr(unix.IFLA_IFNAME, append([]byte(l.Name), 0)), attr(unix.IFLA_ADDRESS, l.MAC), attr(unix.IFLA_MTU, u32(l.MTU)),
		attr(unix.IFLA_MIN_MTU, u32(l.MinMTU)), attr(unix.IFLA_MAX_MTU, u32(l.MaxMTU)), attr(unix.IFLA_TXQLEN, u32(l.TxQueueLen)),
		attr(unix.IFLA_GSO_MAX_SIZE, u32(l.GSOMaxSize)), attr(unix.IFLA_GSO_IPV4_MAX_SIZE, u32(l.GSOIPv4MaxSize)), attr(unix.IFLA_TSO_MAX_SIZE, u32(l.TSOMaxSize)),
		attr(unix.IFLA_CARRIER, u8(l.Carrier)), attr(unix.IFLA_STATS64, stats), attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info),
	}, nil)
}

var full = Link{Index: 7, Name: "rtap0", Kind: "tun", MAC: []byte{2, 0, 0, 0, 0, 1}, MTU: 1500, MinMTU: 68, MaxMTU: 65521,
	TxQueueLen: 1000, GSOMaxSize: 9000, GSOIPv4MaxSize: 9001, TSOMaxSize: 65536, Up: true, Carrier: true, OperUp: true, Promisc: true, AllMulti: true, Persistent: true, TunQueues: 5,
	Stats: Stats{1, 2, 3, 4, 5, 6, 7, 1 << 40}}

func TestParseLink(t *testing.T) {
	got, err := parseLink(build(full))
	if err != nil || !reflect.DeepEqual(got, full) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, full)
	}
	// Nothing that is cut off is read past its end, and what is cut off within an attribute is an error.
	msg := build(full)
	for n := range msg {
		if _, err := parseLink(msg[:n:n]); err == nil && n < unix.SizeofIfInfomsg {
			t.Errorf("%d bytes are a link", n)
		}
	}
}

// Whatever parses parses to the same again after being built from that.
func FuzzParseLink(f *testing.F) {
	f.Add(build(full))
	f.Add(build(Link{Index: 1, Name: "lo"}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLink(b)
		if err != nil || len(l.Name) > 255 || len(l.Kind) > 255 || len(l.MAC) > 255 {
			return
		}
		if l.Kind != "tun" {
			l.Persistent, l.TunQueues = false, 0
		}
		if l.MAC == nil {
			l.MAC = []byte{}
		}
		if l.Index, l.MTU = int(int32(l.Index)), int(uint32(l.MTU)); l.Index < 0 || uint64(l.TunQueues) > 1<<31-1 { // a sum: too many to be said in one attribute
			return
		}
		again, err := parseLink(build(l))
		if again.MAC == nil {
			again.MAC = []byte{}
		}
		if err != nil || !reflect.DeepEqual(again, l) {
			t.Errorf("%v\n got %+v\nwant %+v", err, again, l)
		}
	})
}
