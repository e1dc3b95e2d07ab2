// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"encoding/json"
	"github.com/rtap-project/rtap/internal/nettest"
	"strings"
	"testing"
)

// TestInfo: limits, defaults and offloads as documented, and the state as it is.
func TestInfo(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		p := openPort(t, Config{Name: "info%d", Engine: e})
		want := Info{
			Driver: "net_rtap", Mode: ModeTAP, Name: "info0", IfIndex: p.index, Engine: e,
			MinMTU: 68, MaxMTU: 65521, MinRxBufSize: 128, MaxRxPktLen: 65543,
			MaxRxQueues: 128, MaxTxQueues: 128, MaxMACAddrs: 1,
			MaxLROPktSize: 65539,
			RxDesc:        DescLimits{Max: 4096, Min: 1, Align: 1, SegMax: 1023}, TxDesc: DescLimits{Max: 4096, Min: 1, Align: 1, SegMax: 1023},
			RxDefaults: PortDefaults{64, 256, 1}, TxDefaults: PortDefaults{64, 256, 1},
		}
		check := func() {
			t.Helper()
			got := p.Info()
			want.EngineReason = got.EngineReason
			want.RxOffloads, want.TxOffloads = got.RxOffloads, got.TxOffloads // TestCapabilities
			if got != want {
				t.Fatalf("\n got %+v\nwant %+v", got, want)
			}
		}
		check()
		if !strings.Contains(want.EngineReason, "as configured") {
			t.Errorf("the reason for the engine is %q", want.EngineReason)
		}
		must(t, p.Configure(PortConfig{RxQueues: 3, TxQueues: 3}))
		want.RxQueues, want.TxQueues = 3, 3
		check()
		p.setUp(2, RxConfig{})
		want.RxQueues, want.TxQueues, want.Started = 2, 2, true
		check()
		must(t, p.Stop())
		want.Started = false
		check()
	})
}

// TestInfoLimits: a port that uses every limit to the full works.
func TestInfoLimits(t *testing.T) {
	p := openPort(t, Config{})
	info := p.Info()
	must(t, p.SetMTU(info.MaxMTU))
	pool := newPool(t, poolOf(info.MinRxBufSize, 2000))
	must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1}))
	must(t, p.SetupRxQueue(0, RxConfig{Ring: info.RxDesc.Max, Memory: pool}))
	must(t, p.SetupTxQueue(0, TxConfig{Ring: info.TxDesc.Max}))
	must(t, p.Device.Start())
	p.longest(info.MaxMTU)
	must(t, p.Close())
}

// TestAuto: takes io_uring where it is not forbidden, and says why or why not.
func TestAuto(t *testing.T) {
	p := startPort(t, Config{})
	info := p.Info()
	want, reason := EngineUring, "io_uring works here"
	if nettest.UringForbidden() {
		want, reason = EngineSyscall, "io_uring_disabled"
	}
	if info.Engine != want || !strings.Contains(info.EngineReason, reason) {
		t.Errorf("auto took %s: %s", info.Engine, info.EngineReason)
	}
	p.exchange()
}

// TestJSONNames: statistics and limits have DPDK's names.
func TestJSONNames(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{Stats{}, `{"ipackets":0,"opackets":0,"ibytes":0,"obytes":0,"ierrors":0,"oerrors":0,"rx_nombuf":0,"imissed":0}`},
		{DescLimits{}, `{"nb_max":0,"nb_min":0,"nb_align":0,"nb_seg_max":0}`},
	} {
		if got, err := json.Marshal(c.v); err != nil || string(got) != c.want {
			t.Errorf("%T is %s, want %s (%v)", c.v, got, c.want, err)
		}
	}
}
