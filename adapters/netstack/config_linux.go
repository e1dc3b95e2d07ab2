// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// Config says what endpoint [New] makes. The zero value gives one on a new TAP with rtap's default name.
type Config struct {
	// Port is the interface to open: name, mode (TAP or TUN), MTU, queues, as for [rtap.Start]. The endpoint owns
	// the device, closes it in Close, and chooses its memory and offloads: Memory, RxOffloads, TxOffloads must not be set. A ring
	// has 64 entries if RxRing and TxRing do not say otherwise. Each queue has a goroutine that delivers its packets.
	Port rtap.Config

	// Device is a started port to use instead; Port must be zero then. It stays the caller's, who closes it after
	// the endpoint. Nobody else may call Burst on its queues meanwhile. The endpoint makes the best of the
	// offloads that are on: it wants TCPLRO, IPv4Cksum, TCPCksum and UDPCksum for receiving, TCPTSO and TCPCksum for sending.
	// UDPLRO and TunnelLRO must be off, and VLAN tags in the data.
	Device *rtap.Device

	// LinkAddress is the stack's Ethernet address, the other end of the wire from the kernel's interface, which has
	// its own. Empty means a random one. A TUN has none.
	LinkAddress tcpip.LinkAddress

	// Promiscuous hands frames for other Ethernet addresses to the stack too, as stack.BridgeEndpoint wants them. Otherwise
	// they are dropped.
	Promiscuous bool

	// Router is for stacks that forward packets: netstack forwards neither large frames nor checksums that are not
	// complete, so the kernel does both before it hands packets over. It costs speed.
	Router bool

	// TXChecksumOffload leaves the checksums of UDP, and of TCP's control packets, to the kernel
	// as well (stack.CapabilityTXChecksumOffload); those of TCP's data always are. Not for stacks that send UDP over IPv6 in fragments:
	// netstack leaves the checksum out, and nobody can add it to a fragment. Not with Router.
	TXChecksumOffload bool

	// Spin is for how long a dispatcher polls an idle queue before it sleeps. 0 means rtap.DefaultSpin,
	// negative that it sleeps at once.
	Spin time.Duration

	// Closed is called once, in a goroutine of its own, when the endpoint ceases to receive although it is attached: err wraps
	// rtap.ErrGone if the interface was deleted, rtap.ErrStopped or rtap.ErrClosed if the program
	// did that to its Device. It may call whatever it likes.
	Closed func(err error)
}

// What a port of the endpoint's own has.
const (
	defaultRing = 64 // larger batches gain nothing (docs/guide.md of rtap), and each entry may hold a view of 64 KB

	rxOffloads = rtap.RxOffloadTCPLRO | rtap.RxOffloadChecksum
	// unusable are those that a Device must not have: the stack would take several datagrams for one, and not see tags.
	unusable = rtap.RxOffloadUDPLRO | rtap.RxOffloadTunnelLRO | rtap.RxOffloadVLANStrip | rtap.RxOffloadQinQStrip

	// incomplete are those with which the kernel leaves TCP's or UDP's checksums incomplete.
	incomplete = rtap.RxOffloadTCPLRO | rtap.RxOffloadTCPCksum | rtap.RxOffloadUDPCksum

	txOffloads = rtap.TxOffloadTCPTSO | rtap.TxOffloadTCPCksum | rtap.TxOffloadUDPCksum | rtap.TxOffloadMultiSegs
)

// errConfig is wrapped by what New says of a Config.
var errConfig = errors.New("netstack: bad configuration")

func (c *Config) check() error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("%w: %s is %v: want %s", errConfig, field, value, want)
	}
	switch {
	case c.Device != nil && !reflect.ValueOf(c.Port).IsZero():
		return bad("Port", "set", "its zero value beside a Device")
	case c.Port.Mode == rtap.ModeTUN && c.LinkAddress != "":
		return bad("LinkAddress", fmt.Sprintf("%x", string(c.LinkAddress)), "none on a TUN")
	case c.Port.Memory != nil:
		return bad("Port.Memory", "set", "nil, the endpoint has its own")
	case c.Port.RxOffloads|c.Port.TxOffloads != 0:
		return bad("Port.RxOffloads or TxOffloads", "set", "0, the endpoint chooses them")
	case c.LinkAddress != "" && (len(c.LinkAddress) != header.EthernetAddressSize || c.LinkAddress[0]&1 != 0):
		return bad("LinkAddress", fmt.Sprintf("%x", string(c.LinkAddress)), "six bytes, unicast")
	case c.Router && c.TXChecksumOffload:
		return bad("TXChecksumOffload", true, "false with Router: a forwarded packet has its checksum")
	}
	return nil
}

// open makes the port that Config describes, and what it receives and sends with.
func (e *Endpoint) open(c *Config) (err error) {
	port := c.Port
	port.Queues = cmp.Or(port.Queues, 1)
	port.RxRing, port.TxRing = cmp.Or(port.RxRing, defaultRing), cmp.Or(port.TxRing, defaultRing)
	if e.dev, err = rtap.Open(port); err != nil {
		return err
	}
	e.own = true
	for range port.Queues {
		// A window of packets that the driver waits with, and a burst that is being delivered.
		m, err := newMemory(2 * port.RxRing)
		if err != nil {
			return err
		}
		e.mem = append(e.mem, m)
	}
	if err = e.makeSenders(port.Queues); err == nil {
		err = e.start(c, port)
	}
	return err
}

// borrow makes what the caller's port is sent through with.
func (e *Endpoint) borrow() error {
	if err := e.dev.Err(); err != nil {
		return err
	}
	info := e.dev.Info()
	if bad := info.EnabledRxOffloads & unusable; bad != 0 {
		return fmt.Errorf("%w: Device has the Rx offloads %v: want it without", errConfig, rtap.RxOffloadNames(bad))
	}
	queues := info.TxQueues
	ready := queues > 0
	for i := range queues {
		ready = ready && e.dev.RxQueue(i) != nil && e.dev.TxQueue(i) != nil
	}
	if !ready {
		return fmt.Errorf("%w: Device has queues that are not set up, or none: want a started port", errConfig)
	}
	return e.makeSenders(queues)
}

func (e *Endpoint) start(c *Config, port rtap.Config) error {
	dev := e.dev
	info := dev.Info()
	conf := rtap.PortConfig{RxQueues: port.Queues, TxQueues: port.Queues, MaxLROPktSize: port.MaxLROPktSize,
		RxOffloads: info.RxOffloads & rxOffloads, TxOffloads: info.TxOffloads & txOffloads}
	if c.Router {
		conf.RxOffloads = 0
	}
	if conf.RxOffloads&rtap.RxOffloadTCPLRO == 0 {
		conf.MaxLROPktSize = 0
	}
	if err := dev.Configure(conf); err != nil {
		return err
	}
	for i := range port.Queues {
		if err := dev.SetupRxQueue(i, rtap.RxConfig{Ring: port.RxRing, Memory: e.mem[i]}); err != nil {
			return err
		}
		tx := rtap.TxConfig{Ring: port.TxRing, Free: e.senders[i].cache, Regions: e.txPool.Regions()}
		if err := dev.SetupTxQueue(i, tx); err != nil {
			return err
		}
	}
	return dev.Start()
}

// randomAddress is a locally administered unicast address.
func randomAddress() tcpip.LinkAddress {
	var a [header.EthernetAddressSize]byte
	rand.Read(a[:]) // never fails (crypto/rand)
	a[0] = a[0]&^1 | 2
	return tcpip.LinkAddress(a[:])
}

// makeSenders makes the mbufs that packets are sent in, and a sender for each queue. Mbufs have headers and small pieces;
// larger ones are attached.
func (e *Endpoint) makeSenders(queues int) (err error) {
	e.txPool, err = mbuf.NewPool(mbuf.Config{Name: "netstack tx", Count: queues * txMbufs, DataRoom: txRoom})
	if err != nil {
		return err
	}
	for range queues {
		e.senders = append(e.senders, newSender(e.txPool, &e.stats))
	}
	return nil
}
