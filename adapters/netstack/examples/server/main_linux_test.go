// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/adapters/netstack/internal/rig"
	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// The example, reached by clients of the kernel's: net/http's, curl where there is one, and plain TCP.
func TestServe(t *testing.T) {
	for _, v := range []int{4, 6} {
		for _, mode := range []rtap.Mode{rtap.ModeTAP, rtap.ModeTUN} {
			t.Run(string(mode)+map[int]string{4: ", IPv4", 6: ", IPv6"}[v], func(t *testing.T) { try(t, mode, v) })
		}
	}
}

func try(t *testing.T, mode rtap.Mode, version int) {
	nettest.NeedTun(t)
	ns := nettest.NS(t)
	ctx, cancel := context.WithTimeout(context.Background(), nettest.Bound(time.Minute))
	defer cancel()
	serving, stop := context.WithCancel(ctx)
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- ns.Do(func() error { // the interface is made in the namespace of the calling thread
			addr := netip.PrefixFrom(rig.Stack[version], rig.Kernel[version].Bits())
			return serve(serving, rtap.Config{Mode: mode}, addr, func(name string) { ready <- name })
		})
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	var name string
	select {
	case name = <-ready:
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	if err := rig.RaiseKernel(ns, name, true); err != nil {
		t.Fatal(err)
	}
	web(ctx, t, ns, version)
	curl(ctx, t, ns, version)
	for port, use := range map[uint16]func(net.Conn) (int64, error){
		9:  func(c net.Conn) (int64, error) { return io.CopyN(c, zeros{}, 10<<20) },
		19: func(c net.Conn) (int64, error) { return io.CopyN(io.Discard, c, 10<<20) },
	} {
		c, err := rig.DialKernel(ctx, ns, version, port)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := use(c); err != nil {
			t.Errorf("port %d: %v after %d bytes", port, err, n)
		}
		c.Close()
	}
}

// greeting is what the server says, behind the client's address.
const greeting = ", from gVisor's stack over rtap\n"

func web(ctx context.Context, t *testing.T, ns *netns.NS, version int) {
	t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return rig.DialKernel(ctx, ns, version, 80)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://stack/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(b), greeting) {
		t.Errorf("net/http: %q, %v", b, err)
	}
}

func curl(ctx context.Context, t *testing.T, ns *netns.NS, version int) {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Logf("no curl: %v", err)
		return
	}
	cmd := exec.CommandContext(ctx, path, "-sS", "-m", "30", "-g", "http://"+netip.AddrPortFrom(rig.Stack[version], 80).String()+"/")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.HasSuffix(out.String(), greeting) {
		t.Errorf("curl: %q, %v", out.String(), err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
