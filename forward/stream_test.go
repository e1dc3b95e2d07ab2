// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

// TestSendRest: what the Tx queue does not take is offered again TxRetries times, then freed and counted.
func TestSendRest(t *testing.T) {
	tests := []struct {
		name          string
		tx            fakeTx
		retries       int
		sent, dropped uint64
		calls         int
	}{
		{"all", fakeTx{limit: -1}, 3, 10, 0, 1},
		{"none", fakeTx{limit: 0}, 0, 0, 10, 1},
		{"some", fakeTx{limit: 7}, 0, 7, 3, 1},
		{"retried in vain", fakeTx{limit: 7}, 2, 7, 3, 3},
		{"retried", fakeTx{limit: -1, step: 4}, 5, 10, 0, 3},
		{"too few retries", fakeTx{limit: -1, step: 4}, 1, 8, 2, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, newPool(t, mbuf.Config{}), Config{TxRetries: tt.retries})
			*r.tx = tt.tx
			for range 10 {
				r.rx.waiting = append(r.rx.waiting, packet(t, r.pool, frame, 5))
			}
			sent := append([]*mbuf.Mbuf(nil), r.rx.waiting...)
			if n := r.s.burst(); n != 10 {
				t.Errorf("burst returned %d, want 10", n)
			}
			wantStats(t, r.s, Stats{RxPackets: 10, TxPackets: tt.sent, FwdDropped: tt.dropped})
			if r.tx.calls != tt.calls {
				t.Errorf("%d calls of the Tx queue, want %d", r.tx.calls, tt.calls)
			}
			for i, m := range r.tx.got {
				if m != sent[i] {
					t.Errorf("packet %d is out of order", i)
				}
			}
			mbuf.FreeBulk(r.tx.got)
		})
	}
}

// TestIdleBurst: nothing received, nothing sent, in every mode that receives.
func TestIdleBurst(t *testing.T) {
	for _, m := range Modes() {
		if m.alloc {
			continue
		}
		r := newRig(t, newPool(t, mbuf.Config{}), Config{Mode: m.Name})
		if n := r.s.burst(); n != 0 || r.tx.calls != 0 {
			t.Errorf("%s: burst returned %d with %d calls of the Tx queue, want 0 and 0", m.Name, n, r.tx.calls)
		}
		wantStats(t, r.s, Stats{})
	}
}

func TestStatsAdd(t *testing.T) {
	s := Stats{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	s.Add(Stats{10, 20, 30, 40, 50, 60, 70, 80, 90, 100})
	if want := (Stats{11, 22, 33, 44, 55, 66, 77, 88, 99, 110}); s != want {
		t.Errorf("sum is %+v, want %+v", s, want)
	}
}

// TestBurstAllocs: no mode allocates on the Go heap in a burst.
func TestBurstAllocs(t *testing.T) {
	large := frames(1800)["tcp4"].b
	for _, c := range []Config{{Mode: "io"}, {Mode: "csum", Csum: allHardware}, {Mode: "mtu"}} {
		t.Run(c.Mode+" large", func(t *testing.T) {
			c.Burst = 32
			w := newWheelOf(t, c)
			w.receives(t, large, lro|oneTag, 400)
			checkAllocs(t, w)
		})
	}
	t.Run("csum tags", func(t *testing.T) {
		w := newWheelOf(t, Config{Mode: "csum", Burst: 32, Csum: CsumConfig{ParseTunnel: true}})
		w.receives(t, frames(100)["vxlan sctp"].b, twoTags|mbuf.RxIPCksumBad, 0)
		checkAllocs(t, w)
	})
	t.Run("csum refused", func(t *testing.T) {
		w := newWheelOf(t, Config{Mode: "csum", Burst: 32})
		w.receives(t, large, lro, 400)
		if n := testing.AllocsPerRun(100, func() { w.turn() }); n != 0 {
			t.Errorf("%v allocations per burst, want 0", n)
		}
	})
	for _, m := range Modes() {
		t.Run(m.Name, func(t *testing.T) {
			checkAllocs(t, newWheel(t, m.Name, 32))
		})
	}
}

func checkAllocs(t *testing.T, w *wheel) {
	t.Helper()
	if n := testing.AllocsPerRun(100, func() { w.turn() }); n != 0 {
		t.Errorf("%v allocations per burst, want 0", n)
	}
	if st := w.s.Stats(); st.RxPackets+st.TxPackets == 0 || st.FwdDropped+st.Malformed+st.NoMbuf+st.NoTSO != 0 {
		t.Errorf("nothing went through: %+v", st)
	}
}
