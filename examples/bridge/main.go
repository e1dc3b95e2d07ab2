// SPDX-License-Identifier: BSD-3-Clause

// Command bridge is a learning Ethernet switch between TAP interfaces that it makes:
//
//	bridge tap0 tap1 tap2
//
// Move them to network namespaces, or give them to virtual machines. It ends with Ctrl-C, or when one is deleted.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/packetio"
)

const (
	maxAge   = 5 * time.Minute // for how long an address is known (IEEE 802.1Q, ageing time)
	maxKnown = 8192            // addresses
	maxFrame = 9000 + 22       // bytes, with Ethernet header and tags
)

// bridge is the ports, and behind which of them addresses were seen.
type bridge struct {
	ports []*packetio.Conn
	mu    sync.RWMutex
	known map[mac]place
}

type mac [6]byte

type place struct {
	port int
	seen time.Time
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var ports []*packetio.Conn
	for _, name := range os.Args[1:] {
		p, err := packetio.Open(rtap.Config{Name: name})
		if err != nil {
			log.Fatal(err)
		}
		defer p.Close()
		ports = append(ports, p)
	}
	if err := run(ctx, ports); err != nil {
		log.Fatal(err)
	}
}

// run forwards until ctx is done, or a port fails, and closes the ports.
func run(ctx context.Context, ports []*packetio.Conn) error {
	b := &bridge{ports: ports, known: map[mac]place{}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(ports)+1)
	var wg sync.WaitGroup
	for i := range ports {
		wg.Go(func() {
			defer cancel()
			errs[i] = b.serve(i)
		})
	}
	<-ctx.Done()
	for _, p := range ports { // which ends all reading
		errs[len(ports)] = errors.Join(errs[len(ports)], p.Close())
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serve forwards what comes in by a port.
func (b *bridge) serve(in int) error {
	bufs := packetio.Buffers(rtap.DefaultBurst, maxFrame)
	out := make([][][]byte, len(b.ports)) // frames for each port, which lie in bufs
	for {
		n, err := b.ports[in].ReadPackets(bufs)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if errors.Is(err, io.ErrShortBuffer) {
			continue // somebody has raised the MTU, and sends frames that are too long
		}
		if err != nil {
			return err
		}
		now := time.Now()
		for _, frame := range bufs[:n] {
			b.forward(in, frame, out, now)
		}
		for i, frames := range out {
			if _, err := b.ports[i].WritePackets(frames); err != nil && !errors.Is(err, os.ErrClosed) {
				return err
			}
			out[i] = frames[:0]
		}
	}
}

// forward learns where a frame comes from, and adds it to what goes out of the ports that it is for.
func (b *bridge) forward(in int, frame []byte, out [][][]byte, now time.Time) {
	if len(frame) < 14 {
		return
	}
	to, from := mac(frame[:6]), mac(frame[6:12])
	b.learn(from, in, now)
	if at, ok := b.find(to, now); ok {
		if at != in {
			out[at] = append(out[at], frame)
		}
		return
	}
	for i := range out {
		if i != in {
			out[i] = append(out[i], frame)
		}
	}
}

// find is false for group addresses, which are never learnt, and for those not seen of late.
func (b *bridge) find(a mac, now time.Time) (port int, ok bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	p, ok := b.known[a]
	return p.port, ok && now.Sub(p.seen) < maxAge
}

func (b *bridge) learn(a mac, port int, now time.Time) {
	b.mu.RLock()
	p, ok := b.known[a]
	b.mu.RUnlock()
	fresh := ok && p.port == port && now.Sub(p.seen) < time.Second
	if a[0]&1 != 0 || fresh {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !ok && len(b.known) >= maxKnown { // somebody makes addresses up: begin anew
		clear(b.known)
	}
	b.known[a] = place{port, now}
}
