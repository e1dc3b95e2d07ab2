// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rtap-project/rtap/bench/internal/course"
	"github.com/rtap-project/rtap/internal/netns"
)

// rival is one way to get packets from one interface to another.
type rival struct {
	name, help string
	// A command that makes both interfaces and forwards between them: which program,
	// and with what arguments. raises says that it also brings them up, and that it
	// is not ready before; ready is what it says when it is.
	program string
	args    []string
	raises  bool
	ready   string
	// Or a direct connection.
	connect func(a, b *netns.NS) error
}

// race lets one rival run once.
func race(ctx context.Context, r rival, o options) (course.Result, error) {
	return course.Race(ctx, course.Config{Path: o.programs[r.program], Args: r.args, Raises: r.raises, Ready: r.ready, Connect: r.connect,
		Sender: o.sender, Time: o.time})
}

// rtap is the command of a forwarder that the driver is part of.
func rtap(args ...string) (string, []string) {
	return "rtap", append([]string{"run", "--stats-period=0", "--vdev=net_rtap0,iface=" + course.IfA, "--vdev=net_rtap1,iface=" + course.IfB}, args...)
}

// rivals is the table of rivals, in the order in which they take turns. A new one
// is a line here.
var rivals = []rival{
	{name: "veth-gso", help: "a veth pair, nothing in between: what the kernel can do", connect: connectVeth},
	{name: "veth", help: "the same with segmentation offload off (ethtool -K gso off tso off)", connect: connectVethPlain},
	driver("none", "rtap run --offloads=none: packet by packet", "--offloads=none"),
	driver("lro-64k", "rtap run --offloads=all: frames passed through, an mbuf of 64 KB for each", "--offloads=all"),
	driver("lro-16k", "likewise, mbufs of 16 KB, which bound the frames", "--offloads=all", "--mbuf-size=16512"),
	driver("lro-2k-chain", "likewise, frames of up to 64 KB in chains of mbufs of 2 KB", "--offloads=all", "--enable-scatter", "--mbuf-size=2176"),
	driver("mtu", "rtap run --forward-mode=mtu: frames cut to packets of the MTU, and put together again", "--offloads=all", "--forward-mode=mtu"),
	{name: "wgtun", help: "wireguard-go's package tun, Read to Write, between two TUNs: cuts and puts together too", program: "wgtun", args: []string{course.IfA, course.IfB},
		ready: "ready"},
}

func driver(name, help string, args ...string) rival {
	program, args := rtap(args...)
	return rival{name: name, help: help, program: program, args: args, raises: true}
}

// choose returns the rivals of these names, in the order of the table, or all.
func choose(names string) ([]rival, error) {
	if names == "" {
		return rivals, nil
	}
	want := strings.Split(names, ",")
	for _, name := range want {
		if !slices.ContainsFunc(rivals, func(r rival) bool { return r.name == name }) {
			return nil, fmt.Errorf("there is no rival %q", name)
		}
	}
	return slices.DeleteFunc(slices.Clone(rivals), func(r rival) bool { return !slices.Contains(want, r.name) }), nil
}

// programs is where the rivals' programs are, by name.
type programs map[string]string

// find fills in the programs that were not given: they lie beside this one.
func (p programs) find(chosen []rival) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, r := range chosen {
		if r.program == "" {
			continue
		}
		if p[r.program] == "" {
			p[r.program] = filepath.Join(filepath.Dir(self), r.program)
		}
		if _, err := os.Stat(p[r.program]); err != nil {
			return fmt.Errorf("rival %s: %w (build it, or say where it is with -%s)", r.name, err, r.program)
		}
	}
	return nil
}
