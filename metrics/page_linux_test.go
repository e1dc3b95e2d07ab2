// SPDX-License-Identifier: BSD-3-Clause

package metrics

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

// serveIn serves on a free port of a namespace's loopback address.
func serveIn(t *testing.T, ns *netns.NS, h http.Handler) (s *Server, url string) {
	t.Helper()
	var l net.Listener
	must(t, ns.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	s = serve(l, h)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, "http://" + s.Addr().String() + "/"
}

// screens are what the page is looked at on.
var screens = []struct {
	name          string
	width, height int
}{{"phone", 390, 844}, {"small", 1280, 720}, {"laptop", 1440, 900}, {"wide", 1920, 1080}}

// fits looks at the page on every screen, by day and by night: nothing may lie outside.
func (b *browser) fits(dir, name string) {
	b.t.Helper()
	grounds := map[string]bool{}
	for _, s := range screens {
		for _, scheme := range []string{"light", "dark"} {
			b.look(s.width, s.height, scheme)
			b.frame()
			var got struct {
				Overflow, Blank int
				Outside         []string
				Ground          string
			}
			b.eval(`({
				overflow: document.documentElement.scrollWidth - `+fmt.Sprint(s.width)+`,
				outside: [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > `+fmt.Sprint(s.width)+`.5).map(e => e.outerHTML.slice(0, 80)),
				blank: [...document.querySelectorAll("canvas")].filter(c => {
					const none = Object.assign(document.createElement("canvas"), {width: c.width, height: c.height});
					return c.toDataURL() === none.toDataURL();
				}).length,
				ground: getComputedStyle(document.body).backgroundColor,
			})`, &got)
			if got.Overflow > 0 || len(got.Outside) > 0 || got.Blank > 0 {
				b.t.Errorf("%s on %s, %s: %d pixels too wide %q, %d blank charts", name, s.name, scheme, got.Overflow, got.Outside, got.Blank)
			}
			grounds[got.Ground] = true
			b.shot(dir, name+"-"+s.name+"-"+scheme, s.name == "phone" || strings.Contains(name, "4x8"))
		}
	}
	if len(grounds) != 2 {
		b.t.Errorf("backgrounds are %v", grounds)
	}
}

const first = `ports.get("net_rtap0")`

// TestPage opens the page while traffic runs, loses an interface, a port, and in the end the server.
func TestPage(t *testing.T) {
	nettest.NeedProgram(t, "chromium")
	dir := artifacts(t)
	r := newRig(t, 2, 2)
	r.forward()
	s, url := serveIn(t, r.ns, NewHandler(Config{Source: r.view, Version: "v1.2.3"}))
	b := openBrowser(t, r.ns)
	b.look(1440, 900, "light")
	b.open(url)
	b.until("two samples", first+`?.samples.length >= 2`)

	// What is shown moves, and is what the port counts.
	var shown struct {
		Packets uint64
		Samples int
		Text    string
	}
	const state = `({packets: ` + first + `.data.stats.ipackets, samples: ` + first + `.samples.length, text: document.body.innerText})`
	b.eval(state, &shown)
	stats, err := r.view().Ports[0].Device.Stats()
	must(t, err)
	if shown.Packets == 0 || shown.Packets > stats.IPackets {
		t.Errorf("%d packets are shown, %d were received", shown.Packets, stats.IPackets)
	}
	for _, want := range []string{"net_rtap0", "net_rtap1", "foo0", "pkt/s", "bit/s", "MTU 1500", "v1.2.3", "healthy", "Queues", "Packet memory", "Missed"} {
		if !strings.Contains(shown.Text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	b.until("the numbers move", fmt.Sprintf(`%s.data.stats.ipackets > %d && %[1]s.samples.length > %[3]d && document.body.innerText !== %[4]q`,
		first, shown.Packets, shown.Samples, shown.Text))
	b.until("a rate is shown", `/^[1-9]/.test(document.querySelector(".kpi.rx b").innerText) && /^[1-9]/.test(document.querySelector(".kpi.tx b").innerText)`)

	// The charts are read by keyboard, too.
	b.eval(`document.querySelector("canvas").focus()`, nil)
	for _, key := range []string{"keyDown", "keyUp"} {
		b.page("Input.dispatchKeyEvent", map[string]any{"type": key, "key": "ArrowLeft", "code": "ArrowLeft", "windowsVirtualKeyCode": 37}, nil)
	}
	b.until("the cursor moves", first+`.cursor !== null && /\d\d:\d\d:\d\d/.test(document.querySelector(".fig h3").innerText)`)
	b.shot(dir, "cursor", false)
	b.eval(`document.querySelector("canvas").blur()`, nil)

	b.until("more samples", first+`.samples.length >= 8`)
	b.fits(dir, "2x2")

	// An interface is deleted; then its port is not shown any more; a new one is.
	must(t, nettest.Conn(t, r.ns).Delete(r.view().Ports[1].Device.Info().IfIndex))
	b.look(1440, 900, "light")
	b.until("the deletion shows", `document.querySelector("[data-port=net_rtap1] .pill.bad")?.innerText === "interface deleted" && document.querySelector("#health.bad")`)
	b.shot(dir, "deleted", false)
	r.hide(1)
	b.until("the port goes", `!document.querySelector("[data-port=net_rtap1]") && document.querySelector("#health.good")`)
	r.open(2, 1)
	b.until("a port comes", `document.querySelector("[data-port=net_rtap2]")`)
	b.check(url)

	must(t, s.Close())
	b.until("the end shows", `!document.getElementById("lost").hidden && document.querySelector(".kpi b").innerText.startsWith("–")`)
	b.shot(dir, "ended", false)
	b.fits(dir, "ended")
	problems, _ := b.seen()
	problems = slices.DeleteFunc(problems, func(p string) bool { return strings.Contains(p, "ERR_CONNECTION_REFUSED") })
	if len(problems) > 0 {
		t.Errorf("after the end the console says %q", problems)
	}
}

// TestPageLarge: four ports of eight queues.
func TestPageLarge(t *testing.T) {
	nettest.NeedProgram(t, "chromium")
	r := newRig(t, 4, 8)
	r.forward()
	_, url := serveIn(t, r.ns, NewHandler(Config{Source: r.view, Version: "v1.2.3"}))
	b := openBrowser(t, r.ns)
	b.open(url)
	b.until("samples of all queues", `ports.size === 4 && [...ports.values()].every(p => p.samples.length > 3 && p.now.rp.length === 8 && p.now.rp.every(v => v > 0))`)
	b.fits(artifacts(t), "4x8")
	var rows int
	if b.eval(`document.querySelectorAll("tbody tr").length`, &rows); rows != 32 {
		t.Errorf("%d rows of queues", rows)
	}
	b.check(url)
}

// TestPageHistograms: with all the statistics there are, of a port that only counts.
func TestPageHistograms(t *testing.T) {
	nettest.NeedProgram(t, "chromium")
	ns := nettest.NS(t)
	f := newFake(1)
	f.info.EnabledRxOffloads, f.info.EnabledTxOffloads = 1<<14-1, 1<<21-1
	_, url := serveIn(t, ns, newHandler(func() view {
		f.set(func() { // each look finds more
			f.xstats = slices.Clone(f.xstats)
			for i := range f.xstats {
				f.xstats[i].Value += uint64(1000 * (7 + i*i%11))
			}
			q := &f.queues[0]
			q.IPackets, q.OPackets, q.IBytes, q.OBytes = q.IPackets+2e6, q.OPackets+1e6, q.IBytes+3e9, q.OBytes+6e7
			q.IErrors += 3
		})
		return fakes(f)()
	}, "v1.2.3"))
	b := openBrowser(t, ns)
	b.open(url)
	b.until("samples", first+`?.samples.length > 4`)
	var got struct{ Bars, Text, More string }
	b.eval(`(document.querySelector("details").open = true, {bars: [...document.querySelectorAll(".bars")].map(e => e.children.length).join(), text: document.body.innerText})`, &got)
	if got.Bars != "12,9" { // empty polls are no bar
		t.Errorf("bars: %s", got.Bars)
	}
	for _, want := range []string{"of polls empty", "≤1023", "≤8191", "≥256", "Gbit/s", "tcp_lro"} {
		if !strings.Contains(got.Text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	b.until("the other statistics", `document.querySelector(".more").innerText.includes("rx_q0_window")`)
	b.until("losses stand out", `document.querySelector(".loss .now")`)
	b.fits(artifacts(t), "full")
	b.check(url)
}

// TestPageWithoutPorts says so.
func TestPageWithoutPorts(t *testing.T) {
	nettest.NeedProgram(t, "chromium")
	ns := nettest.NS(t)
	_, url := serveIn(t, ns, newHandler(fakes(), ""))
	b := openBrowser(t, ns)
	b.open(url)
	b.until("it says that there are no ports", `document.getElementById("empty")?.checkVisibility()`)
	b.fits(artifacts(t), "empty")
	b.check(url)
}

// TestScrapeRealPorts: ports come, move packets, lose their interface, are closed and go while they are scraped.
func TestScrapeRealPorts(t *testing.T) {
	nettest.NeedFast(t)
	r := newRig(t, 2, 2)
	r.forward()
	read := Source(r.view).read
	lint(t, gather(t, read))
	nettest.Eventually(t, 10e9, "packets are counted", func() bool {
		s, err := r.view().Ports[1].Device.Stats()
		return err == nil && s.IPackets > 0 && s.OPackets > 0
	})
	text := scrape(t, read)
	for _, want := range []string{
		// The driver's own names, ranges put together.
		`rtap_queue_receive_packet_size_bytes_bucket{`, `rtap_queue_receive_burst_packets_bucket{`, `rtap_queue_receive_empty_reads_total{`,
		`rtap_queue_transmit_failures_total{`,
		`rtap_port_attached{interface="foo1",port="net_rtap1"} 1`, `rtap_port_link_up{interface="foo0",port="net_rtap0"} 1`,
		`rtap_queue_receive_packets_total{port="net_rtap0",queue="1"}`, `rtap_mempool_mbufs{pool="rtap"} 8192`,
		`rtap_port_mtu_bytes{interface="foo0",port="net_rtap0"} 1500`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, ours(text))
		}
	}
	if strings.Contains(text, `rtap_port_receive_packets_total{interface="foo1",port="net_rtap1"} 0`) {
		t.Error("no packets are counted")
	}
	done := make(chan struct{})
	go func() { // asks all the time
		defer close(done)
		for range nettest.Scale(300) {
			scrape(t, read)
		}
	}()
	gone := r.view().Ports[1].Device
	must(t, nettest.Conn(t, r.ns).Delete(gone.Info().IfIndex))
	nettest.Eventually(t, 10e9, "the scrape shows that the interface is gone", func() bool {
		return strings.Contains(scrape(t, read), `rtap_port_attached{interface="foo1",port="net_rtap1"} 0`)
	})
	if text = scrape(t, read); !strings.Contains(text, `rtap_port_receive_packets_total{interface="foo1",port="net_rtap1"}`) {
		t.Error("what a port counted goes with its interface")
	}
	dev := r.open(2, 1)
	must(t, gone.Close())
	must(t, dev.Close())
	for _, name := range []string{"net_rtap1", "net_rtap2"} {
		if text = scrape(t, read); !strings.Contains(text, `port="`+name+`"} 0`) || strings.Contains(text, `receive_packets_total{interface="foo2"`) {
			t.Errorf("the closed port %s is shown as %s", name, ours(text))
		}
	}
	r.hide(1)
	lint(t, gather(t, read))
	<-done
	if text = scrape(t, read); strings.Contains(text, "net_rtap1") {
		t.Error("a port that is not shown any more is")
	}
	if err := dev.Err(); err != rtap.ErrClosed {
		t.Error(err)
	}
}
