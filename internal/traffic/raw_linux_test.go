// SPDX-License-Identifier: BSD-3-Clause

package traffic_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
	"github.com/rtap-project/rtap/internal/tuntap"
	"golang.org/x/sys/unix"
)

// within is a context for what a fast machine does in an instant.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(30*time.Second))
	t.Cleanup(cancel)
	return ctx
}

// frame is a broadcast frame of an experimental EtherType, full of something.
func frame(n int) []byte {
	b := bytes.Repeat([]byte{0xff}, 6)
	b = append(b, 2, 0, 0, 0, 0, 1, 0x88, 0xb5)
	for i := len(b); i < n; i++ {
		b = append(b, byte(i*7+i>>8))
	}
	return b
}

func ours(f []byte) bool { return len(f) >= 14 && f[12] == 0x88 && f[13] == 0xb5 }

func single(t testing.TB) *end {
	e := newEnd(t, "192.0.2.1/24", "2001:db8::1/64")
	if err := e.conn.SetMTU(e.index, traffic.FrameMax-14); err != nil {
		t.Fatal(err)
	}
	return e
}

func injector(t testing.TB, e *end) *traffic.Injector {
	t.Helper()
	in, err := traffic.NewInjector(e.ns, e.index)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

func capturer(t testing.TB, e *end) *traffic.Capturer {
	t.Helper()
	c, err := traffic.NewCapturer(e.ns, e.index)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestInjectToCapture(t *testing.T) {
	a, b := wire(t, nil)
	for _, e := range []*end{a, b} {
		if err := e.conn.SetMTU(e.index, traffic.FrameMax-14); err != nil {
			t.Fatal(err)
		}
	}
	in, out := injector(t, a), capturer(t, b)
	for _, n := range []int{14, 15, 60, 1514, 9000, 65534, traffic.FrameMax} {
		want := frame(n)
		if err := in.Inject(want); err != nil {
			t.Fatal(err)
		}
		got, err := out.Next(within(t), ours)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
}

// The kernel takes tags out of frames it receives; the capture has them all the same.
func TestCaptureKeepsVLANTags(t *testing.T) {
	a, b := wire(t, nil)
	in, out := injector(t, a), capturer(t, b)
	for _, tpid := range []uint16{unix.ETH_P_8021Q, unix.ETH_P_8021AD} {
		want := frame(64)
		tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, tpid), 0x2064)
		want = append(want[:12:12], append(tag, want[12:]...)...)
		if err := in.Inject(want); err != nil {
			t.Fatal(err)
		}
		got, err := out.Next(within(t), func(f []byte) bool { return len(f) > 17 && ours(f[4:]) })
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("tag %#x:\n got % x\nwant % x\n%v", tpid, got, want, err)
		}
	}
}

func TestCaptureIgnoresWhatTheKernelSends(t *testing.T) {
	a, b := wire(t, nil)
	here, there := capturer(t, a), capturer(t, b)
	l, err := a.conn.Link(a.index)
	if err != nil {
		t.Fatal(err)
	}
	fromA := func(f []byte) bool { return len(f) >= 14 && bytes.Equal(f[6:12], l.MAC) }
	acquaint(t, a, b.v4)
	if _, err := there.Next(within(t), fromA); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if f, err := here.Next(ctx, fromA); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("captured %d bytes, %v", len(f), err)
	}
}

func TestCaptureEndsWithContextAndClose(t *testing.T) {
	e := single(t)
	c := capturer(t, e)
	never := func([]byte) bool { return false }
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := c.Next(ctx, never); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("context: %v", err)
		}
		cancel()
	}
	// A context that has ended leaves nothing behind for the next call.
	write(t, e, frame(60))
	if _, err := c.Next(within(t), ours); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Next(within(t), never)
		done <- err
	}()
	time.AfterFunc(20*time.Millisecond, func() { c.Close() })
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close twice: %v", err)
	}
}

// write makes the interface receive a frame.
func write(t testing.TB, e *end, f []byte) {
	t.Helper()
	if _, err := unix.Write(e.q.FD(), append(make([]byte, tuntap.VnetHdrSize), f...)); err != nil {
		t.Fatal(err)
	}
}

func TestCaptureSurvivesDownAndUp(t *testing.T) {
	e := single(t)
	down := func() {
		if err := e.conn.SetDown(e.index); err != nil {
			t.Fatal(err)
		}
	}
	up := func() {
		if err := e.conn.SetUp(e.index); err != nil {
			t.Fatal(err)
		}
	}
	down()
	c := capturer(t, e)
	for range 2 {
		up()
		write(t, e, frame(60))
		if _, err := c.Next(within(t), ours); err != nil {
			t.Error(err)
		}
		down()
	}
}

func TestCaptureCountsWhatItDrops(t *testing.T) {
	e := single(t)
	c := capturer(t, e)
	n := 0
	nettest.Eventually(t, 60*time.Second, "the buffer to overflow", func() bool {
		for range 50 {
			write(t, e, frame(traffic.FrameMax))
			n++
		}
		lost, err := c.Dropped()
		return err != nil || lost > 0
	})
	got := uint64(0)
	lost, err := c.Dropped()
	if err != nil {
		t.Fatal(err)
	}
	for ; got < uint64(n)-lost; got++ {
		if _, err := c.Next(within(t), ours); err != nil {
			t.Fatalf("%d written, %d dropped, %d captured, then %v", n, lost, got, err)
		}
	}
}

func TestInjectErrors(t *testing.T) {
	e := single(t)
	in := injector(t, e)
	if err := e.conn.SetMTU(e.index, 1500); err != nil {
		t.Fatal(err)
	}
	// The kernel leaves room for one VLAN tag.
	if err := in.Inject(frame(1519)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("too long: %v", err)
	}
	if err := in.Inject(frame(14)[:13]); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("too short: %v", err)
	}
	if err := e.conn.SetDown(e.index); err != nil {
		t.Fatal(err)
	}
	if err := in.Inject(frame(60)); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("down: %v", err)
	}
	if err := e.conn.SetUp(e.index); err != nil {
		t.Fatal(err)
	}
	if err := in.Inject(frame(60)); err != nil {
		t.Errorf("up again: %v", err)
	}
	if err := e.conn.Delete(e.index); err != nil {
		t.Fatal(err)
	}
	if err := in.Inject(frame(60)); err == nil {
		t.Error("injected into a deleted interface")
	}
	in.Close()
	if err := in.Inject(frame(60)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := in.Flood(t.Context(), traffic.FloodConfig{Frames: [][]byte{frame(60)}, Count: 1}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := traffic.NewInjector(e.ns, e.index); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("no interface: %v", err)
	}
	if _, err := traffic.NewCapturer(e.ns, e.index); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("no interface: %v", err)
	}
}

// read takes what is queued in the TAP for us.
func read(t testing.TB, e *end) (frames [][]byte) {
	t.Helper()
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(e.q.FD(), buf)
		if err == unix.EAGAIN {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		if f := buf[tuntap.VnetHdrSize:n]; ours(f) {
			frames = append(frames, bytes.Clone(f))
		}
	}
}

func TestFloodSendsFramesInTurnAndStamped(t *testing.T) {
	e := single(t)
	for _, batch := range []int{0, 1, 7, 5000} {
		templates := [][]byte{frame(60), frame(1000), frame(61)}
		read(t, e)
		r, err := injector(t, e).Flood(within(t), traffic.FloodConfig{Frames: templates, Count: 200, Stamp: 20, Batch: batch})
		if err != nil || r.Sent != 200 || r.Dropped != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		got := read(t, e)
		if len(got) != 200 {
			t.Fatalf("batch %d: %d frames", batch, len(got))
		}
		for i, f := range got {
			want := bytes.Clone(templates[i%3])
			binary.BigEndian.PutUint32(want[20:], uint32(i))
			if !bytes.Equal(f, want) {
				t.Fatalf("batch %d: frame %d differs", batch, i)
			}
		}
	}
}

// One frame alone, over several batches, takes the short way.
func TestFloodOfOneFrame(t *testing.T) {
	e := single(t)
	read(t, e)
	r, err := injector(t, e).Flood(within(t), traffic.FloodConfig{Frames: [][]byte{frame(60)}, Count: 100, Batch: 8, Stamp: 56})
	got := read(t, e)
	if err != nil || r.Sent != 100 || len(got) != 100 {
		t.Fatalf("%+v, %v, %d frames", r, err, len(got))
	}
	for i, f := range got {
		if len(f) != 60 || binary.BigEndian.Uint32(f[56:]) != uint32(i) || !bytes.Equal(f[:56], frame(60)[:56]) {
			t.Fatalf("frame %d: % x", i, f)
		}
	}
}

func TestFloodPastAFullQueue(t *testing.T) {
	e := single(t)
	if err := e.conn.SetTxQueueLen(e.index, 32); err != nil {
		t.Fatal(err)
	}
	read(t, e)
	dropped := func() uint64 {
		l, err := e.conn.Link(e.index)
		if err != nil {
			t.Fatal(err)
		}
		return l.Stats.TxDropped
	}
	before, n := dropped(), nettest.Scale(10000)
	r, err := injector(t, e).Flood(within(t), traffic.FloodConfig{Frames: [][]byte{frame(60)}, Count: n + 100})
	lost := int(dropped() - before)
	got := len(read(t, e))
	if err != nil || r.Sent+r.Dropped != n+100 || got == 0 || got > 32 || got+lost < n+100 {
		t.Errorf("%v; of %d frames %+v; the kernel dropped %d, %d arrived", err, n+100, r, lost, got)
	}
}

func TestFloodEndsWithItsContext(t *testing.T) {
	e := single(t)
	in := injector(t, e)
	ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(100*time.Millisecond))
	defer cancel()
	cfg := traffic.FloodConfig{Frames: [][]byte{frame(60)}}
	if r, err := in.Flood(ctx, cfg); err != nil || r.Sent == 0 {
		t.Errorf("without a count: %+v, %v", r, err)
	}
	cfg.Count = 1000
	if _, err := in.Flood(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a count: %v", err)
	}
	if _, err := in.Flood(t.Context(), traffic.FloodConfig{}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no frames: %v", err)
	}
	cfg.Stamp = 57
	if _, err := in.Flood(t.Context(), cfg); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no room for the stamp: %v", err)
	}
	cfg.Stamp = 0
	if err := e.conn.SetDown(e.index); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Flood(t.Context(), cfg); !errors.Is(err, syscall.ENETDOWN) {
		t.Errorf("down: %v", err)
	}
}

func TestUnprivileged(t *testing.T) {
	nettest.Unprivileged(t, func(t *testing.T) {
		_, injErr := traffic.NewInjector(nil, 1)
		_, capErr := traffic.NewCapturer(nil, 1)
		_, pingErr := traffic.Ping(t.Context(), traffic.PingConfig{Dst: loopback4})
		for what, err := range map[string]error{"inject": injErr, "capture": capErr, "ping": pingErr} {
			if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// BenchmarkFlood is how fast frames can be had, into a TAP whose queue is full.
func BenchmarkFlood(b *testing.B) {
	e := single(b)
	in := injector(b, e)
	b.ResetTimer()
	if _, err := in.Flood(b.Context(), traffic.FloodConfig{Frames: [][]byte{frame(60)}, Count: b.N}); err != nil {
		b.Fatal(err)
	}
}
