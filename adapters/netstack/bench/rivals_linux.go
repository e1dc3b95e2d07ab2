// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/link/tun"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/adapters/netstack"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/rtnl"
)

// ifName is the interface's.
const ifName = "bench0"

// rival is an endpoint over an interface called ifName in the current namespace.
type rival struct {
	name, help string
	open       func() (stack.LinkEndpoint, error)
}

// What fdbased can be told for a descriptor of /dev/net/tun is little: it is no socket, so that RecvMMsg and PacketMMap fall
// back to Readv, packets are written one by one, and there is neither GSO nor a virtio-net header. The kernel completes
// checksums before it hands packets over, so they need not be verified. What is left is GRO, and how many
// goroutines handle packets.
var rivals = []*rival{
	{"rtap", "package netstack on a TAP", rtapOn(rtap.Config{})},
	{"rtap-tun", "the same on a TUN", rtapOn(rtap.Config{Mode: rtap.ModeTUN})},
	{"rtap-syscall", "the same on a TAP, without io_uring", rtapOn(rtap.Config{Engine: rtap.EngineSyscall})},
	{"fdbased", "fdbased on a TAP, Readv, GRO, packets handled where they are read", fdbasedOn(false, true, 1)},
	{"fdbased-nogro", "the same without GRO", fdbasedOn(false, false, 1)},
	{"fdbased-procs", "the same with GRO and a second goroutine that handles packets", fdbasedOn(false, true, 2)},
	{"fdbased-tun", "fdbased on a TUN, GRO", fdbasedOn(true, true, 1)},
}

func find(name string) *rival {
	if i := slices.IndexFunc(rivals, func(r *rival) bool { return r.name == name }); i >= 0 {
		return rivals[i]
	}
	return nil
}

func rtapOn(port rtap.Config) func() (stack.LinkEndpoint, error) {
	port.Name = ifName
	return func() (stack.LinkEndpoint, error) { return netstack.New(netstack.Config{Port: port}) }
}

func fdbasedOn(l3, gro bool, processors int) func() (stack.LinkEndpoint, error) {
	return func() (stack.LinkEndpoint, error) {
		open := tun.OpenTAP
		if l3 {
			open = tun.Open
		}
		fd, err := open(ifName)
		if err != nil {
			return nil, err
		}
		if err := deepen(); err != nil {
			return nil, err
		}
		return fdbased.New(&fdbased.Options{FDs: []int{fd}, MTU: rtap.DefaultMTU, EthernetHeader: !l3,
			Address: tcpip.LinkAddress("\x02\x00\x00\x00\x00\x02"), RXChecksumOffload: true, GRO: gro, ProcessorsPerChannel: processors})
	}
}

// deepen gives the interface a queue as long as rtap's.
func deepen() error {
	ns, err := netns.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	conn, err := rtnl.Dial(ns.FD())
	if err != nil {
		return err
	}
	defer conn.Close()
	link, err := conn.LinkByName(ifName)
	if err != nil {
		return err
	}
	return conn.SetTxQueueLen(link.Index, rtap.DefaultTxQueueLen)
}
