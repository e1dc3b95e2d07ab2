// SPDX-License-Identifier: BSD-3-Clause

package netstack

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/adapters/netstack/internal/rig"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

func TestPing(t *testing.T) {
	eachMode(t, func(t *testing.T, mode rtap.Mode) {
		p := newPair(t, Config{Port: rtap.Config{Mode: mode}})
		for _, v := range []int{4, 6} {
			for _, size := range []int{-1, 56, 1400, 4000, 60000} {
				res, err := traffic.Ping(p.context(wait), traffic.PingConfig{NS: p.ns, Dst: rig.Stack[v], Count: 3, SizeBytes: size,
					Timeout: nettest.Bound(wait)})
				must(t, err)
				if res.Lost() > 0 {
					t.Errorf("IPv%d, %d bytes: %d of %d lost", v, size, res.Lost(), res.Sent)
				}
			}
		}
	})
}

// stream is a reader of left bytes that never repeat, and the hash of what was read.
type stream struct {
	left int64
	src  *rand.ChaCha8
	hash hash.Hash
}

func newStream(n int64) *stream { return &stream{n, rand.NewChaCha8([32]byte{1}), sha256.New()} }

func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), s.left)]
	s.src.Read(b)
	s.hash.Write(b)
	s.left -= int64(len(b))
	return len(b), nil
}

// transfer sends n bytes over a and receives them from b, and compares.
func transfer(a, b net.Conn, n int64) error {
	s := newStream(n)
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{a}, s, make([]byte, 256<<10))
		a.(interface{ CloseWrite() error }).CloseWrite()
		sent <- err
	}()
	h := sha256.New()
	got, err := io.CopyBuffer(h, struct{ io.Reader }{b}, make([]byte, 256<<10))
	switch serr := <-sent; {
	case serr != nil:
		return fmt.Errorf("sending: %w", serr)
	case err != nil:
		return fmt.Errorf("receiving: %w", err)
	case got != n:
		return fmt.Errorf("%d of %d bytes arrived", got, n)
	case !bytes.Equal(h.Sum(nil), s.hash.Sum(nil)):
		return fmt.Errorf("%d bytes arrived, but not those that were sent", n)
	}
	return nil
}

// connect makes a connection from the kernel to the stack and returns its two ends.
func (p *pair) connect(version int) (kernel, inside net.Conn) {
	p.t.Helper()
	l, err := rig.Listen(p.s, version, 0)
	must(p.t, err)
	defer l.Close()
	ctx := p.context(wait)
	kernel, err = rig.DialKernel(ctx, p.ns, version, uint16(l.Addr().(*net.TCPAddr).Port))
	must(p.t, err)
	p.t.Cleanup(func() { kernel.Close() })
	inside, err = l.Accept()
	must(p.t, err)
	p.t.Cleanup(func() { inside.Close() })
	until := time.Now().Add(nettest.Bound(4 * time.Minute))
	must(p.t, kernel.SetDeadline(until))
	must(p.t, inside.SetDeadline(until))
	return kernel, inside
}

// A gigabyte in each direction, with both IP versions, on both kinds of interface: 1 GB with IPv4 on a TAP, and less of the rest.
func TestTransfer(t *testing.T) {
	eachMode(t, func(t *testing.T, mode rtap.Mode) {
		for _, v := range []int{4, 6} {
			t.Run(fmt.Sprintf("IPv%d", v), func(t *testing.T) {
				n := int64(nettest.Scale(1<<30)) / slow
				if mode != rtap.ModeTAP {
					n /= 8
				}
				p := newPair(t, Config{Port: rtap.Config{Mode: mode}})
				kernel, inside := p.connect(v)
				for _, d := range []struct {
					name string
					a, b net.Conn
				}{{"into the stack", kernel, inside}, {"out of the stack", inside, kernel}} {
					start := time.Now()
					if err := transfer(d.a, d.b, n); err != nil {
						t.Fatalf("%s: %v; %+v", d.name, err, p.ep.Stats())
					}
					t.Logf("%s: %d MB, %.2f Gb/s", d.name, n>>20, float64(n)*8/time.Since(start).Seconds()/1e9)
				}
				p.wantLargeFrames()
			})
		}
	})
}

// wantLargeFrames checks that the frames of a transfer were not cut, in either direction.
func (p *pair) wantLargeFrames() {
	p.t.Helper()
	st, err := p.ep.Device().Stats()
	must(p.t, err)
	if in, out := st.IBytes/max(1, st.IPackets), st.OBytes/max(1, st.OPackets); in < 2000 || out < 2000 {
		p.t.Errorf("frames of %d bytes in and %d bytes out on average: %+v", in, out, st)
	}
	// A large frame that does not say so is one segment, which the kernel takes, but no router would.
	if in, out := p.count("_lro_packets"), p.count("_tso_packets"); in*66000 < st.IBytes/2 || out*66000 < st.OBytes/2 {
		p.t.Errorf("%d frames in and %d frames out were marked as several packets, of %+v", in, out, st)
	}
	if s := p.ep.Stats(); s.RxChecksum|s.RxMalformed|s.TxMalformed|s.TxNoBuffer != 0 || st.IErrors|st.OErrors != 0 {
		p.t.Errorf("dropped: %+v, %+v", s, st)
	}
}

// count adds up a statistic of the port over its queues.
func (p *pair) count(suffix string) (n uint64) {
	p.t.Helper()
	xs, err := p.ep.Device().XStats()
	must(p.t, err)
	for _, x := range xs {
		if strings.HasSuffix(x.Name, suffix) {
			n += x.Value
		}
	}
	return n
}
