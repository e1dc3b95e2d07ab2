// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"sync/atomic"

	"github.com/rtap-project/rtap/mbuf"
)

// Stats counts the packets of a stream, or of several in sum. What a stream received or built it has sent,
// dropped, ignored, or found malformed; rxonly frees everything it received and counts it as received only.
// Mode mtu cuts and merges: what it sent are other packets than those it received.
type Stats struct {
	RxPackets  uint64 `json:"rx_packets"`  // received
	TxPackets  uint64 `json:"tx_packets"`  // taken by the Tx queue
	FwdDropped uint64 `json:"fwd_dropped"` // not taken by the Tx queue, freed (testpmd's fwd_dropped)
	Ignored    uint64 `json:"ignored"`     // icmpecho: in order, but nothing to answer; freed
	Malformed  uint64 `json:"malformed"`   // too short, inconsistent, or a fragment; freed
	NoMbuf     uint64 `json:"no_mbuf"`     // packets not built, or answers or tags not fitting, for lack of buffers
	NoTSO      uint64 `json:"no_tso"`      // csum: received with LRO and not to be sent as TSO; freed

	// What the driver said of packets that csum received; it mends them. Counted beside the above.
	BadIPCsum      uint64 `json:"bad_ipcsum"`       // IPv4 header checksum wrong (testpmd's Bad-ipcsum)
	BadL4Csum      uint64 `json:"bad_l4csum"`       // layer-4 checksum wrong (Bad-l4csum)
	BadOuterL4Csum uint64 `json:"bad_outer_l4csum"` // that of the outer UDP header wrong (Bad-outer-l4csum)
}

// Add adds t to s.
func (s *Stats) Add(t Stats) {
	s.RxPackets += t.RxPackets
	s.TxPackets += t.TxPackets
	s.FwdDropped += t.FwdDropped
	s.Ignored += t.Ignored
	s.Malformed += t.Malformed
	s.NoMbuf += t.NoMbuf
	s.NoTSO += t.NoTSO
	s.BadIPCsum += t.BadIPCsum
	s.BadL4Csum += t.BadL4Csum
	s.BadOuterL4Csum += t.BadOuterL4Csum
}

// counters are written by the stream's worker, once a burst, and read by anyone.
type counters struct {
	rx, tx, dropped, ignored, malformed, noMbuf, noTSO atomic.Uint64
	badIP, badL4, badOuterL4                           atomic.Uint64
}

// Stream takes bursts from one Rx queue through a mode to one Tx queue. A [Forwarder] makes it, a [Worker]
// runs it.
type Stream struct {
	route   Route
	rx      RxQueue
	tx      TxQueue
	rxPort  *Port
	txPort  *Port
	peer    [6]byte
	retries int
	bufs    []*mbuf.Mbuf
	burst   func() int

	// A cache line on either side: readers of one stream's counters must not slow its neighbours.
	_ [64]byte
	n counters
	_ [64]byte
}

func newStream(r Route, ports []*Port, c *Config) *Stream {
	return &Stream{
		route:   r,
		rx:      ports[r.RxPort].rx[r.Queue],
		tx:      ports[r.TxPort].tx[r.Queue],
		rxPort:  ports[r.RxPort],
		txPort:  ports[r.TxPort],
		peer:    c.peer(r.TxPort),
		retries: c.TxRetries,
		bufs:    make([]*mbuf.Mbuf, c.Burst),
	}
}

// Route returns which queues the stream joins. Any goroutine may call it.
func (s *Stream) Route() Route { return s.route }

// Stats reads the counters. Any goroutine may call it at any time; while the stream runs, a burst may be
// counted as received and not yet as sent.
func (s *Stream) Stats() Stats {
	return Stats{
		RxPackets:  s.n.rx.Load(),
		TxPackets:  s.n.tx.Load(),
		FwdDropped: s.n.dropped.Load(),
		Ignored:    s.n.ignored.Load(),
		Malformed:  s.n.malformed.Load(),
		NoMbuf:     s.n.noMbuf.Load(),
		NoTSO:      s.n.noTSO.Load(),

		BadIPCsum:      s.n.badIP.Load(),
		BadL4Csum:      s.n.badL4.Load(),
		BadOuterL4Csum: s.n.badOuterL4.Load(),
	}
}

// receive takes one burst. The result lies in s.bufs, which a mode may reorder and shorten in place.
func (s *Stream) receive() []*mbuf.Mbuf {
	n := s.rx.Burst(s.bufs)
	if n > 0 {
		s.n.rx.Add(uint64(n))
	}
	return s.bufs[:n]
}

// send offers pkts to the Tx queue and frees what it does not take.
func (s *Stream) send(pkts []*mbuf.Mbuf) {
	if len(pkts) == 0 {
		return
	}
	n := s.tx.Burst(pkts)
	for try := 0; n < len(pkts) && try < s.retries; try++ {
		n += s.tx.Burst(pkts[n:])
	}
	s.n.tx.Add(uint64(n))
	if n < len(pkts) {
		s.n.dropped.Add(uint64(len(pkts) - n))
		mbuf.FreeBulk(pkts[n:])
	}
}

// keep calls edit for each packet and returns those for which it said true, in order, in the same array; the
// others are malformed and freed.
func (s *Stream) keep(pkts []*mbuf.Mbuf, edit func(*mbuf.Mbuf) bool) []*mbuf.Mbuf {
	kept := pkts[:0]
	for _, m := range pkts {
		if edit(m) {
			kept = append(kept, m)
			continue
		}
		s.n.malformed.Add(1)
		m.Free()
	}
	return kept
}
