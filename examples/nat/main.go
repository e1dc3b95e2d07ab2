// SPDX-License-Identifier: BSD-3-Clause

// Command nat is a router that lets many hosts share an IPv4 address: it makes two TUN interfaces, and gives what goes from
// inside to outside that address and a port of its own (TCP, UDP, ping).
//
//	nat inside0 outside0 203.0.113.9
//
// Route what is to be translated to inside0, and the address to outside0. It ends with Ctrl-C, or when one is deleted.
package main

import (
	"context"
	"errors"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"sync"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/packetio"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) != 4 {
		log.Fatal("usage: nat INSIDE OUTSIDE ADDRESS")
	}
	addr, err := netip.ParseAddr(os.Args[3])
	if err != nil || !addr.Is4() {
		log.Fatalf("%q is no IPv4 address", os.Args[3])
	}
	var ports [2]*packetio.Conn
	for i := range ports {
		if ports[i], err = packetio.Open(rtap.Config{Name: os.Args[1+i], Mode: rtap.ModeTUN}); err != nil {
			log.Fatal(err)
		}
		defer ports[i].Close()
	}
	if err := run(ctx, ports[0], ports[1], addr.As4()); err != nil {
		log.Fatal(err)
	}
}

// run translates until ctx is done, or an interface fails, and closes both.
func run(ctx context.Context, inside, outside *packetio.Conn, addr [4]byte) error {
	t := newTable(addr)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var errs [3]error
	var wg sync.WaitGroup
	wg.Go(func() { defer cancel(); errs[0] = relay(inside, outside, t.out) })
	wg.Go(func() { defer cancel(); errs[1] = relay(outside, inside, t.in) })
	<-ctx.Done()
	errs[2] = errors.Join(inside.Close(), outside.Close()) // which ends all reading
	wg.Wait()
	return errors.Join(errs[:]...)
}

// relay passes on what translate makes of the packets that come in, where it says true.
func relay(from, to *packetio.Conn, translate func(packet []byte) bool) error {
	bufs := packetio.Buffers(rtap.DefaultBurst, rtap.MaxTunMTU)
	out := make([][]byte, 0, len(bufs))
	for {
		n, err := from.ReadPackets(bufs)
		for _, p := range bufs[:n] {
			if translate(p) {
				out = append(out, p)
			}
		}
		if err == nil {
			_, err = to.WritePackets(out)
		}
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		out = out[:0]
	}
}
