// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/mbuf"
	"golang.org/x/sys/unix"
)

// echo is traffic through a port: what is sent to it comes back, never more at a time than its queue holds.
type echo struct {
	t    *testing.T
	d    *rtap.Device
	inj  *traffic.Injector
	done atomic.Bool
	sent atomic.Uint64
	wg   sync.WaitGroup
}

func startEcho(t *testing.T, d *rtap.Device, inj *traffic.Injector) *echo {
	e := &echo{t: t, d: d, inj: inj}
	var back atomic.Uint64
	var all atomic.Bool // that will be sent, has been
	e.wg.Go(func() {
		bufs := make([]*mbuf.Mbuf, 32)
		for !all.Load() || back.Load() < e.sent.Load() {
			n := d.RxQueue(0).Burst(bufs)
			k := d.TxQueue(0).Burst(bufs[:n])
			mbuf.FreeBulk(bufs[k:n])
			back.Add(uint64(n))
			runtime.Gosched()
		}
	})
	e.wg.Go(func() {
		defer all.Store(true)
		f := frame(60)
		for !e.done.Load() {
			if e.sent.Load()-back.Load() >= 100 {
				runtime.Gosched()
				continue
			}
			if err := inj.Inject(f); err != nil {
				t.Error(err)
				return
			}
			e.sent.Add(1)
		}
	})
	return e
}

// goesOn waits until the traffic has moved on.
func (e *echo) goesOn() {
	e.t.Helper()
	target := e.sent.Load() + 200
	nettest.Eventually(e.t, wait, "traffic goes on", func() bool { return e.sent.Load() >= target })
}

// end stops the traffic and returns how many packets there were.
func (e *echo) end() uint64 {
	e.done.Store(true)
	e.wg.Wait()
	return e.sent.Load()
}

// counters reads the port's counters as a polite client.
func (e *echo) counters(dir string) PortStats {
	e.t.Helper()
	var s PortStats
	nettest.Eventually(e.t, wait, "a polite client is served", func() bool { // it may be the one that has to go
		c, err := Dial(dir, "p")
		if err == nil {
			s, err = c.Stats(0)
			c.Close()
		}
		return err == nil
	})
	return s
}

// open connects without reading the greeting.
func open(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	must(t, err)
	must(t, c.SetDeadline(time.Now().Add(nettest.Bound(3*wait))))
	return c
}

// TestHostileClients: nothing that a client does changes what the port counts, keeps others from being served,
// or leaves anything behind.
func TestHostileClients(t *testing.T) {
	attacks := []struct {
		name   string
		limits limits
		attack func(t *testing.T, s *Server)
	}{
		{"garbage", defaultLimits, garbage},
		{"large requests", defaultLimits, largeRequests},
		{"descriptors", defaultLimits, descriptors},
		{"500 connections", defaultLimits, manyConnections},
		{"half-open", limits{clients: 4, idle: 50 * time.Millisecond, writeWait: wait}, halfOpen},
		{"never reading", limits{clients: 4, idle: time.Hour, writeWait: 50 * time.Millisecond}, neverReading},
		{"gone at once", defaultLimits, goneAtOnce},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			ns, dir := nettest.QuietNS(t), newDir(t)
			pool := newPool(t, "p")
			d := startPort(t, ns, "foo0", 1, pool)
			inj, err := traffic.NewInjector(ns, d.Info().IfIndex)
			must(t, err)
			defer inj.Close()
			before := nettest.Leaks()
			s, err := serve(Config{Dir: dir, FilePrefix: "p", Ports: []Port{{0, "net_rtap0", d}}, Pools: []*mbuf.Pool{pool}}, a.limits)
			must(t, err)
			e := startEcho(t, d, inj)
			defer e.end()
			e.goesOn()
			a.attack(t, s)
			e.goesOn()
			e.counters(dir)
			n := e.end()
			got := e.counters(dir).Stats
			if want := (rtap.QueueStats{IPackets: n, OPackets: n, IBytes: 60 * n, OBytes: 60 * n}); got.QueueStats != want || got.IMissed != 0 {
				t.Errorf("the port counts %+v, want %+v", got, want)
			}
			must(t, s.Close())
			before.Check(t)
		})
	}
}

// wantNull fails unless b is a JSON object whose only value is null.
func wantNull(t *testing.T, b []byte) {
	t.Helper()
	var reply map[string]any
	if err := json.Unmarshal(b, &reply); err != nil || len(reply) != 1 {
		t.Fatalf("%v: %q", err, b)
	}
	for _, v := range reply {
		if v != nil {
			t.Errorf("%q", b)
		}
	}
}

func garbage(t *testing.T, s *Server) {
	random := rand.NewChaCha8([32]byte{1})
	c := open(t, s.Path())
	defer c.Close()
	b := make([]byte, maxOutput)
	if _, err := c.Read(b); err != nil {
		t.Fatal(err)
	}
	for i := range nettest.Scale(1000) {
		request := make([]byte, 1+i%1500)
		random.Read(request)
		must(t, c.SetDeadline(time.Now().Add(nettest.Bound(wait))))
		_, err := c.Write(request)
		must(t, err)
		n, err := c.Read(b)
		must(t, err)
		wantNull(t, b[:n])
	}
}

func largeRequests(t *testing.T, s *Server) {
	c := open(t, s.Path())
	defer c.Close()
	raw, err := c.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20) }))
	must(t, err)
	b := make([]byte, maxOutput)
	if _, err := c.Read(b); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{maxRequest + 1, 100 << 10, 1 << 20} {
		for _, begin := range []string{"/info,", "/", "x"} {
			_, err := c.Write([]byte(begin + strings.Repeat("a", size-len(begin))))
			if errors.Is(err, syscall.ENOBUFS) { // the kernel has no piece of memory of that size
				continue
			}
			must(t, err)
			n, err := c.Read(b)
			must(t, err)
			wantNull(t, b[:n])
		}
	}
}

// descriptors that a client sends along are not taken.
func descriptors(t *testing.T, s *Server) {
	c := open(t, s.Path())
	defer c.Close()
	for range 20 {
		_, _, err := c.WriteMsgUnix([]byte("/info"), unix.UnixRights(0, 1, 2), nil)
		must(t, err)
	}
	b := make([]byte, maxOutput)
	for range 1 + 20 {
		_, err := c.Read(b)
		must(t, err)
	}
}

func manyConnections(t *testing.T, s *Server) {
	goroutines := runtime.NumGoroutine()
	var conns []*net.UnixConn
	for range 500 {
		c := open(t, s.Path())
		defer c.Close()
		conns = append(conns, c)
		if n := runtime.NumGoroutine(); n > goroutines+s.limits.clients+2 {
			t.Fatalf("%d goroutines, and %d at the beginning", n, goroutines)
		}
	}
	b := make([]byte, maxOutput)
	last := conns[len(conns)-1] // nobody came after it
	if _, err := last.Read(b); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	clients := len(s.clients)
	s.mu.Unlock()
	if clients > s.limits.clients {
		t.Errorf("%d clients at a time", clients)
	}
	if _, err := last.Write([]byte("/ethdev/list")); err != nil {
		t.Error(err)
	}
	if n, err := last.Read(b); err != nil || string(b[:n]) != `{"/ethdev/list":[0]}` {
		t.Errorf("the last client reads %q, %v", b[:n], err)
	}
}

// halfOpen clients say nothing, and are closed for it.
func halfOpen(t *testing.T, s *Server) {
	b := make([]byte, maxOutput)
	for i := range 6 {
		c := open(t, s.Path())
		defer c.Close()
		if i%2 == 0 {
			must(t, c.CloseWrite())
		}
		for {
			_, err := c.Read(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("it is still there")
			}
			if err != nil {
				break
			}
		}
	}
}

// neverReading clients ask and do not take the answers, until nothing more can be sent to them.
func neverReading(t *testing.T, s *Server) {
	var wg sync.WaitGroup
	for range 3 {
		c := open(t, s.Path())
		defer c.Close()
		wg.Go(func() {
			for {
				if _, err := c.Write([]byte("/ethdev/xstats,0")); err != nil {
					if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("it is not closed: %v", err)
					}
					return
				}
			}
		})
	}
	for range 10 { // meanwhile
		c, err := Dial(s.cfg.Dir, "p")
		must(t, err)
		if _, err := c.Ports(); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	wg.Wait()
}

// goneAtOnce clients do not wait for what they asked for.
func goneAtOnce(t *testing.T, s *Server) {
	for i := range nettest.Scale(300) {
		c := open(t, s.Path())
		if i%2 == 0 {
			fmt.Fprint(c, "/ethdev/stats,0")
		}
		c.Close()
	}
}

// TestCloseWhileBusy: Close ends clients whatever they do.
func TestCloseWhileBusy(t *testing.T) {
	before := nettest.Leaks()
	for range nettest.Scale(30) {
		dir := newDir(t)
		s, err := Serve(Config{Dir: dir, FilePrefix: "p"})
		must(t, err)
		var wg sync.WaitGroup
		var answers atomic.Uint64
		var done atomic.Bool
		for range 25 { // more than there are places for
			wg.Go(func() {
				for !done.Load() {
					c, err := Dial(dir, "p")
					if err != nil {
						continue
					}
					for err == nil {
						if _, err = c.Ports(); err == nil {
							answers.Add(1)
						}
					}
					c.Close()
				}
			})
		}
		nettest.Eventually(t, wait, "clients are served", func() bool { return answers.Load() > 20 })
		must(t, s.Close())
		done.Store(true)
		wg.Wait()
	}
	before.Check(t)
}
