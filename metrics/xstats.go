// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rtap-project/rtap"
)

// xstat is an extended statistic, its name taken apart: rx_q0_lro_packets is {receive, 0, lro_packets}.
type xstat struct {
	full  string
	scope scope
	what  string
	value uint64
}

// scope is what a statistic is of.
type scope struct {
	dir   string // "receive", "transmit" or ""
	queue int    // -1: the port
}

// histogram is a distribution, of xstats that each count a range.
type histogram struct {
	scope
	kind    string // "size" or "burst"
	buckets []bucket
}

// bucket counts what lies in lo to hi, both included.
type bucket struct {
	lo, hi float64 // hi may be +Inf
	n      uint64
}

var (
	xstatName  = regexp.MustCompile(`^(?:(rx|tx)_)?(?:q(\d+)_)?(.+)$`)
	xstatRange = regexp.MustCompile(`^(size|burst)s?_(\d+)(?:_to_(\d+|max))?(?:_packets)?$`)
)

var directions = map[string]string{"rx": "receive", "tx": "transmit"}

// parseXStats takes the names apart and puts ranges together.
func parseXStats(all []rtap.XStat) (plain []xstat, hists []histogram) {
	for _, s := range all {
		x := parseXStat(s)
		m := xstatRange.FindStringSubmatch(x.what)
		if m == nil {
			plain = append(plain, x)
			continue
		}
		i := slices.IndexFunc(hists, func(h histogram) bool { return h.scope == x.scope && h.kind == m[1] })
		if i < 0 {
			i = len(hists)
			hists = append(hists, histogram{scope: x.scope, kind: m[1]})
		}
		hists[i].add(parseRange(m, x.value))
	}
	return plain, hists
}

func parseXStat(s rtap.XStat) xstat {
	x := xstat{full: strings.ToValidUTF8(s.Name, "?"), scope: scope{queue: -1}, what: s.Name, value: s.Value}
	m := xstatName.FindStringSubmatch(s.Name)
	if m == nil {
		return x
	}
	x.scope.dir, x.what = directions[m[1]], m[3]
	if n, err := strconv.Atoi(m[2]); err == nil {
		x.scope.queue = n
	}
	return x
}

// parseRange reads size_65_to_127_packets, size_32768_to_max_packets, bursts_0.
func parseRange(m []string, n uint64) bucket {
	lo, _ := strconv.ParseFloat(m[2], 64)
	hi, err := strconv.ParseFloat(m[3], 64)
	switch {
	case m[3] == "max":
		hi = math.Inf(1)
	case err != nil:
		hi = lo
	}
	return bucket{lo, hi, n}
}

// add adds to the range that ends where b does, or puts b in its place in the order.
func (h *histogram) add(b bucket) {
	i, found := slices.BinarySearchFunc(h.buckets, b.hi, func(o bucket, hi float64) int {
		switch {
		case o.hi < hi:
			return -1
		case o.hi > hi:
			return 1
		}
		return 0
	})
	if found {
		h.buckets[i].n += b.n
		return
	}
	h.buckets = slices.Insert(h.buckets, i, b)
}

// cumulative is what Prometheus wants: how many are at most so large, and how many there are.
func (h *histogram) cumulative() (atMost map[float64]uint64, count uint64) {
	atMost = map[float64]uint64{}
	for _, b := range h.buckets {
		count += b.n
		if !math.IsInf(b.hi, 1) {
			atMost[b.hi] = count
		}
	}
	return atMost, count
}

// covered are the names that DPDK has for what is in Stats.
var covered = map[string]bool{"good_packets": true, "good_bytes": true, "missed_errors": true,
	"mbuf_allocation_errors": true, "mbuf_alloc_failed": true}

// own are the metrics of counters.
var own = func() map[string]bool {
	names := map[string]bool{}
	for _, c := range counters {
		names[c.name] = true
	}
	return names
}()

// known reports whether the statistic is one of Stats, which are shown as such.
func (x *xstat) known() bool {
	return covered[x.what] || own[x.scope.dir+"_"+strings.TrimSuffix(x.what, "_total")+"_total"]
}

// xstatHelp explains the statistics that are known. Others are exported too.
var xstatHelp = map[string]string{
	"broadcast_packets":   "Packets to the broadcast address.",
	"multicast_packets":   "Packets to multicast addresses.",
	"unicast_packets":     "Packets to one station.",
	"lro_packets":         "Frames that the kernel would have had to cut (mbuf.RxLRO).",
	"tso_packets":         "Frames left for the kernel to cut (mbuf.TxTCPSeg, mbuf.TxUDPSeg).",
	"checksum_good":       "Packets whose layer 4 checksum was found right.",
	"checksum_none":       "Packets whose layer 4 checksum the kernel left to be completed (mbuf.RxL4CksumNone).",
	"checksum_bad":        "Packets whose checksum was found wrong.",
	"checksum_unknown":    "Packets whose layer 4 checksum nobody has looked at.",
	"outer_checksum_none": "Packets whose tunnel's checksum was left to be completed.",
	"ip_checksum_good":    "Packets whose IPv4 header's checksum was found right.",
	"ip_checksum_bad":     "Packets whose IPv4 header's checksum was found wrong.",
	"checksum_offload":    "Packets whose checksum was left to the kernel.",
	"multiseg_packets":    "Packets in several mbufs.",
	"enters":              "Calls of io_uring_enter.",
	"syscalls":            "System calls that moved packets.",
	"empty_reads":         "Reads that found no packet.",
	"ring_full":           "Bursts that found the ring full.",
	"window":              "Packets that the next burst expects.",
}

// gauges are the last words of names whose statistic goes up and down; all others are counters.
var gauges = map[string]bool{"window": true, "depth": true, "level": true, "size": true, "limit": true,
	"current": true, "max": true, "min": true, "free": true, "used": true}

// badWords are what promlint refuses in a metric's name: abbreviated units, units that are not Prometheus' base
// units, and types. It knows more prefixes of units than can occur here: whatever ends in a unit is refused.
var badWords = regexp.MustCompile(`^(?:s|ms|us|ns|sec|b|kb|mb|gb|tb|pb|m|h|d|le|quantile|counter|gauge|histogram|summary|` +
	`.+(?:bytes|seconds|grams|joules|volts|amperes|meters|metres|celsius|kelvin)|` +
	`.*(?:minutes|hours|days|weeks|kelvins|fahrenheit|rankine|inches|yards|miles|bits|calories|pounds|ounces))$`)

var goodWord = regexp.MustCompile(`^[a-z0-9]+$`)

// metricName is what a statistic is called as the last part of a metric's name, and whether it is a counter. It
// is "" if its own name will not do.
func metricName(what string) (name string, isCounter bool) {
	words := strings.Split(strings.TrimSuffix(what, "_total"), "_")
	for _, w := range words {
		if !goodWord.MatchString(w) || badWords.MatchString(w) {
			return "", false
		}
	}
	name = strings.Join(words, "_")
	if gauges[words[len(words)-1]] {
		return name, false
	}
	return name + "_total", true
}

// reasonOf is why the packets were lost that a statistic counts: error_eio, error_length.
func reasonOf(what string) (string, bool) {
	reason, ok := strings.CutPrefix(what, "error_")
	return strings.ToValidUTF8(reason, "?"), ok && reason != ""
}
