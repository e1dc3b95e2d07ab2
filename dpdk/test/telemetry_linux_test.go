// SPDX-License-Identifier: BSD-3-Clause

package test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
)

// ask has dpdk-telemetry.py ask the program, and returns the answer to the command.
func ask[T any](t testing.TB, p *process, command string) (answer T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(patience))
	defer cancel()
	cmd := exec.CommandContext(ctx, nettest.NeedProgram(t, "dpdk-telemetry.py"))
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+p.runtime)
	cmd.Stdin = strings.NewReader(command + "\n")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("dpdk-telemetry.py: %v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		m := map[string]json.RawMessage{}
		name, _, _ := strings.Cut(command, ",")
		if json.Unmarshal([]byte(line), &m) != nil || m[name] == nil {
			continue
		}
		if err := json.Unmarshal(m[name], &answer); err != nil {
			t.Fatalf("dpdk-telemetry.py, %s: %v: %s", command, err, line)
		}
		return answer
	}
	t.Fatalf("dpdk-telemetry.py has no answer to %s: %s", command, out)
	return answer
}

// runtimeOf is what the plugin says about Go in the program.
func runtimeOf(t testing.TB, p *process) map[string]uint64 {
	t.Helper()
	if driver != "net_rtap" {
		return nil
	}
	return ask[map[string]uint64](t, p, "/"+driver+"/runtime")
}

// TestTelemetry compares what dpdk-telemetry.py is told with what testpmd says.
func TestTelemetry(t *testing.T) {
	p := startTestpmd(t, pmdConfig{ports: 1})
	p.all("set fwd txonly", "start")
	capture := p.ports[0].capturer()
	for range 50 {
		_, err := capture.Next(within(t, patience), nil)
		must(t, err)
	}
	p.do("stop")
	got, said := ask[map[string]any](t, p.process, "/ethdev/stats,0"), p.stats(0)
	if n := said["TX-packets"]; n < 50 || got["opackets"] != float64(n) || got["obytes"] != float64(said["TX-bytes"]) {
		t.Errorf("telemetry has %v, testpmd %v", got, said)
	}
	x := ask[map[string]uint64](t, p.process, "/ethdev/xstats,0")
	want(t, "telemetry", x, p.xstats(0))
	if x["tx_good_packets"] < 50 {
		t.Errorf("extended statistics: %v", x)
	}
	if l := ask[map[string]any](t, p.process, "/ethdev/link_status,0"); l["status"] != "UP" || l["speed"] != 10000.0 {
		t.Errorf("link: %v", l)
	}
	if i := ask[map[string]any](t, p.process, "/ethdev/info,0"); i["name"] != driver+"0" || i["mtu"] != 1500.0 {
		t.Errorf("info: %v", i)
	}
	if r := runtimeOf(t, p.process); r["goroutines"] == 0 || r["threads"] == 0 || r["cgo_calls"] == 0 || r["procs"] < 4 {
		t.Errorf("runtime: %v", r)
	}
	p.quit()
}
