// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rtap-project/rtap"
)

const benchIntro = `Measures the driver's engines side by side: syscall, one read or write per packet,
and uring. Everything happens in network namespaces of their own; nothing reaches
the network or stays behind, after Ctrl-C either. Rounds of the engines alternate, so
that what else the machine does hits both. The figures are medians of the rounds.
`

func benchMore() string {
	var b strings.Builder
	b.WriteString("Workloads:\n")
	for _, w := range workloads {
		fmt.Fprintf(&b, "  %-12s %s\n", w.name, strings.ReplaceAll(w.help, "\n", "\n               "))
	}
	b.WriteString(`
Bytes are those of the frame, Ethernet header included, without FCS. Times are wall
time of one goroutine, kernel and driver together, mbuf allocation and freeing
included; of the forward workloads, the machine's.

Examples:
  rtap bench
  rtap bench --workload tx,rx-drain --rounds 21 --packet-bytes 64 --burst 64
  rtap bench --json > before.json
  rtap bench --benchstat > new.txt; benchstat -col /engine new.txt

With --json standard output has one object: {"kernel", "version", "rows": [{"workload",
"engine", "packet_bytes", "burst", "ns_per_packet", "min", "max", "rounds"}...]}; rows of
the forward workloads have "gbps" too.
`)
	return b.String()
}

// workload is something to measure.
type workload struct {
	name, help string
	matrix     bool          // over packet sizes and bursts; else one cell
	cell       cell          // that one
	scale      int           // how many times the usual length a round takes
	rivals     []rtap.Engine // measured beside the driver's engines
	open       func(rtap.Engine) (rig, error)
}

// workloads is the table of workloads. A new one is a rig and a line here.
var workloads = []workload{
	{name: "tx", matrix: true, scale: 1, open: openTx,
		help: "Bursts are sent. The kernel does the least it can for them: their\n" +
			"EtherType is one that nobody listens to, so it drops them at the top\n" +
			"of its receive path."},
	{name: "rx-drain", matrix: true, scale: 1, open: openDrain,
		help: "A full queue of 4096 packets, put there by a packet socket, is received\n" +
			"to the last. Only that is timed, not the filling."},
	{name: "poll-empty", cell: cell{burst: 64}, scale: 1, open: openPoll,
		help: "An empty queue is polled; nanoseconds are per poll."},
	{name: "forward", cell: cell{bytes: 1514, burst: 64}, scale: 3, open: openForward,
		help: "Two ports in io mode, a namespace each, one TCP stream of the kernel's\n" +
			"from one to the other. Packets are those that carry data, not the\n" +
			"acknowledgements; the size is that of a full segment. Rounds are three\n" +
			"times as long."},
	{name: "forward-lro", cell: cell{bytes: 1514, burst: 64}, scale: 10, rivals: []rtap.Engine{engineNoOffloads}, open: openForwardMode("io"),
		help: "The same with all offloads: frames of up to 64 KB are passed on as they\n" +
			"came. Beside the engines, \"no-offloads\" is workload forward once more.\n" +
			"A packet is a full segment's worth of data, in frames or not. Rounds\n" +
			"are ten times as long."},
	{name: "forward-mtu", cell: cell{bytes: 1514, burst: 64}, scale: 10, rivals: []rtap.Engine{engineNoOffloads}, open: openForwardMode("mtu"),
		help: "The same in mode mtu: frames are cut to packets of the MTU, as a program\n" +
			"would see them, and put together again."},
	{name: "ping", cell: cell{bytes: 98, burst: 64}, scale: 1, rivals: []rtap.Engine{enginePlain}, open: openPing,
		help: "One port in mode icmpecho, polled, answers pings of the kernel's, one at a\n" +
			"time; nanoseconds are of the median round trip. Beside the engines, \"plain\"\n" +
			"is a loop of read(2) and write(2) on a TAP that does no more than echo.\n" +
			"Who pings polls too: how long a CPU takes to wake up is not measured."},
	{name: "wake", cell: cell{bytes: 98, burst: 64}, scale: 3, rivals: []rtap.Engine{enginePlain}, open: openWake,
		help: "The same with a worker that sleeps (--rx-mode=adaptive), and a ping every\n" +
			"two milliseconds from another process, so that each wakes it up. \"plain\"\n" +
			"sleeps in epoll_wait(2). Most of the time is that in which CPUs wake up."},
}

// cell is one place in the table.
type cell struct{ bytes, burst int }

// rig is a workload set up for one engine.
type rig interface {
	// round works for about d and says what it came to.
	round(ctx context.Context, c cell, d time.Duration) (sample, error)
	close() error
}

// sample is what one round came to.
type sample struct {
	packets int
	elapsed time.Duration
	gbps    float64       // the forward workloads only
	tail    time.Duration // the ping workloads only: what 99 of 100 did not exceed
}

func (s sample) nsPerPacket() float64 {
	return float64(s.elapsed.Nanoseconds()) / float64(max(s.packets, 1))
}

type benchOptions struct {
	workloads       words
	rounds          int
	roundTime       seconds
	bytes, bursts   ints
	json, benchstat bool
}

func (o *benchOptions) flags() *flags {
	o.roundTime = seconds(100 * time.Millisecond)
	o.bytes, o.bursts = ints{64, 1500}, ints{1, 8, 32, 64}
	for _, w := range workloads {
		o.workloads = append(o.workloads, w.name)
	}
	f := newFlags("bench", benchIntro, benchMore())
	f.Var(&o.workloads, "workload", "LIST: workloads to run, see below")
	f.IntVar(&o.rounds, "rounds", 7, "N: rounds of each cell and engine")
	f.Var(&o.roundTime, "round-time", "SECONDS: length of a round")
	f.Var(&o.bytes, "packet-bytes", "LIST: packet sizes of tx and rx-drain, 14 to 1514")
	f.Var(&o.bursts, "burst", "LIST: bursts of tx and rx-drain, 1 to 512")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.BoolVar(&o.benchstat, "benchstat", false, "print lines of Go benchmarks, one for each round, as benchstat reads them")
	return f
}

func (o *benchOptions) check(f *flags) error {
	for _, name := range o.workloads {
		if !slices.ContainsFunc(workloads, func(w workload) bool { return w.name == name }) {
			return f.usage("--workload: there is no %q; rtap help bench lists them", name)
		}
	}
	if err := f.inRange("rounds", o.rounds, 1, 10000); err != nil {
		return err
	}
	if d := time.Duration(o.roundTime); d < time.Millisecond || d > time.Minute {
		return f.usage("--round-time is %v: want 1ms to 1m", d)
	}
	for _, n := range o.bytes {
		if err := f.inRange("packet-bytes", n, 14, 1514); err != nil {
			return err
		}
	}
	for _, n := range o.bursts {
		if err := f.inRange("burst", n, 1, 512); err != nil {
			return err
		}
	}
	if o.json && o.benchstat {
		return f.usage("--json and --benchstat: want one of them")
	}
	return nil
}

// benchVerb is rtap bench.
func benchVerb(ctx context.Context, st streams, args []string) error {
	var o benchOptions
	f := o.flags()
	if err := f.parse(args, st.out); err != nil {
		return err
	}
	if err := o.check(f); err != nil {
		return err
	}
	b := &bench{o: o, progress: newDisplay(st.err), rows: []row{}}
	err := b.run(ctx)
	b.progress.clear()
	r := benchReport{Version: version(), Kernel: kernelRelease(), Rows: b.rows}
	switch {
	case o.json:
		err = errors.Join(err, json.NewEncoder(st.out).Encode(r))
	case o.benchstat:
		r.benchstat(st.out)
	default:
		r.table(st.out)
	}
	return err
}

// bench is a run of rtap bench.
type bench struct {
	o        benchOptions
	engines  []rtap.Engine
	progress *display
	done     int // rounds
	rows     []row
}

func (b *bench) run(ctx context.Context) error {
	if err := b.chooseEngines(); err != nil {
		return err
	}
	b.progress.printf("Measuring %s, %s of %s: about %v", strings.Join(b.o.workloads, ", "), plural(b.o.rounds, "round"),
		plural(len(b.engines), "engine"), b.estimate().Round(time.Second))
	for _, w := range b.chosen() {
		if err := b.workload(ctx, w); err != nil {
			return fmt.Errorf("workload %s: %w", w.name, err)
		}
	}
	return nil
}

// chosen is the workloads to run, in the order of the table.
func (b *bench) chosen() []workload {
	var out []workload
	for _, w := range workloads {
		if slices.Contains(b.o.workloads, w.name) {
			out = append(out, w)
		}
	}
	return out
}

// estimate is how long it all takes: half as long again as the rounds, for what
// is not timed.
func (b *bench) estimate() time.Duration {
	var sum time.Duration
	for _, w := range b.chosen() {
		sum += time.Duration(b.roundsOf(w)*w.scale) * time.Duration(b.o.roundTime)
	}
	return sum + sum/2
}

// chooseEngines finds out what can be measured here.
func (b *bench) chooseEngines() error {
	l, err := newLab(1)
	if err != nil {
		return err
	}
	defer l.close()
	dev, err := rtap.Open(rtap.Config{NetNS: l.path(0)})
	if err != nil {
		return err
	}
	b.engines = []rtap.Engine{rtap.EngineSyscall}
	if info := dev.Info(); info.Engine == rtap.EngineUring {
		b.engines = append(b.engines, rtap.EngineUring)
	} else {
		b.progress.printf("Measuring engine syscall alone: %s", info.EngineReason)
	}
	return dev.Close()
}

// rivalsOf is everything that is measured side by side in a workload.
func (b *bench) rivalsOf(w workload) []rtap.Engine { return slices.Concat(b.engines, w.rivals) }

// roundsOf is how many rounds a workload takes.
func (b *bench) roundsOf(w workload) int {
	return len(b.o.cells(w)) * b.o.rounds * len(b.rivalsOf(w))
}

// workload measures one, with a rig for each engine side by side.
func (b *bench) workload(ctx context.Context, w workload) (err error) {
	engines := b.rivalsOf(w)
	rigs := make([]rig, 0, len(engines))
	defer func() {
		for _, r := range rigs {
			err = errors.Join(err, r.close())
		}
	}()
	for _, e := range engines {
		r, err := w.open(e)
		if err != nil {
			return fmt.Errorf("engine %s: %w", e, err)
		}
		rigs = append(rigs, r)
	}
	for _, c := range b.o.cells(w) {
		if err := b.cell(ctx, w, c, engines, rigs); err != nil {
			return err
		}
	}
	return nil
}

func (o *benchOptions) cells(w workload) []cell {
	if !w.matrix {
		return []cell{w.cell}
	}
	var out []cell
	for _, bytes := range o.bytes {
		for _, burst := range o.bursts {
			out = append(out, cell{bytes, burst})
		}
	}
	return out
}

// cell measures one place in the table: A B A B, after a short round of each
// whose result does not count.
func (b *bench) cell(ctx context.Context, w workload, c cell, engines []rtap.Engine, rigs []rig) error {
	length := time.Duration(b.o.roundTime) * time.Duration(w.scale)
	rows := make([]row, len(rigs))
	for i, r := range rigs {
		rows[i] = row{Workload: w.name, Engine: engines[i], PacketBytes: c.bytes, Burst: c.burst}
		if _, err := r.round(ctx, c, length/10); err != nil {
			return fmt.Errorf("engine %s: %w", engines[i], err)
		}
	}
	for range b.o.rounds {
		for i, r := range rigs {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			b.showProgress(rows[i])
			s, err := r.round(ctx, c, length)
			if err != nil {
				return fmt.Errorf("engine %s: %w", engines[i], err)
			}
			rows[i].samples = append(rows[i].samples, s)
			b.done++
		}
	}
	for _, r := range rows {
		r.summarize()
		b.rows = append(b.rows, r)
	}
	return nil
}

func (b *bench) showProgress(r row) {
	total := 0
	for _, w := range b.chosen() {
		total += b.roundsOf(w)
	}
	const width = 30
	full := width * b.done / max(total, 1)
	b.progress.status(fmt.Sprintf("[%s%s] %3d%%  %s, %d bytes, burst %d, %s\n",
		strings.Repeat("#", full), strings.Repeat(".", width-full), 100*b.done/max(total, 1),
		r.Workload, r.PacketBytes, r.Burst, r.Engine))
}
