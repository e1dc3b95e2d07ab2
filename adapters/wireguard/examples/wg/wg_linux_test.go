// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/traffic"
)

// asCommand makes the test binary be the command.
const asCommand = "RTAP_WG_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		os.Exit(0)
	}
	nettest.Main(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start runs one end in ns until the end of the test.
func start(t *testing.T, ns *netns.NS, config string, args ...string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append(args, "wg0")...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	cmd.Stdin, cmd.Stderr = strings.NewReader(config), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, ns.Do(cmd.Start))
	t.Cleanup(func() {
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	must(t, out.(*os.File).SetReadDeadline(time.Now().Add(nettest.Bound(20*time.Second))))
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal("it does not get ready: ", err)
	}
}

// TestTunnel: between two namespaces, over rtap at both ends and at one.
func TestTunnel(t *testing.T) {
	for name, ends := range map[string][2][]string{"rtap": {}, "other end is wireguard-go's own": {1: {"-own"}}} {
		t.Run(name, func(t *testing.T) {
			nettest.NeedTun(t)
			ns := [2]*netns.NS{nettest.NS(t), nettest.NS(t)}
			a, b, err := traffic.AddVeth(ns[0], "outer", ns[1], "outer")
			must(t, err)
			var keys [2]*ecdh.PrivateKey
			for i := range keys {
				keys[i], err = ecdh.X25519().GenerateKey(rand.Reader)
				must(t, err)
			}
			for i, outer := range [2]int{a, b} {
				c := nettest.Conn(t, ns[i])
				must(t, c.AddAddr(outer, netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", i+1))))
				start(t, ns[i], fmt.Sprintf("private_key=%x\nlisten_port=51820\npublic_key=%x\nendpoint=192.0.2.%d:51820\nallowed_ip=10.7.0.%d/32\n",
					keys[i].Bytes(), keys[1-i].PublicKey().Bytes(), 2-i, 2-i), ends[i]...)
				link, err := c.LinkByName("wg0")
				must(t, err)
				must(t, c.AddAddr(link.Index, netip.MustParsePrefix(fmt.Sprintf("10.7.0.%d/24", i+1))))
				must(t, c.SetUp(link.Index))
			}
			ctx, cancel := context.WithTimeout(t.Context(), nettest.Bound(30*time.Second))
			defer cancel()
			dst := netip.MustParseAddr("10.7.0.2")
			nettest.Eventually(t, 20*time.Second, "an answer to a ping", func() bool {
				r, err := traffic.Ping(ctx, traffic.PingConfig{NS: ns[0], Dst: dst, Timeout: 200 * time.Millisecond})
				return err == nil && r.Lost() == 0
			})
			_, err = traffic.TCP(ctx, traffic.TCPConfig{Client: ns[0], Server: ns[1], Addr: netip.AddrPortFrom(dst, 0), Bytes: 5 << 20, Hash: true})
			must(t, err)
		})
	}
}
