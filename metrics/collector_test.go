// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"errors"
	"flag"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// gather scrapes, which must not fail.
func gather(t *testing.T, read func() view) []*dto.MetricFamily {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(collector(read))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func lint(t *testing.T, families []*dto.MetricFamily) {
	t.Helper()
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// scrape is what Prometheus reads.
func scrape(t *testing.T, read func() view) string {
	t.Helper()
	w := httptest.NewRecorder()
	newHandler(read, "v1").ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// ours are the lines of a scrape that do not depend on this process.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, "rtap_") && !strings.HasPrefix(name, "rtap_build_info") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// TestGolden: the names and numbers that dashboards rely on.
func TestGolden(t *testing.T) {
	closed := newFake(1)
	closed.err, closed.linkErr, closed.statsErr, closed.info = rtap.ErrClosed, rtap.ErrClosed, rtap.ErrClosed, rtap.Info{Name: "foo1"}
	got := ours(scrape(t, fakes(newFake(1), closed)))
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the exposition differs from %s (go test -run TestGolden -update, then git diff):\n%s", file, got)
	}
}

// TestLint: all that is there, and what may come, is clean.
func TestLint(t *testing.T) {
	odd := newFake(2)
	odd.link.Name = "a\xffb\"\n{}"
	for _, name := range []string{"rx_q0_Weird-Name", "rx_latency_ms", "tx_q1_idle_seconds", "x", "", "rx_", "rx_q0_", "q1_a__b", "rx_q0_bytes_count",
		"tx_q0_depth_gauge", "rx_q0_depth", "rx_q0_kilobytes", "rx_q0_wait_milliseconds", "rx_q0_size_64_packets", "rx_size_1_to_63_packets",
		"rx_size_64_packets", "rx_q99999999999999999999_packets", "rx_q0_error_EIO", "rx_q0_error_eio", "rx_q7_burst_1", "rx_q0_lro_packets",
		"rx_good_total", "rx_q0_total", "tx_q0_über", "rx_q0_bad\xff", "rx_q0_window", "rx_q0_queue_le", "driver_version", "rx_q0_a_bucket",
		"rx_q0_packet_size_bytes", "rx_q0_burst_packets", "rx_q0_current_bits", "rx_q0_burst_packets_count", "rx_q0_max", "tx_burst_5_and_more"} {
		odd.xstats = append(odd.xstats, rtap.XStat{Name: name, Value: 1})
	}
	lint(t, gather(t, fakes(newFake(2), odd)))
	text := scrape(t, fakes(odd))
	for _, want := range []string{
		`rtap_queue_xstat{name="rx_q0_Weird-Name",port="net_rtap0",queue="0"} 1`,
		`rtap_port_xstat{interface="a?b\"\n{}",name="rx_latency_ms",port="net_rtap0"} 1`,
		`rtap_queue_receive_depth{port="net_rtap0",queue="0"} 1`,
		`rtap_port_receive_packet_size_bytes_bucket{interface="a?b\"\n{}",port="net_rtap0",le="63"} 1`,
		`rtap_port_driver_version_total{interface="a?b\"\n{}",port="net_rtap0"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestLintWhole: with what the handler adds, too.
func TestLintWhole(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(t, fakes(newFake(1))))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	text := scrape(t, fakes())
	for _, want := range []string{`rtap_build_info{go_version="go`, `version="v1"} 1`, "process_open_fds ", "go_goroutines "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

// TestNoMetricTwice: names that come to the same do not cost the scrape, and the driver's own count wins.
func TestNoMetricTwice(t *testing.T) {
	f := newFake(1)
	f.xstats = append(f.xstats, rtap.XStat{Name: "rx_q0_packets", Value: 12345}, rtap.XStat{Name: "rx_q0_lro_packets", Value: 12345},
		rtap.XStat{Name: "rx_q0_lro_packets_total", Value: 12345}, rtap.XStat{Name: "rx_packets", Value: 12345})
	if text := scrape(t, fakes(f)); strings.Contains(text, "12345") {
		t.Error("one of the doubles got through")
	}
	gather(t, fakes(f))
}

// TestHistogram: ranges become Prometheus' cumulative buckets, and what they add up to is counted elsewhere.
func TestHistogram(t *testing.T) {
	f := newFake(1)
	f.queues[0] = rtap.QueueStats{IPackets: 60, IBytes: 12345}
	f.xstats = []rtap.XStat{{Name: "rx_q0_size_64_packets", Value: 10}, {Name: "rx_q0_size_1519_to_max_packets", Value: 20},
		{Name: "rx_q0_size_65_to_127_packets", Value: 30}, {Name: "rx_q0_bursts_0", Value: 5}, {Name: "rx_q0_bursts_2_to_3", Value: 7}}
	found := map[string]*dto.Histogram{}
	for _, fam := range gather(t, fakes(f)) {
		if fam.GetType() == dto.MetricType_HISTOGRAM {
			found[fam.GetName()] = fam.Metric[0].GetHistogram()
		}
	}
	size, burst := found["rtap_queue_receive_packet_size_bytes"], found["rtap_queue_receive_burst_packets"]
	if size == nil || burst == nil {
		t.Fatalf("histograms: %v", found)
	}
	if size.GetSampleCount() != 60 || size.GetSampleSum() != 12345 || burst.GetSampleCount() != 12 || burst.GetSampleSum() != 60 {
		t.Errorf("sizes %v, bursts %v", size, burst)
	}
	want := map[float64]uint64{64: 10, 127: 40}
	for _, b := range size.Bucket {
		if n, ok := want[b.GetUpperBound()]; !ok || n != b.GetCumulativeCount() {
			t.Errorf("bucket %v", b)
		}
	}
	if len(size.Bucket) != len(want) {
		t.Errorf("%d buckets", len(size.Bucket))
	}
}

func TestParseXStat(t *testing.T) {
	for name, want := range map[string]xstat{
		"rx_q12_lro_packets": {scope: scope{"receive", 12}, what: "lro_packets"},
		"tx_good_packets":    {scope: scope{"transmit", -1}, what: "good_packets"},
		"q3_enters":          {scope: scope{"", 3}, what: "enters"},
		"window":             {scope: scope{"", -1}, what: "window"},
		"rx_q_x":             {scope: scope{"receive", -1}, what: "q_x"},
	} {
		want.full = name
		if got := parseXStat(rtap.XStat{Name: name}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	inf := math.Inf(1)
	for what, want := range map[string]bucket{
		"size_64_packets": {lo: 64, hi: 64}, "size_65_to_127_packets": {lo: 65, hi: 127}, "size_1519_to_max_packets": {lo: 1519, hi: inf},
		"bursts_0": {}, "bursts_2_to_3": {lo: 2, hi: 3}, "bursts_256_to_max": {lo: 256, hi: inf},
	} {
		_, h := parseXStats([]rtap.XStat{{Name: "rx_q0_" + what}})
		if len(h) != 1 || len(h[0].buckets) != 1 || h[0].buckets[0] != want {
			t.Errorf("%s: %+v, want %+v", what, h, want)
		}
	}
}

// FuzzXStatNames: whatever the driver calls its statistics, a scrape works and is clean.
func FuzzXStatNames(f *testing.F) {
	for _, name := range allXStats(1) {
		f.Add(name, uint64(1))
	}
	f.Add("rx_q0_wait_ms", uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, name string, value uint64) {
		d := newFake(1)
		d.xstats = append(d.xstats, rtap.XStat{Name: name, Value: value})
		families := gather(t, fakes(d))
		lint(t, families)
		base, more := count(gather(t, fakes(newFake(1)))), count(families)
		if more > base+1 {
			t.Errorf("%q makes %d series", name, more-base)
		}
	})
}

// count is how many series there are; a histogram is one.
func count(families []*dto.MetricFamily) (n int) {
	for _, f := range families {
		n += len(f.Metric)
	}
	return n
}

// TestCardinality: the number of series is what the documentation says, and does not grow by itself.
func TestCardinality(t *testing.T) {
	one, nine := count(gather(t, fakes(newFake(1)))), count(gather(t, fakes(newFake(9))))
	if perQueue := (nine - one) / 8; one > 90 || perQueue > 60 {
		t.Errorf("%d series with a queue, %d for each other", one, perQueue)
	}
	names := map[string]bool{}
	for _, f := range gather(t, fakes(newFake(2), newFake(2))) {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				names[l.GetName()] = true
			}
		}
	}
	known := []string{"port", "interface", "queue", "driver", "engine", "mac", "direction", "offload", "reason", "name", "pool"}
	for n := range names {
		if !slices.Contains(known, n) {
			t.Errorf("a label %q", n)
		}
	}
}

// TestScrapeWhileChanging: ports that fail in every way there is never cost the scrape.
func TestScrapeWhileChanging(t *testing.T) {
	nettest.NeedFast(t)
	a, b := newFake(3), newFake(1)
	broken := errors.New("netlink: broken\xff")
	states := []func(){
		func() { b.err, b.linkErr = rtap.ErrGone, rtap.ErrGone },
		func() { b.statsErr = rtap.ErrClosed },
		func() { b.info = rtap.Info{} },
		func() { b.queues = nil },
		func() { b.info.RxQueues = 128 },
		func() { b.xstatsErr, b.xstats = broken, nil },
		func() { b.linkErr, b.err = broken, nil },
		func() { b.link = rtap.LinkStatus{} },
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if text := scrape(t, fakes(a, b)); !strings.Contains(text, `rtap_port_attached{interface="foo0",port="net_rtap0"} 1`) {
					t.Error("the other port is not shown")
				}
			}
		})
	}
	for range nettest.Scale(20) {
		for _, change := range states {
			b.set(change)
			scrape(t, fakes(a, b))
		}
	}
	close(done)
	wg.Wait()
	gather(t, fakes(a, b))
}

// TestDocumentedNames: the metrics named in the documentation of the package are there.
func TestDocumentedNames(t *testing.T) {
	src, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(1)
	f.xstats = append(f.xstats, rtap.XStat{Name: "rx_wait_ms"}, rtap.XStat{Name: "rx_q0_wait_ms"})
	text := scrape(t, fakes(f))
	for _, name := range regexp.MustCompile(`rtap_[a-z_]*[a-z]\b`).FindAllString(string(src), -1) {
		if !strings.HasPrefix(name, "rtap_mempool") && !strings.Contains(text, name) {
			t.Errorf("%s is documented, and not there", name)
		}
	}
}
