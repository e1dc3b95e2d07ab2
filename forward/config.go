// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"fmt"
	"net/netip"

	"github.com/rtap-project/rtap/mbuf"
)

// Limits and defaults, testpmd's (app/test-pmd/testpmd.h).
const (
	DefaultBurst = 32  // packets per burst
	MaxBurst     = 512 // MAX_PKT_BURST

	DefaultTxPktLen = 64  // bytes of a txonly packet, without FCS
	MinTxPktLen     = 42  // Ethernet, IPv4 and UDP headers
	MaxTxSegs       = 255 // segments of a txonly packet
	MaxTxPktLen     = 65535
)

// Config says what to do with the ports. Its zero value forwards in io mode, one worker, ports in pairs.
type Config struct {
	// Mode is the name of a forwarding mode ("": io). See [Modes].
	Mode string
	// Burst is how many packets a stream asks for at a time: 1 to MaxBurst (0: DefaultBurst).
	Burst int
	// Cores is the number of workers (0: 1). More than there are streams are not started, as in testpmd.
	Cores int
	// Topology pairs the ports (zero: Paired). icmpecho answers on the port it received from regardless.
	Topology Topology

	// NumProcs is how many processes share the ports (0: 1), and ProcID the number of this one among them, from 0, as
	// testpmd's --num-procs and --proc-id. Of a port with n queues, which must be a multiple of NumProcs, this
	// Forwarder has streams for queues ProcID*n/NumProcs up to, and without, (ProcID+1)*n/NumProcs. The others' queues
	// are never called: they may be nil.
	NumProcs, ProcID int

	// EthPeers gives, by number of the *sending* port, the destination MAC address that mac, csum and txonly write.
	// A port that is not in it has testpmd's default, 02:00:00:00:00:NN with NN the port's number.
	EthPeers map[int][6]byte
	// TxRetries is how often a stream offers the rest of a burst again when the Tx queue did not take all of
	// it, before it drops the rest (0: drops at once, testpmd's default).
	TxRetries int

	// TxPkts has the lengths of a txonly packet's segments in bytes, at most MaxTxSegs of them, in sum
	// MinTxPktLen to MaxTxPktLen (nil: one of DefaultTxPktLen).
	TxPkts []int
	// TxIPSrc and TxIPDst are the IPv4 addresses in txonly packets (zero: 198.18.0.1 and 198.18.0.2, of the
	// block that RFC 2544 sets apart for benchmarks).
	TxIPSrc, TxIPDst netip.Addr
	// TxUDPSrc and TxUDPDst are the UDP ports in txonly packets (0: 9, discard).
	TxUDPSrc, TxUDPDst uint16
	// Alloc gives a worker the mbufs that it builds packets from; only txonly and mtu call it, once for each
	// worker, in New. The same *mbuf.Pool may be returned for all; an mbuf.Cache may serve one worker only. The
	// allocator stays the caller's, who closes it after Run has returned.
	Alloc func(worker int) mbuf.Allocator

	// Csum says what modes csum and mtu leave to the sending ports (zero: nothing).
	Csum CsumConfig

	// Owned has the IPv4 and IPv6 addresses that icmpecho answers for (nil: all there are).
	Owned []netip.Addr

	// Idle is what a worker does after a round in which none of its streams had a packet (nil: see [Worker]).
	Idle IdleFunc
}

// ConfigError is a Config value that cannot be used.
type ConfigError struct {
	Field string // the field, with its index where it has one: "TxPkts[1]"
	Value any    // what it was
	Want  string // what would be right
}

// Error names the field, the value and what would be right.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("forward: %s is %v: %s", e.Field, e.Value, e.Want)
}

// complete checks c and fills in the defaults. c is a copy of the caller's.
func (c *Config) complete() error {
	setDefault(&c.Mode, "io")
	setDefault(&c.Burst, DefaultBurst)
	setDefault(&c.Cores, 1)
	setDefault(&c.NumProcs, 1)
	switch {
	case c.Burst < 1 || c.Burst > MaxBurst:
		return &ConfigError{"Burst", c.Burst, fmt.Sprintf("must be 1 to %d packets", MaxBurst)}
	case c.Cores < 1:
		return &ConfigError{"Cores", c.Cores, "must be 1 or more workers"}
	case c.Topology > Loop:
		return &ConfigError{"Topology", c.Topology, "must be paired, chained or loop"}
	case c.NumProcs < 1:
		return &ConfigError{"NumProcs", c.NumProcs, "must be 1 or more processes"}
	case c.ProcID < 0 || c.ProcID >= c.NumProcs:
		return &ConfigError{"ProcID", c.ProcID, fmt.Sprintf("must be 0 to %d, as there are %d processes", c.NumProcs-1, c.NumProcs)}
	case c.TxRetries < 0:
		return &ConfigError{"TxRetries", c.TxRetries, "must be 0 or more"}
	}
	for i, a := range c.Owned {
		if !a.IsValid() || a.IsMulticast() || a.IsUnspecified() {
			return &ConfigError{fmt.Sprintf("Owned[%d]", i), a, "must be a unicast address"}
		}
	}
	if err := c.Csum.check(); err != nil {
		return err
	}
	return c.completeTx()
}

// completeTx checks what txonly needs.
func (c *Config) completeTx() error {
	setDefault(&c.TxIPSrc, netip.AddrFrom4([4]byte{198, 18, 0, 1}))
	setDefault(&c.TxIPDst, netip.AddrFrom4([4]byte{198, 18, 0, 2}))
	setDefault(&c.TxUDPSrc, 9)
	setDefault(&c.TxUDPDst, 9)
	if c.TxPkts == nil {
		c.TxPkts = []int{DefaultTxPktLen}
	}
	if !c.TxIPSrc.Is4() {
		return &ConfigError{"TxIPSrc", c.TxIPSrc, "must be an IPv4 address"}
	}
	if !c.TxIPDst.Is4() {
		return &ConfigError{"TxIPDst", c.TxIPDst, "must be an IPv4 address"}
	}
	return checkTxPkts(c.TxPkts)
}

func checkTxPkts(segs []int) error {
	if len(segs) < 1 || len(segs) > MaxTxSegs {
		return &ConfigError{"TxPkts", segs, fmt.Sprintf("must have 1 to %d segments", MaxTxSegs)}
	}
	total := 0
	for i, n := range segs {
		if n < 1 || n > MaxTxPktLen {
			return &ConfigError{fmt.Sprintf("TxPkts[%d]", i), n, fmt.Sprintf("must be 1 to %d bytes", MaxTxPktLen)}
		}
		total += n
	}
	if total < MinTxPktLen || total > MaxTxPktLen {
		return &ConfigError{"TxPkts", segs, fmt.Sprintf("must be %d (Ethernet, IPv4 and UDP headers) to %d bytes in sum, not %d",
			MinTxPktLen, MaxTxPktLen, total)}
	}
	return nil
}

// peer is the destination MAC address of what port sends.
func (c *Config) peer(port int) [6]byte {
	if mac, ok := c.EthPeers[port]; ok {
		return mac
	}
	return [6]byte{0x02, 0, 0, 0, 0, byte(port)}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
