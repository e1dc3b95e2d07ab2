// SPDX-License-Identifier: BSD-3-Clause

//go:build linux

package rtap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

// shareHere opens the queues of a port once more in this process, as another one does.
func (p *port) shareHere(memory Memory) *SharedQueues {
	p.t.Helper()
	s, fds, err := p.Share()
	must(p.t, err)
	q, err := OpenShared(s, fds, SharedConfig{Memory: func(int) Memory { return memory }, Regions: memory.Regions(), Engine: p.cfg.Engine})
	must(p.t, err)
	p.t.Cleanup(func() { must(p.t, q.Close()) })
	return q
}

// TestShared: the queues of a port work in two places, each where its program polls it: packets go both ways, are marked with the
// port and counted at the primary, in every kind of statistics; and when one place gives them up, its mbufs are back and the
// other goes on.
func TestShared(t *testing.T) {
	eachEngine(t, func(t *testing.T, e Engine) {
		pool := newPool(t, mbuf.Config{Name: "shared", Count: 512})
		p := openPort(t, Config{Shared: true, Engine: e, Port: 9})
		p.setUp(3, RxConfig{Ring: 64})
		q := p.shareHere(pool)
		if engine, why := q.Engine(); engine != e || why == "" {
			t.Errorf("engine is %s: %s", engine, why)
		}
		for i := range 3 {
			if q.RxQueue(i).depth != 64 {
				t.Errorf("queue %d has a ring of %d", i, q.RxQueue(i).depth)
			}
		}
		p.capturer()
		wantInUse(t, pool, 0)
		for round := range 3 {
			elsewhere(t, p, q, pool, 2, uint64(round))
			p.exchangeOn(0)
		}
		must(t, q.Close())
		must(t, q.Close())
		wantInUse(t, pool, 0)
		if q.RxQueue(2) != nil {
			t.Error("there is a queue still")
		}
		p.exchange()
	})
}

// TestSharedTUN: who has the queues knows what the packets begin with.
func TestSharedTUN(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "shared", Count: 64})
	p := openPort(t, Config{Mode: ModeTUN, Shared: true})
	p.setUp(1, RxConfig{Ring: 16})
	q := p.shareHere(pool)
	packet := ipPacket(false, 100, 1)
	p.inject(packet)
	bufs := make([]*mbuf.Mbuf, 4)
	nettest.Eventually(t, wait, "the packet", func() bool { return q.RxQueue(0).Burst(bufs) == 1 })
	if m := bufs[0]; m.PacketType != mbuf.PTypeL3IPv4|mbuf.PTypeL4UDP || !bytes.Equal(m.Bytes(), packet) {
		t.Errorf("received %#x % x", m.PacketType, m.Bytes())
	}
	bufs[0].Free()
	must(t, q.Close())
}

// elsewhere has queue i of q send and receive, and looks whether the port has counted it.
func elsewhere(t *testing.T, p *port, q *SharedQueues, pool *mbuf.Pool, i int, rounds uint64) {
	t.Helper()
	f, m := flow(i, 100), pool.Alloc()
	copy(m.Append(len(f)), f)
	if q.TxQueue(i).Burst([]*mbuf.Mbuf{m}) != 1 {
		t.Fatal("the packet was not sent")
	}
	if got := p.captured(1)[0]; !bytes.Equal(got, f) {
		t.Fatalf("sent % x, captured % x", f, got)
	}
	p.inject(f)
	bufs := make([]*mbuf.Mbuf, 4)
	nettest.Eventually(t, wait, "the packet", func() bool { return q.RxQueue(i).Burst(bufs) == 1 })
	if m := bufs[0]; m.Port != 9 || !bytes.Equal(m.Bytes(), f) {
		t.Errorf("received of port %d % x", m.Port, m.Bytes())
	}
	bufs[0].Free()
	want := QueueStats{IPackets: rounds + 1, OPackets: rounds + 1, IBytes: 100 * (rounds + 1), OBytes: 100 * (rounds + 1)}
	if got, err := p.QueueStats(i); err != nil || got != want {
		t.Errorf("queue %d has counted %+v, want %+v: %v", i, got, want, err)
	}
	if n := p.xstat(fmt.Sprintf("rx_q%d_size_65_to_127_packets", i)); n != rounds+1 {
		t.Errorf("%d packets of that size, want %d", n, rounds+1)
	}
	if s := p.stats(); s.IPackets < rounds+1 || s.IErrors+s.OErrors != 0 {
		t.Errorf("the port has counted %+v", s)
	}
}

// exchangeOn is exchange for one queue, of those that this process polls.
func (p *port) exchangeOn(i int) {
	p.t.Helper()
	f := flow(i, 64)
	p.send(i, f)
	p.captured(1)
	p.inject(f)
	p.burst(i, 1)[0].Free()
}

// TestSharedOffloads: slots are of the port's size, and packets say as much as at the primary.
func TestSharedOffloads(t *testing.T) {
	pool := newPool(t, mbuf.Config{Name: "shared", Count: 512, DataRoom: 1000})
	p := openPort(t, Config{Shared: true, MTU: 9000})
	must(t, p.Configure(PortConfig{RxQueues: 1, TxQueues: 1, RxOffloads: RxOffloadTCPCksum, TxOffloads: TxOffloadTCPCksum}))
	must(t, p.SetupRxQueue(0, RxConfig{}))
	must(t, p.SetupTxQueue(0, TxConfig{}))
	must(t, p.Device.Start())
	q := p.shareHere(pool)
	if own, its := p.TxQueue(0).allow, q.TxQueue(0).allow; own != its {
		t.Errorf("packets may ask for %+v, want %+v", its, own)
	}
	if q.RxQueue(0).offloads != RxOffloadTCPCksum {
		t.Errorf("the queue's offloads are %#x", q.RxQueue(0).offloads)
	}
	f := frame(9000, 1)
	p.inject(f)
	bufs := make([]*mbuf.Mbuf, 1)
	nettest.Eventually(t, wait, "the packet", func() bool { return q.RxQueue(0).Burst(bufs) == 1 })
	if got := bufs[0].AppendTo(nil); !bytes.Equal(got, f) || bufs[0].NbSegs < 9 {
		t.Errorf("%d bytes in %d segments", len(got), bufs[0].NbSegs)
	}
	bufs[0].Free()
}

// TestShareErrors: what cannot be shared says why, and descriptors that were sent are closed.
func TestShareErrors(t *testing.T) {
	p := openPort(t, Config{})
	p.setUp(1, RxConfig{})
	if _, _, err := p.Share(); !errors.Is(err, errNotShared) {
		t.Errorf("of a port that is not shared: %v", err)
	}
	p = openPort(t, Config{Shared: true})
	if _, _, err := p.Share(); !errors.Is(err, ErrStopped) {
		t.Errorf("of a stopped port: %v", err)
	}
	p.setUp(2, RxConfig{})
	pool := newPool(t, mbuf.Config{Name: "shared", Count: 512})
	good := SharedConfig{Memory: func(int) Memory { return pool }}
	before := nettest.Leaks()
	for name, c := range map[string]func(s *Shared, fds []int, cfg *SharedConfig) []int{
		"a descriptor less": func(_ *Shared, fds []int, _ *SharedConfig) []int {
			ipc.CloseAll(fds[2:])
			return fds[:2]
		},
		"none":        func(_ *Shared, fds []int, _ *SharedConfig) []int { ipc.CloseAll(fds); return nil },
		"no queues":   func(s *Shared, fds []int, _ *SharedConfig) []int { s.RxRings = nil; return fds },
		"no Tx ring":  func(s *Shared, fds []int, _ *SharedConfig) []int { s.TxRings = s.TxRings[:1]; return fds },
		"a ring of 0": func(s *Shared, fds []int, _ *SharedConfig) []int { s.RxRings[1] = 0; return fds },
		"no memory":   func(_ *Shared, fds []int, c *SharedConfig) []int { c.Memory = nil; return fds },
		"nil memory": func(_ *Shared, fds []int, c *SharedConfig) []int {
			c.Memory = func(int) Memory { return nil }
			return fds
		},
		"no engine":    func(_ *Shared, fds []int, c *SharedConfig) []int { c.Engine = "steam"; return fds },
		"not the area": func(_ *Shared, fds []int, _ *SharedConfig) []int { slices.Reverse(fds); return fds },
	} {
		s, fds, err := p.Share()
		must(t, err)
		cfg := good
		fds = c(&s, fds, &cfg)
		if q, err := OpenShared(s, fds, cfg); err == nil || q != nil {
			t.Errorf("%s: no error", name)
		}
	}
	before.Check(t)
	p.exchange()
	must(t, p.Close())
	if _, _, err := p.Share(); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed port: %v", err)
	}
}

// TestStatsAfterKill: a process that was killed in the midst of counting costs one reader a second, and no reader after.
func TestStatsAfterKill(t *testing.T) {
	p := openPort(t, Config{Shared: true})
	p.setUp(1, RxConfig{})
	rx := &p.area.pairs[0].rx.tally
	for range 2 {
		rx.turns.Add(1)
		p.stats()
		if rx.turns.Load()&1 != 0 {
			t.Fatal("nobody publishes, and it says that somebody does")
		}
		p.exchange()
	}
}

// sharerEnv makes the test program a process that echoes what queue 1 receives. Its descriptors are 3 and on.
const sharerEnv = "RTAP_TEST_SHARER"

func init() {
	others := otherProcess
	otherProcess = func() (int, bool) {
		what := os.Getenv(sharerEnv)
		if what == "" {
			return others()
		}
		err := sharer([]byte(what))
		if err != nil {
			fmt.Fprintln(os.Stderr, "sharer:", err)
			return 1, true
		}
		return 0, true
	}
}

// sharer ends when its input does.
func sharer(what []byte) error {
	var s Shared
	if err := json.Unmarshal(what, &s); err != nil {
		return err
	}
	pool, err := mbuf.NewPool(mbuf.Config{Name: "sharer", Count: 256})
	if err != nil {
		return err
	}
	var fds []int
	for i := range len(s.RxRings) + 1 {
		fds = append(fds, 3+i)
	}
	q, err := OpenShared(s, fds, SharedConfig{Memory: func(int) Memory { return pool }, Regions: pool.Regions()})
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	fmt.Println("ready")
	bufs := make([]*mbuf.Mbuf, 32)
	for {
		select {
		case <-ended:
			return errors.Join(q.Close(), pool.Close())
		default:
		}
		n := q.RxQueue(1).Burst(bufs)
		mbuf.FreeBulk(bufs[q.TxQueue(1).Burst(bufs[:n]):n])
	}
}

// TestSharedByProcess: the same with a process of its own; it may be killed, and another takes its place.
func TestSharedByProcess(t *testing.T) {
	p := openPort(t, Config{Shared: true})
	p.setUp(2, RxConfig{})
	p.capturer()
	f := flow(1, 80)
	p.send(1, f) // the kernel answers a flow where it came from
	p.captured(1)
	sent := uint64(1)
	for round := range 3 {
		cmd, in := p.startSharer()
		for range 10 {
			p.inject(f)
			if got := p.captured(1)[0]; !bytes.Equal(got, f) {
				t.Fatalf("the echo of % x is % x", f, got)
			}
			p.exchangeOn(0)
			sent++
		}
		nettest.Eventually(t, wait, "all to be counted", func() bool {
			s, err := p.QueueStats(1)
			return err == nil && s.OPackets == sent && s.IPackets == sent-1
		})
		if round == 1 {
			must(t, cmd.Process.Kill())
			_ = cmd.Wait()
			continue
		}
		in.Close()
		must(t, cmd.Wait())
	}
	p.exchange()
}

// startSharer starts a process with the port's queues.
func (p *port) startSharer() (*exec.Cmd, io.Closer) {
	p.t.Helper()
	s, fds, err := p.Share()
	must(p.t, err)
	what, err := json.Marshal(s)
	must(p.t, err)
	exe, err := os.Executable()
	must(p.t, err)
	cmd := exec.Command(exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), sharerEnv+"="+string(what))
	cmd.Stderr = os.Stderr
	for _, fd := range fds {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(fd), "shared"))
	}
	in, err := cmd.StdinPipe()
	must(p.t, err)
	out, err := cmd.StdoutPipe()
	must(p.t, err)
	must(p.t, cmd.Start())
	p.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	for _, f := range cmd.ExtraFiles {
		must(p.t, f.Close())
	}
	timer := time.AfterFunc(nettest.Bound(wait), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		p.t.Fatalf("the other process: %v", err)
	}
	return cmd, in
}

// TestDupFD: it knows the interface in any state of the port, takes no packets, and holds the interface.
func TestDupFD(t *testing.T) {
	p := openPort(t, Config{})
	fd, err := p.DupFD()
	must(t, err)
	dup := tuntap.FromFD(fd)
	defer func() { must(t, dup.Close()) }()
	p.setUp(1, RxConfig{Ring: 16})
	p.exchange()
	if name, err := dup.Name(); err != nil || name != p.Name() {
		t.Errorf("name is %q, %v, want %q", name, err, p.Name())
	}
	if n, err := syscall.Read(fd, make([]byte, 2000)); err != syscall.EAGAIN {
		t.Errorf("%d bytes are read from it, %v", n, err)
	}
	must(t, p.Close())
	if _, err := dup.Name(); err != nil {
		t.Errorf("after Close: %v", err)
	}
	if _, err := p.DupFD(); !errors.Is(err, ErrClosed) {
		t.Errorf("DupFD after Close: %v", err)
	}
}
