// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"fmt"
	"slices"
	"strings"
)

// XStat is one extended statistic. Its index in what XStats returns is its id.
type XStat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// xstat is a line of the tables below, which say all that there is. Documents are made
// from them.
type xstat[T any] struct {
	name  string // behind the queue's prefix, rx_q0_ or tx_q0_
	about string
	value func(v *T) uint64
}

// rxView and txView are what the statistics of a queue are made from.
type (
	rxView struct {
		counts
		window uint32
	}
	txView struct{ counts }
)

// portXStats are those that ethdev itself has for every port.
var portXStats = []xstat[Stats]{
	{"rx_good_packets", "packets received", func(s *Stats) uint64 { return s.IPackets }},
	{"tx_good_packets", "packets that the kernel accepted", func(s *Stats) uint64 { return s.OPackets }},
	{"rx_good_bytes", "bytes received, Ethernet header included, no FCS", func(s *Stats) uint64 { return s.IBytes }},
	{"tx_good_bytes", "bytes sent, likewise", func(s *Stats) uint64 { return s.OBytes }},
	{"rx_missed_errors", "packets that the kernel dropped because a queue was full",
		func(s *Stats) uint64 { return s.IMissed }},
	{"rx_errors", "packets lost on reading", func(s *Stats) uint64 { return s.IErrors }},
	{"tx_errors", "packets taken by Burst and not sent", func(s *Stats) uint64 { return s.OErrors }},
	{"rx_mbuf_allocation_errors", "mbufs that were wanted and not to be had",
		func(s *Stats) uint64 { return s.RxNoMbuf }},
}

// NumPortXStats is how many of what XStats begins with are of the whole port: those that DPDK's ethdev gives every
// port by itself, in this order (eth_dev_get_xstats_basic_count, without those of queues).
func NumPortXStats() int { return len(portXStats) }

// rxBasicXStats and txBasicXStats are those that ethdev has for every queue.
var (
	rxBasicXStats = []xstat[rxView]{
		{"packets", "packets received", func(v *rxView) uint64 { return v.packets() }},
		rxAt("bytes", "bytes received, Ethernet header and tags included, no FCS", cntBytes),
		{"errors", "packets lost on reading: the sum of error_*, but for error_ebadfd",
			func(v *rxView) uint64 { return v.rxErrors() }},
	}
	txBasicXStats = []xstat[txView]{
		{"packets", "packets that the kernel accepted", func(v *txView) uint64 { return v.packets() }},
		txAt("bytes", "bytes sent, Ethernet header and inserted tags included, no FCS", cntBytes),
	}
)

// rxXStats are the driver's own of an Rx queue: first those of the C driver.
var rxXStats = slices.Concat(
	rxSizes[:sizesOfC],
	[]xstat[rxView]{
		rxAt("broadcast_packets", "packets to the broadcast address; of a TUN none", cntBroadcast),
		rxAt("multicast_packets", "packets to other group addresses; of a TUN, which has no MAC addresses, none", cntMulticast),
		{"unicast_packets", "all other packets", func(v *rxView) uint64 { return v.unicast() }},
		rxAt("lro_packets", "packets that are several in one (RxLRO)", cntLarge),
		rxAt("checksum_good", "packets whose layer-4 checksum the kernel knows to be right", cntL4+cksumGood),
		rxAt("checksum_none", "packets whose layer-4 checksum is still to be completed", cntL4+cksumNone),
		rxAt("checksum_bad", "packets whose layer-4 checksum is wrong: always 0, for no kernel says so", cntL4+cksumBad),
		rxAt("mbuf_alloc_failed", "mbufs that a burst wanted and the memory did not have", cntNoMbuf),
	},
	rxSizes[sizesOfC:],
	[]xstat[rxView]{
		rxAt("multiseg_packets", "packets in more than one mbuf", cntMultiseg),
		{"checksum_unknown", "packets of whose layer-4 checksum nothing is known",
			func(v *rxView) uint64 { return v.cksumUnknown() }},
		rxAt("outer_checksum_none", "packets whose tunnel's UDP checksum is still to be completed", cntOuterNone),
		rxAt("ip_checksum_good", "packets whose IPv4 header's checksum is right, if the port looks (RxOffloadIPv4Cksum)",
			cntIP+cksumGood),
		rxAt("ip_checksum_bad", "packets whose IPv4 header's checksum is wrong, likewise", cntIP+cksumBad),
	},
	burstXStats(rxAt, "bursts that received %s"),
	[]xstat[rxView]{
		rxAt("enters", "calls of io_uring_enter(2)", cntEnters),
		rxAt("syscalls", "calls of read(2) or readv(2)", cntSyscalls),
		rxAt("empty_reads", "reads, of either kind, that found nothing", cntEmpty),
		rxAt("ring_full", "batches that the ring or the kernel did not take whole", cntFull),
		{"window", "packets that the next burst will look for; not a counter",
			func(v *rxView) uint64 { return uint64(v.window) }},
	},
	errnoXStats(rxAt, rxErrnos, "reads that failed with %s", "reads that failed otherwise"),
	[]xstat[rxView]{
		rxAt("error_length", "packets that were cut because they fill the mbufs for one, or that are none", cntLength),
		rxAt("error_header", "packets of which the kernel says what cannot be", cntHeader),
	},
)

// txXStats are those of a Tx queue.
var txXStats = slices.Concat(
	txSizes[:sizesOfC],
	[]xstat[txView]{
		txAt("broadcast_packets", "packets to the broadcast address; of a TUN none", cntBroadcast),
		txAt("multicast_packets", "packets to other group addresses; of a TUN, which has no MAC addresses, none", cntMulticast),
		{"unicast_packets", "all other packets", func(v *txView) uint64 { return v.unicast() }},
		txAt("tso_packets", "packets that asked for segmentation (TSO, USO)", cntLarge),
		txAt("checksum_offload", "packets that asked for a checksum of any layer; segmentation implies one", cntCksum),
		txAt("multiseg_packets", "packets in more than one mbuf", cntMultiseg),
	},
	txSizes[sizesOfC:],
	burstXStats(txAt, "bursts that took %s"),
	[]xstat[txView]{
		txAt("enters", "calls of io_uring_enter(2)", cntEnters),
		txAt("syscalls", "calls of write(2) or writev(2)", cntSyscalls),
		txAt("ring_full", "batches that the ring or the kernel did not take whole", cntFull),
	},
	errnoXStats(txAt, txErrnos, "packets refused with %s", "packets refused otherwise"),
	[]xstat[txView]{
		txAt("error_unsendable", "packets not given to the kernel: nil, too many segments, or asking for what cannot be",
			cntUnsent),
	},
)

func rxAt(name, about string, i int) xstat[rxView] {
	return xstat[rxView]{name, about, func(v *rxView) uint64 { return v.counts[i] }}
}

func txAt(name, about string, i int) xstat[txView] {
	return xstat[txView]{name, about, func(v *txView) uint64 { return v.counts[i] }}
}

// sizesOfC are how many sizes the C driver has; larger packets fall in none there.
const sizesOfC = 6

var rxSizes, txSizes = sizeXStats(rxAt), sizeXStats(txAt)

func sizeXStats[T any](at func(name, about string, i int) xstat[T]) (all []xstat[T]) {
	for i, name := range []string{"64", "65_to_127", "128_to_255", "256_to_511", "512_to_1023", "1024_to_1518",
		"1519_to_2047", "2048_to_4095", "4096_to_8191", "8192_to_16383", "16384_to_32767", "32768_to_max"} {
		about := "packets of so many bytes, as counted in bytes"
		if i == 0 {
			about = "packets of up to 64 bytes, as counted in bytes"
		}
		all = append(all, at("size_"+name+"_packets", about, cntSize+i))
	}
	return all
}

func burstXStats[T any](at func(name, about string, i int) xstat[T], about string) (all []xstat[T]) {
	for i, name := range []string{"0", "1", "2_to_3", "4_to_7", "8_to_15", "16_to_31", "32_to_63", "64_to_127",
		"128_to_255", "256_to_max"} {
		packets := "so many packets"
		if i == 0 {
			packets = "none"
		}
		all = append(all, at("bursts_"+name, fmt.Sprintf(about, packets), cntBurst+i))
	}
	return all
}

func errnoXStats[T any](at func(name, about string, i int) xstat[T], table []errnoName,
	about, other string) (all []xstat[T]) {
	for i, e := range table {
		all = append(all, at("error_"+e.name, fmt.Sprintf(about, strings.ToUpper(e.name)), cntErrno+i))
	}
	return append(all, at("error_other", other, cntOther))
}

// XStats reads the port's extended statistics: first those that ethdev itself has for every port
// and queue, then the driver's, of all Rx queues and of all Tx queues (rte_eth_xstats_get with
// rte_eth_xstats_get_names). The queues are those that the port is configured with; the port's totals
// are those of Stats, in which queues that were configured away count on, and their own come back with them.
// Names and ids stay the same until Configure changes the queues.
//
// What is said of a queue's packets is of one moment: sizes, kinds of address and states of
// the checksum each add up to its packets. Bursts may run meanwhile and are not slowed. Of a
// deleted interface the values are the last; of a closed port the error is ErrClosed.
func (d *Device) XStats() ([]XStat, error) {
	all, err := d.xstats()
	return all, d.failed("read xstats of", err)
}

func (d *Device) xstats() ([]XStat, error) {
	if d.far != nil {
		return d.farXStats()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	stats, pairs, err := d.readStats()
	if err != nil {
		return nil, err
	}
	rx, tx := make([]rxView, len(d.pairs)), make([]txView, len(d.pairs))
	for i := range d.pairs {
		rx[i], tx[i] = rxView{pairs[i].rx, d.counters[i].rx.window.Load()}, txView{pairs[i].tx}
	}
	return listXStats(&stats, rx, tx), nil
}

// farXStats asks the primary, for some queues at a time: what is said of one queue is of one moment.
func (d *Device) farXStats() ([]XStat, error) {
	var stats Stats
	var rx []rxView
	var tx []txView
	for queues := 1; len(rx) < queues; {
		var c countsReply
		if err := d.ask("counts", request{Queues: []int{len(rx)}}, &c); err != nil {
			return nil, err
		}
		if len(rx) == 0 {
			stats = c.Stats
		}
		if queues = c.Queues; len(c.Pairs) == 0 {
			break
		}
		for _, p := range c.Pairs {
			var r rxView
			var t txView
			copy(r.counts[:], p.Rx)
			copy(t.counts[:], p.Tx)
			r.window = p.Window
			rx, tx = append(rx, r), append(tx, t)
		}
	}
	return listXStats(&stats, rx, tx), nil
}

func listXStats(s *Stats, rx []rxView, tx []txView) []XStat {
	all := appendXStats(nil, "", portXStats, s)
	all = appendQueues(all, "rx_q", rxBasicXStats, rx)
	all = appendQueues(all, "tx_q", txBasicXStats, tx)
	all = appendQueues(all, "rx_q", rxXStats, rx)
	return appendQueues(all, "tx_q", txXStats, tx)
}

func appendQueues[T any](all []XStat, prefix string, table []xstat[T], queues []T) []XStat {
	for i := range queues {
		all = appendXStats(all, fmt.Sprint(prefix, i, "_"), table, &queues[i])
	}
	return all
}

func appendXStats[T any](all []XStat, prefix string, table []xstat[T], v *T) []XStat {
	for _, x := range table {
		all = append(all, XStat{prefix + x.name, x.value(v)})
	}
	return all
}

// XStatNames are the names of what XStats reads, in its order, which is that of the ids
// (rte_eth_xstats_get_names).
func (d *Device) XStatNames() ([]string, error) {
	names, err := d.xstatNames()
	return names, d.failed("read xstat names of", err)
}

func (d *Device) xstatNames() ([]string, error) {
	n, err := d.queues()
	if err != nil {
		return nil, err
	}
	all := listXStats(&Stats{}, make([]rxView, n), make([]txView, n))
	names := make([]string, len(all))
	for i, x := range all {
		names[i] = x.Name
	}
	return names, nil
}

// queues is how many queue pairs the port has.
func (d *Device) queues() (int, error) {
	if d.far != nil {
		var c countsReply
		err := d.ask("counts", request{Queues: []int{MaxQueues}}, &c)
		return c.Queues, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == stateClosed {
		return 0, ErrClosed
	}
	return len(d.pairs), nil
}

// XStatsByID reads those of ids, in their order and all at the same time
// (rte_eth_xstats_get_by_id). An id that is none is ErrNoXStat.
func (d *Device) XStatsByID(ids []int) ([]uint64, error) {
	all, err := d.xstats()
	if err != nil {
		return nil, d.failed("read xstats of", err)
	}
	values := make([]uint64, len(ids))
	for i, id := range ids {
		if id < 0 || id >= len(all) {
			return nil, d.failed("read xstats of", fmt.Errorf("%w: id %d: want 0 to %d", ErrNoXStat, id, len(all)-1))
		}
		values[i] = all[id].Value
	}
	return values, nil
}

// XStatID finds a statistic by its name (rte_eth_xstats_get_id_by_name). A name that is none
// is ErrNoXStat; those of queues are there while the port is configured with the queue.
func (d *Device) XStatID(name string) (int, error) {
	names, err := d.xstatNames()
	if err != nil {
		return -1, d.failed("find xstat of", err)
	}
	id := slices.Index(names, name)
	if id < 0 {
		return -1, d.failed("find xstat of", fmt.Errorf("%w: %q: XStatNames has them all", ErrNoXStat, name))
	}
	return id, nil
}
