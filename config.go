// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/rtap-project/rtap/internal/pktio"
	"github.com/rtap-project/rtap/mbuf"
)

// Limits and defaults of a port. MaxQueues is half of what the kernel allows
// (MAX_TAP_QUEUES in drivers/net/tun.c).
const (
	MaxQueues = 128

	MinMTU     = 68    // ETH_MIN_MTU
	MaxMTU     = 65521 // of a TAP: 65535 less the Ethernet header
	MaxTunMTU  = 65535 // of a TUN
	DefaultMTU = 1500

	DefaultName       = "rtap%d"
	DefaultTxQueueLen = 1000 // packets that wait in the kernel for each Rx queue
	maxTxQueueLen     = 1 << 20

	DefaultRingSize = 256 // the most packets one system call moves
	MaxRingSize     = pktio.MaxDepth
	DefaultBurst    = 64
)

// maxNameLen is IFNAMSIZ-1 (include/uapi/linux/if.h).
const maxNameLen = 15

// Engine is a way of moving packets between the kernel and the program.
type Engine string

// The engines. EngineAuto takes io_uring where it works and system calls
// elsewhere; [Info.EngineReason] says which and why.
const (
	EngineAuto    Engine = pktio.Auto
	EngineUring   Engine = pktio.Uring
	EngineSyscall Engine = pktio.Syscall
)

// Config says what interface to open. The zero value works.
type Config struct {
	// Name of the interface, at most 15 bytes; "%d" in it is replaced by the
	// kernel with the first free number. Empty means DefaultName. A persistent
	// interface of that name and Mode that nobody uses is taken over.
	Name string

	// Mode is what packets begin with: ModeTAP, an Ethernet header, or ModeTUN, an IP header. Empty
	// means ModeTAP.
	Mode Mode

	// Persist leaves the interface behind when the device is closed.
	Persist bool

	// MTU in bytes, MinMTU to MaxMTU, of a TUN to MaxTunMTU. 0 leaves it as it is: DefaultMTU for a
	// new interface.
	MTU int

	// MAC is the interface's Ethernet address, six bytes, unicast. nil leaves
	// it as it is: random for a new interface. A TUN has none.
	MAC net.HardwareAddr

	// TxQueueLen is how many packets wait in the kernel for each Rx queue
	// before it drops (the interface's tx queue length). 0 means
	// DefaultTxQueueLen.
	TxQueueLen int

	// NoCarrier opens the interface without carrier; SetCarrier gives it one.
	NoCarrier bool

	// NoLinkUp has Start leave the link as it is: SetLinkUp, or "ip link set up", brings it up.
	NoLinkUp bool

	// NetNS is the path of the network namespace to create the interface in,
	// such as /run/netns/blue or /proc/1234/ns/net. Empty means the calling
	// thread's.
	NetNS string

	// Engine to use. Empty means EngineAuto.
	Engine Engine

	// Port is the number that received mbufs carry in Mbuf.Port, and by which other processes attach.
	Port uint16

	// FilePrefix publishes the port: other processes of this user, and root's, may attach to it by this name and
	// Port (see Attach). It is DPDK's --file-prefix, the name of a directory in RuntimeDir/dpdk. All ports
	// of one process may have the same; no two processes may. Empty means that the port is this process's alone.
	FilePrefix string

	// RuntimeDir is where. Empty means as DPDK finds it: $RUNTIME_DIRECTORY, /var/run for root,
	// $XDG_RUNTIME_DIR, /tmp.
	RuntimeDir string

	// Shared lets the program hand the port's queues to other processes of its own by Share, without leases.
	Shared bool

	// MayLease is asked before a process is given queues that it wants to lease; what it returns is the
	// process's error. It must not call the Device's methods. nil means that all may.
	MayLease func(who Process, queues []int) error

	// Log gets what the control plane has to say: the engine that was taken
	// and why, what had to be done without, each change of the link (see
	// Events), the interface's removal. nil means nothing is logged.
	// Nothing is ever logged per packet.
	Log *slog.Logger

	// What follows is for [Start] alone.

	// Queues is how many queue pairs, 1 to MaxQueues. 0 means 1.
	Queues int

	// RxRing and TxRing are the ring sizes of each queue; see RxConfig.Ring.
	RxRing, TxRing int

	// Memory that received packets are put into; see RxConfig.Memory.
	Memory Memory

	// RxOffloads, TxOffloads and MaxLROPktSize are those of PortConfig.
	RxOffloads, TxOffloads uint64
	MaxLROPktSize          int
}

// Memory is where an Rx queue gets its mbufs from. *mbuf.Pool and *mbuf.Cache
// are Memory.
type Memory interface {
	mbuf.Allocator
	// DataRoom and Headroom are the bytes that each mbuf has for data, and
	// before it.
	DataRoom() int
	Headroom() int
	// Regions is the memory that all its mbufs lie in; see TxConfig.Regions.
	Regions() []mbuf.Region
}

// PortConfig is how many queues a port has and what it does to packets (struct
// rte_eth_conf and the queue counts of rte_eth_dev_configure).
type PortConfig struct {
	// RxQueues and TxQueues, 1 to MaxQueues, must be equal: a queue pair is one
	// descriptor of /dev/net/tun.
	RxQueues, TxQueues int

	// RxOffloads are done to packets that are received, TxOffloads may be asked for
	// by packets that are sent: RxOffload* and TxOffload*, of those in Info. 0 means
	// that packets are received and sent as they are.
	RxOffloads, TxOffloads uint64

	// MaxLROPktSize bounds LRO frames, in bytes with the Ethernet header, if there is one: 1024 to
	// MaxLROPktSize. 0 means as large as the kernel makes them and the mbufs take
	// them. Small frames are slow: 64 KB are worth six times 8 KB.
	MaxLROPktSize int
}

// RxConfig says how an Rx queue works.
type RxConfig struct {
	// Ring is the most packets that one Burst returns, 1 to MaxRingSize. 0
	// means DefaultRingSize.
	Ring int

	// Memory for received packets. A frame that does not fit one mbuf is
	// scattered over several. It must not be closed before the queue is
	// released, or a Tx queue that registered its regions. A *mbuf.Pool may be
	// shared by any number of queues and ports; the driver gives each queue a
	// cache of it. A *mbuf.Cache belongs to the goroutine that polls this queue.
	// Of any other Memory, FreeBulk may be called by Stop, SetMTU and whatever
	// else shuts the queue, in their goroutine. nil means a
	// pool that the device's queues share and that is closed with the device:
	// mbufs of 2048 bytes, twice the ring for each queue; of 64 KB with LRO, unless
	// frames may be scattered.
	Memory Memory
}

// TxConfig says how a Tx queue works.
type TxConfig struct {
	// Ring is the most packets that one system call sends, 1 to MaxRingSize; a
	// longer Burst takes several. 0 means DefaultRingSize.
	Ring int

	// Free takes sent mbufs back. nil means mbuf.FreeBulk, which gives each to
	// its pool. Where one goroutine receives and sends, one *mbuf.Cache here
	// and in RxConfig.Memory spares the pool.
	Free mbuf.Allocator

	// Regions are registered with the kernel, which makes sending mbufs that
	// lie there cheaper; others are sent too. They must stay mapped until the
	// queue is released. nil means the memory of this device's Rx queues that
	// are set up already.
	Regions []mbuf.Region
}

// withDefaults is c with defaults filled in, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.TxQueueLen == 0 {
		c.TxQueueLen = DefaultTxQueueLen
	}
	if c.Mode == "" {
		c.Mode = ModeTAP
	}
	if c.Engine == "" {
		c.Engine = EngineAuto
	}
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, c.check()
}

func (c *Config) check() error {
	if err := checkName(c.Name); err != nil {
		return err
	}
	if err := c.checkMode(); err != nil {
		return err
	}
	if err := checkRange("Config.TxQueueLen", c.TxQueueLen, 1, maxTxQueueLen); err != nil {
		return err
	}
	if err := checkEngine(c.Engine); err != nil {
		return err
	}
	if err := checkRange("Config.RxRing", cmp.Or(c.RxRing, DefaultRingSize), 1, MaxRingSize); err != nil {
		return err
	}
	if err := checkRange("Config.TxRing", cmp.Or(c.TxRing, DefaultRingSize), 1, MaxRingSize); err != nil {
		return err
	}
	return checkRange("Config.Queues", c.Queues, 1, MaxQueues)
}

// checkMode checks the mode and what depends on it.
func (c *Config) checkMode() error {
	if err := c.Mode.check(); err != nil {
		return err
	}
	l2 := c.Mode.layer2()
	if c.MTU != 0 {
		if err := checkRange("Config.MTU", c.MTU, MinMTU, l2.maxMTU()); err != nil {
			return err
		}
	}
	switch {
	case c.MAC == nil:
		return nil
	case l2.isTUN():
		return &ConfigError{"Config.MAC", c.MAC, "none: a TUN has no MAC address"}
	}
	return checkMAC("Config.MAC", c.MAC)
}

func checkEngine(e Engine) error {
	switch e {
	case EngineAuto, EngineUring, EngineSyscall:
		return nil
	}
	return &ConfigError{"Config.Engine", fmt.Sprintf("%q", e), "auto, uring or syscall"}
}

// checkName does what dev_valid_name of net/core/dev.c does, and what the tun
// driver adds.
func checkName(name string) error {
	bad := func(want string) error {
		return &ConfigError{"Config.Name", fmt.Sprintf("%q", name), want}
	}
	switch {
	case len(name) > maxNameLen:
		return bad(fmt.Sprintf("at most %d bytes, it has %d", maxNameLen, len(name)))
	case name == "." || name == "..":
		return bad("an interface name")
	case strings.ContainsAny(name, "/: \t\n\v\f\r\x00"):
		return bad("a name without slash, colon, space or NUL")
	case strings.Count(name, "%") > 1 || strings.Count(name, "%") != strings.Count(name, "%d"):
		return bad("at most one %, as %d")
	}
	return nil
}

func checkMAC(field string, mac net.HardwareAddr) error {
	switch {
	case len(mac) != 6:
		return &ConfigError{field, mac, "six bytes"}
	case mac[0]&1 != 0:
		return &ConfigError{field, mac, "a unicast address"}
	case [6]byte(mac) == [6]byte{}:
		return &ConfigError{field, mac, "an address that is not zero"}
	}
	return nil
}

func checkRange(field string, v, lo, hi int) error {
	if v < lo || v > hi {
		return &ConfigError{field, v, fmt.Sprintf("%d to %d", lo, hi)}
	}
	return nil
}

func (c PortConfig) check() error {
	if err := checkRange("PortConfig.RxQueues", c.RxQueues, 1, MaxQueues); err != nil {
		return err
	}
	if err := checkRange("PortConfig.TxQueues", c.TxQueues, 1, MaxQueues); err != nil {
		return err
	}
	if c.RxQueues != c.TxQueues {
		return &ConfigError{"PortConfig.TxQueues", c.TxQueues,
			fmt.Sprintf("%d, as many as RxQueues, because a queue pair is one descriptor", c.RxQueues)}
	}
	return nil
}
