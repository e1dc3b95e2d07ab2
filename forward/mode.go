// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"errors"
	"fmt"
	"strings"

	"github.com/rtap-project/rtap/mbuf"
)

// ErrUnknownMode is wrapped by the error of [ModeByName] and [New] for a name that is not in [Modes].
var ErrUnknownMode = errors.New("unknown forwarding mode")

// Mode is one way to treat packets between receiving and sending.
type Mode struct {
	Name string // testpmd's name, as in --forward-mode
	Help string // one line for a usage text

	// loop makes every stream answer on the port it receives from, whatever the topology.
	loop bool
	// alloc says that the mode needs Config.Alloc.
	alloc bool
	// ether says that the mode is about MAC addresses, which an IP port does not have.
	ether bool
	// through says that what one port receives another one sends: both must have the same kind of packets.
	through bool
	// source says that the mode sends what it has not received.
	source bool
	// bind makes a stream's burst function: one burst each call, returning how many packets it received or
	// built, so that 0 means that there was nothing to do.
	bind func(s *Stream, c *Config, a mbuf.Allocator) (func() int, error)
}

// modes is the table of modes, in the order of a usage text. A new mode is a file with a bind function and a
// line here.
var modes = []Mode{
	{Name: "io", Help: "forward packets as they are (default)", through: true, bind: bindIO},
	{Name: "mac", Help: "set the source to the port's MAC address, the destination to the peer's", ether: true, through: true, bind: bindMAC},
	{Name: "macswap", Help: "swap source and destination MAC addresses", ether: true, through: true, bind: bindMACSwap},
	{Name: "rxonly", Help: "receive and free, send nothing", bind: bindRxOnly},
	{Name: "txonly", Help: "send UDP packets built by --txpkts, receive nothing", alloc: true, source: true, bind: bindTxOnly},
	{Name: "icmpecho", Help: "answer ARP, IPv6 neighbour discovery and ping on the port they came from", loop: true, bind: bindICMPEcho},
	{Name: "csum", Help: "make every checksum right, in software or by the driver; addresses as in mac", through: true, bind: bindCsum},
	{Name: "mtu", Help: "cut large frames into packets and merge them again, otherwise as io", alloc: true, through: true, bind: bindMTU},
}

// Receives reports whether the mode has something to do only when a packet has come, so that a worker may sleep
// until then.
func (m Mode) Receives() bool { return !m.source }

// Modes returns the modes in the order of a usage text. The caller may change the slice.
func Modes() []Mode { return append([]Mode(nil), modes...) }

// ModeByName finds a mode by testpmd's name for it. The error wraps [ErrUnknownMode] and lists the names.
func ModeByName(name string) (Mode, error) {
	names := make([]string, len(modes))
	for i, m := range modes {
		if m.Name == name {
			return m, nil
		}
		names[i] = m.Name
	}
	return Mode{}, fmt.Errorf("forward: %w %q: there are %s", ErrUnknownMode, name, strings.Join(names, ", "))
}
