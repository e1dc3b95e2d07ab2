// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

func TestMain(m *testing.M) {
	if os.Getenv("CAPTURE") != "" { // TestSignals: this is the program
		main()
		return
	}
	nettest.Main(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func port(t *testing.T, mode rtap.Mode) (*netns.NS, *rtap.Device) {
	t.Helper()
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	dev, err := rtap.Start(rtap.Config{Mode: mode, NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD())})
	must(t, err)
	t.Cleanup(func() { must(t, dev.Close()) })
	return ns, dev
}

// TestCapture: the file has the packets that the kernel sent, with the interface's name and link type.
func TestCapture(t *testing.T) {
	for mode, link := range map[rtap.Mode]layers.LinkType{rtap.ModeTAP: layers.LinkTypeEthernet, rtap.ModeTUN: layers.LinkTypeRaw} {
		t.Run(string(mode), func(t *testing.T) {
			ns, dev := port(t, mode)
			index := dev.Info().IfIndex
			must(t, nettest.Conn(t, ns).AddAddr(index, netip.MustParsePrefix("192.0.2.1/24")))
			must(t, nettest.Conn(t, ns).AddNeigh(index, netip.MustParseAddr("192.0.2.2"), []byte{2, 0, 0, 0, 0, 9}))
			var file, text bytes.Buffer
			begin := time.Now()
			type result struct {
				n   int
				err error
			}
			done := make(chan result, 1)
			go func() {
				n, err := run(t.Context(), dev, &file, &text, 3)
				done <- result{n, err}
			}()
			_, err := traffic.Ping(t.Context(), traffic.PingConfig{NS: ns, Dst: netip.MustParseAddr("192.0.2.2"), Count: 3, Timeout: time.Millisecond})
			must(t, err)
			if r := <-done; r.n != 3 || r.err != nil {
				t.Fatalf("%d packets, %v", r.n, r.err)
			}
			r, err := pcapgo.NewNgReader(&file, pcapgo.DefaultNgReaderOptions)
			must(t, err)
			if i, err := r.Interface(0); err != nil || i.Name != dev.Name() || i.LinkType != link {
				t.Errorf("interface %+v, %v", i, err)
			}
			for range 3 {
				data, ci, err := r.ReadPacketData()
				must(t, err)
				p := gopacket.NewPacket(data, link, gopacket.Default)
				if p.Layer(layers.LayerTypeICMPv4) == nil || ci.Timestamp.Before(begin.Truncate(time.Microsecond)) || ci.Timestamp.After(time.Now()) {
					t.Errorf("at %v: %v", ci.Timestamp, p)
				}
			}
			if _, _, err := r.ReadPacketData(); err != io.EOF {
				t.Errorf("behind the last packet: %v", err)
			}
			if n := strings.Count(text.String(), "ICMPv4"); n < 3 {
				t.Errorf("%d pings were printed:\n%s", n, &text)
			}
		})
	}
}

// TestEnds: by the context without an error, by deletion with one.
func TestEnds(t *testing.T) {
	_, dev := port(t, rtap.ModeTAP)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := run(ctx, dev, io.Discard, io.Discard, 0); n != 0 || err != nil {
		t.Errorf("%d packets, %v", n, err)
	}
	ns, dev := port(t, rtap.ModeTAP)
	must(t, nettest.Conn(t, ns).Delete(dev.Info().IfIndex))
	if _, err := run(t.Context(), dev, io.Discard, io.Discard, 0); !errors.Is(err, rtap.ErrGone) {
		t.Errorf("error %v, want %v", err, rtap.ErrGone)
	}
}

// TestFile: the file is whole when the program ends, and what cannot be opened is an error.
func TestFile(t *testing.T) {
	nettest.NeedTun(t)
	ns := nettest.QuietNS(t)
	cfg := rtap.Config{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.FD())}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	path := filepath.Join(t.TempDir(), "a.pcapng")
	must(t, capture(ctx, cfg, path, 0, false))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	_, err = pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	must(t, err)
	if err := capture(ctx, cfg, filepath.Join(path, "no"), 0, false); err == nil {
		t.Error("a file in a file was written")
	}
}

// TestSignals: Ctrl-C, and what timeout(1) and systemd send, leave a file with all packets, and no interface.
func TestSignals(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			nettest.NeedTun(t)
			ns := nettest.QuietNS(t)
			link := nettest.Conn(t, ns)
			path := filepath.Join(t.TempDir(), "a.pcapng")
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-name", "cap0", "-print", "-w", path)
			cmd.Env = append(os.Environ(), "CAPTURE=1")
			errs, err := cmd.StderrPipe()
			must(t, err)
			must(t, ns.Do(cmd.Start))
			defer func() { _ = cmd.Process.Kill() }() // nothing, unless the test has failed
			var index int
			nettest.Eventually(t, 10*time.Second, "the interface", func() bool {
				l, err := link.LinkByName("cap0")
				index = l.Index
				return err == nil && l.OperUp
			})
			inj, err := traffic.NewQueuedInjector(ns, index)
			must(t, err)
			must(t, inj.Inject(make([]byte, 60)))
			must(t, inj.Close())
			printed := bufio.NewReader(errs)
			if line, err := printed.ReadString('\n'); err != nil || !strings.Contains(line, "60 bytes") {
				t.Fatalf("printed %q, %v", line, err)
			}
			must(t, cmd.Process.Signal(sig))
			rest, err := io.ReadAll(printed)
			must(t, err)
			if err := cmd.Wait(); err != nil || !strings.HasSuffix(string(rest), "1 packets captured\n") {
				t.Errorf("it ended with %v, and said %q", err, rest)
			}
			nettest.Eventually(t, 10*time.Second, "the interface's end", func() bool {
				_, err := link.LinkByName("cap0")
				return errors.Is(err, syscall.ENODEV)
			})
			f, err := os.Open(path)
			must(t, err)
			defer f.Close()
			r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
			must(t, err)
			if data, _, err := r.ReadPacketData(); err != nil || len(data) != 60 {
				t.Errorf("a packet of %d bytes is in the file, %v", len(data), err)
			}
		})
	}
}
