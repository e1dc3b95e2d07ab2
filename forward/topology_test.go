// SPDX-License-Identifier: BSD-3-Clause

package forward

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rtap-project/rtap/mbuf"
)

func TestTxPort(t *testing.T) {
	tests := []struct {
		t    Topology
		want [][]int // by number of ports from 1 on
	}{
		{Paired, [][]int{{0}, {1, 0}, {1, 0, 2}, {1, 0, 3, 2}, {1, 0, 3, 2, 4}}},
		{Chained, [][]int{{0}, {1, 0}, {1, 2, 0}, {1, 2, 3, 0}}},
		{Loop, [][]int{{0}, {0, 1}, {0, 1, 2}}},
	}
	for _, tt := range tests {
		for _, want := range tt.want {
			var got []int
			for rx := range want {
				got = append(got, tt.t.TxPort(rx, len(want)))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v, %d ports: %v, want %v", tt.t, len(want), got, want)
			}
		}
	}
}

func testPorts(queues ...int) []*Port {
	ports := make([]*Port, len(queues))
	for i, n := range queues {
		ports[i] = NewPort(portMAC, make([]fakeRxRef, n), make([]fakeTxRef, n))
	}
	return ports
}

type fakeRxRef struct{ *fakeRx }
type fakeTxRef struct{ *fakeTx }

func TestRoutes(t *testing.T) {
	tests := []struct {
		name   string
		mode   string
		t      Topology
		queues []int
		want   []Route
	}{
		{"single port", "io", Paired, []int{1}, []Route{{0, 0, 0}}},
		{"pair", "io", Paired, []int{1, 1}, []Route{{0, 1, 0}, {1, 0, 0}}},
		{"odd last", "mac", Paired, []int{1, 1, 1}, []Route{{0, 1, 0}, {1, 0, 0}, {2, 2, 0}}},
		{"two queues", "io", Paired, []int{2, 2}, []Route{{0, 1, 0}, {1, 0, 0}, {0, 1, 1}, {1, 0, 1}}},
		{"pairs of different width", "io", Paired, []int{1, 1, 2, 2},
			[]Route{{0, 1, 0}, {1, 0, 0}, {2, 3, 0}, {3, 2, 0}, {2, 3, 1}, {3, 2, 1}}},
		{"chained", "io", Chained, []int{1, 1, 1}, []Route{{0, 1, 0}, {1, 2, 0}, {2, 0, 0}}},
		{"loop", "io", Loop, []int{1, 1}, []Route{{0, 0, 0}, {1, 1, 0}}},
		{"icmpecho loops", "icmpecho", Paired, []int{2, 1}, []Route{{0, 0, 0}, {1, 1, 0}, {0, 0, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := New(Config{Mode: tt.mode, Topology: tt.t}, testPorts(tt.queues...)...)
			if err != nil {
				t.Fatal(err)
			}
			var got []Route
			for _, s := range f.Streams() {
				got = append(got, s.Route())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %v\nwant %v", got, tt.want)
			}
		})
	}
}

// TestRoutesCover: whatever the shape, every queue is received from by one stream and sent to by one.
func TestRoutesCover(t *testing.T) {
	for ports := 1; ports <= 7; ports++ {
		for _, topo := range []Topology{Paired, Chained, Loop} {
			rs, err := routes(&Config{Topology: topo, NumProcs: 1}, testPorts(slices.Repeat([]int{3}, ports)...))
			if err != nil {
				t.Fatal(err)
			}
			rx, tx := map[[2]int]int{}, map[[2]int]int{}
			for _, r := range rs {
				rx[[2]int{r.RxPort, r.Queue}]++
				tx[[2]int{r.TxPort, r.Queue}]++
			}
			if len(rs) != 3*ports || len(rx) != 3*ports || len(tx) != 3*ports {
				t.Errorf("%v, %d ports of 3 queues: %d streams, %d Rx and %d Tx queues", topo, ports, len(rs), len(rx), len(tx))
			}
		}
	}
}

// TestProcs: the processes' streams together are those that one process would have, each once, and every process has
// its run of queues.
func TestProcs(t *testing.T) {
	ports := func() []*Port { return testPorts(2, 2, 6, 6) }
	alone, err := New(Config{}, ports()...)
	if err != nil {
		t.Fatal(err)
	}
	var together []Route
	for id, want := range []string{"0: 0, 1: 0, 2: 012, 3: 012", "0: 1, 1: 1, 2: 345, 3: 345"} {
		f, err := New(Config{NumProcs: 2, ProcID: id}, ports()...)
		if err != nil {
			t.Fatal(err)
		}
		queues := make([]string, 4)
		for _, s := range f.Streams() {
			together = append(together, s.Route())
			queues[s.Route().RxPort] += fmt.Sprint(s.Route().Queue)
		}
		if got := fmt.Sprintf("0: %s, 1: %s, 2: %s, 3: %s", queues[0], queues[1], queues[2], queues[3]); got != want {
			t.Errorf("process %d has queues %s, want %s", id, got, want)
		}
	}
	for _, s := range alone.Streams() {
		if i := slices.Index(together, s.Route()); i >= 0 {
			together = slices.Delete(together, i, i+1)
		} else {
			t.Errorf("no process has %v", s.Route())
		}
	}
	if len(together) > 0 {
		t.Errorf("two processes have %v", together)
	}
}

// TestOtherProcsQueues: what is another process's is never called.
func TestOtherProcsQueues(t *testing.T) {
	pool := newPool(t, mbuf.Config{})
	rx, tx := &fakeRx{waiting: []*mbuf.Mbuf{packet(t, pool, frame)}}, &fakeTx{limit: -1}
	f, err := New(Config{NumProcs: 2, ProcID: 1}, NewPort(portMAC, []*fakeRx{nil, rx}, []*fakeTx{nil, tx}))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Streams() {
		s.burst()
	}
	if len(tx.got) != 1 || f.Stats() != (Stats{RxPackets: 1, TxPackets: 1}) {
		t.Errorf("%d packets sent, %+v", len(tx.got), f.Stats())
	}
	mbuf.FreeBulk(tx.got)
}

func TestRoutesErrors(t *testing.T) {
	var ce *ConfigError
	if _, err := New(Config{}); !errors.As(err, &ce) || ce.Field != "ports" {
		t.Errorf("no port: error %v", err)
	}
	for _, queues := range [][]int{{0}, {2, 1}, {1, 1, 0}} {
		if _, err := New(Config{}, testPorts(queues...)...); err == nil || !strings.Contains(err.Error(), "queues") {
			t.Errorf("queues %v: error %v", queues, err)
		}
	}
}

func TestProcsErrors(t *testing.T) {
	_, err := New(Config{NumProcs: 2}, testPorts(2, 2, 3, 3)...)
	if err == nil || !strings.Contains(err.Error(), "port 2 has 3 queues, which 2 processes cannot share: must be a multiple of 2") {
		t.Errorf("error %v", err)
	}
}

func TestSpread(t *testing.T) {
	tests := []struct {
		n, cores int
		want     []int
	}{
		{1, 1, []int{1}}, {4, 1, []int{4}}, {4, 2, []int{2, 2}}, {4, 4, []int{1, 1, 1, 1}},
		{5, 2, []int{2, 3}}, {7, 3, []int{2, 2, 3}}, {8, 3, []int{2, 3, 3}}, {2, 8, []int{1, 1}},
	}
	for _, tt := range tests {
		if got := spread(tt.n, tt.cores); !slices.Equal(got, tt.want) {
			t.Errorf("%d streams on %d cores: %v, want %v", tt.n, tt.cores, got, tt.want)
		}
	}
}

func TestTopologyString(t *testing.T) {
	for topo, want := range map[Topology]string{Paired: "paired", Chained: "chained", Loop: "loop", 9: "topology(9)"} {
		if topo.String() != want {
			t.Errorf("%q, want %q", topo, want)
		}
	}
	if got, want := (Route{0, 1, 2}).String(), "RX P=0/Q=2 -> TX P=1/Q=2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, tt := range []struct {
		field string
		c     Config
	}{
		{"Burst", Config{Burst: -1}},
		{"Burst", Config{Burst: 513}},
		{"Cores", Config{Cores: -1}},
		{"Topology", Config{Topology: Loop + 1}},
		{"TxRetries", Config{TxRetries: -1}},
		{"NumProcs", Config{NumProcs: -1}},
		{"ProcID", Config{ProcID: -1}},
		{"ProcID", Config{ProcID: 1}},
		{"ProcID", Config{NumProcs: 3, ProcID: 3}},
		{"Owned[0]", Config{Owned: addrs("ff02::1")}},
		{"Owned[1]", Config{Owned: addrs("10.0.0.1", "0.0.0.0")}},
	} {
		_, err := New(tt.c, testPorts(1)...)
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != tt.field || !strings.Contains(err.Error(), tt.field) {
			t.Errorf("error %v, want one about %s", err, tt.field)
		}
	}
	if _, err := New(Config{Mode: "nope"}, testPorts(1)...); !errors.Is(err, ErrUnknownMode) {
		t.Errorf("error %v, want ErrUnknownMode", err)
	}
}

// TestConfigZero: the zero value is io, bursts of 32, one worker; Burst is as asked for.
func TestConfigZero(t *testing.T) {
	f, err := New(Config{}, testPorts(1, 1)...)
	if err != nil {
		t.Fatal(err)
	}
	if f.Mode().Name != "io" || len(f.Workers()) != 1 || len(f.Streams()[0].bufs) != 32 {
		t.Errorf("mode %s, %d workers, burst %d; want io, 1, 32", f.Mode().Name, len(f.Workers()), len(f.Streams()[0].bufs))
	}
	f, err = New(Config{Burst: 512, Cores: 9}, testPorts(1, 1)...)
	if err != nil || len(f.Streams()[0].bufs) != 512 || len(f.Workers()) != 2 {
		t.Errorf("burst and workers not as asked for: %v", err)
	}
}
