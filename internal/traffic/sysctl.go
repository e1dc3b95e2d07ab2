// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/rtap-project/rtap/internal/netns"
)

// Sysctl reads a setting of a namespace's network stack by its path under /proc/sys/net, such as
// "ipv4/tcp_ecn". The error wraps fs.ErrNotExist if this kernel has none of that name, or if it is not the
// namespace's own.
func Sysctl(ns *netns.NS, name string) (value string, err error) {
	var b []byte
	err = inside(ns, func() error {
		b, err = os.ReadFile(sysctlPath(name)) // of the thread that opens it
		return err
	})
	if err != nil {
		return "", fmt.Errorf("traffic: read sysctl: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// SetSysctl writes what [Sysctl] reads. It needs the namespace's root.
func SetSysctl(ns *netns.NS, name, value string) error {
	err := inside(ns, func() error {
		return os.WriteFile(sysctlPath(name), []byte(value), 0)
	})
	if err != nil {
		return fmt.Errorf("traffic: write sysctl: %w", err)
	}
	return nil
}

func sysctlPath(name string) string { return path.Join("/proc/sys/net", path.Clean("/"+name)) }

// Counters are what a namespace's protocols have counted since it was made: RFC 1213, RFC 4293 and
// Documentation/networking/snmp_counter.rst. IPv4 and IPv6 are added up where the kernel has one of each.
type Counters struct {
	TCPRetransSegs uint64 // segments sent again
	TCPInErrs      uint64 // segments received that were malformed, wrong checksums included
	// Received with a wrong checksum. The stack looks where nobody vouched for it.
	TCPInCsumErrors, UDPInCsumErrors, ICMPInCsumErrors uint64
	UDPInErrors                                        uint64 // datagrams received and not delivered
	IPInHdrErrors                                      uint64 // packets received with a wrong IP header
	IPInTruncatedPkts                                  uint64 // packets received that were shorter than they said
	InCEPkts, InECT0Pkts                               uint64 // packets received with that mark (RFC 3168)
	IPFragOKs, IPReasmOKs                              uint64 // packets sent in fragments, put together again
}

// counterNames say where each counter is: "protocol.name", as the files call them.
func counterNames(c *Counters) map[string]*uint64 {
	return map[string]*uint64{
		"Tcp.RetransSegs": &c.TCPRetransSegs, "Tcp.InErrs": &c.TCPInErrs, "Tcp.InCsumErrors": &c.TCPInCsumErrors,
		"Udp.InCsumErrors": &c.UDPInCsumErrors, "Udp6InCsumErrors": &c.UDPInCsumErrors,
		"Udp.InErrors": &c.UDPInErrors, "Udp6InErrors": &c.UDPInErrors,
		"Icmp.InCsumErrors": &c.ICMPInCsumErrors, "Icmp6InCsumErrors": &c.ICMPInCsumErrors,
		"Ip.InHdrErrors": &c.IPInHdrErrors, "Ip6InHdrErrors": &c.IPInHdrErrors,
		"IpExt.InTruncatedPkts": &c.IPInTruncatedPkts, "Ip6InTruncatedPkts": &c.IPInTruncatedPkts,
		"IpExt.InCEPkts": &c.InCEPkts, "Ip6InCEPkts": &c.InCEPkts,
		"IpExt.InECT0Pkts": &c.InECT0Pkts, "Ip6InECT0Pkts": &c.InECT0Pkts,
		"Ip.FragOKs": &c.IPFragOKs, "Ip6FragOKs": &c.IPFragOKs,
		"Ip.ReasmOKs": &c.IPReasmOKs, "Ip6ReasmOKs": &c.IPReasmOKs,
	}
}

// ReadCounters reads a namespace's counters. Linux only.
func ReadCounters(ns *netns.NS) (Counters, error) {
	var c Counters
	fields := counterNames(&c)
	err := inside(ns, func() error {
		for _, file := range []string{"snmp", "netstat", "snmp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil && !(file == "snmp6" && os.IsNotExist(err)) { // without IPv6 there is none
				return err
			}
			parseCounters(string(b), fields)
		}
		return nil
	})
	if err != nil {
		return c, fmt.Errorf("traffic: counters: %w", err)
	}
	return c, nil
}

// parseCounters adds what it finds to fields. In two of the files a line of names, after the protocol's, has
// the line of values below; in the third each line is a name and a value.
func parseCounters(text string, fields map[string]*uint64) {
	add := func(name, value string) {
		if p := fields[name]; p != nil {
			v, _ := strconv.ParseUint(value, 10, 64) // some are signed, none that we want
			*p += v
		}
	}
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && !strings.HasSuffix(f[0], ":"):
			add(f[0], f[1])
		case len(f) > 0 && len(names) == len(f) && names[0] == f[0]:
			for i := 1; i < len(f); i++ {
				add(strings.TrimSuffix(f[0], ":")+"."+names[i], f[i])
			}
			names = nil
		default:
			names = f
		}
	}
}

// Since is what was counted after before was read.
func (c Counters) Since(before Counters) Counters {
	now, then := counterNames(&c), counterNames(&before)
	done := make(map[*uint64]bool) // a counter has several names
	for name, p := range now {
		if !done[p] {
			*p -= *then[name]
			done[p] = true
		}
	}
	return c
}
