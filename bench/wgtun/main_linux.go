// SPDX-License-Identifier: BSD-3-Clause

// Command wgtun forwards between two TUN interfaces with wireguard-go's package
// tun, as wireguard-go itself would if it did not encrypt: Read splits what the
// kernel hands over into packets of the MTU, Write puts packets of a flow together
// again. It is what package gso and mode mtu are measured against.
//
//	wgtun [-mtu BYTES] IF_A IF_B
//
// It makes both interfaces in the namespace it is started in, leaves them down, prints
// "ready", and ends with SIGINT or SIGTERM; the interfaces go with it. They may be moved to
// other namespaces meanwhile. Linux only; it needs CAP_NET_ADMIN.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// offset is what wireguard-go leaves free before each packet, for its own header
// and the virtio-net header.
const offset = device.MessageTransportHeaderSize

// ready is printed when both interfaces are there.
const ready = "ready"

func main() {
	mtu := flag.Int("mtu", 1500, "`bytes` of the interfaces' MTU")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: wgtun [-mtu BYTES] IF_A IF_B")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *mtu, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "wgtun:", err)
		os.Exit(1)
	}
}

// run forwards both ways until ctx is done or an interface is gone.
func run(ctx context.Context, mtu int, nameA, nameB string) error {
	a, err := open(nameA, mtu)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := open(nameB, mtu)
	if err != nil {
		return err
	}
	defer b.Close()
	fmt.Println(ready) // from now on they may be moved
	ended := make(chan error, 2)
	go func() { ended <- forward(a, b) }()
	go func() { ended <- forward(b, a) }()
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

func open(name string, mtu int) (tun.Device, error) {
	d, err := tun.CreateTUN(name, mtu)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	go func() {
		for range d.Events() { // whoever makes a device must take its events
		}
	}()
	return d, nil
}

// forward reads batches from one device and writes them to the other. What cannot
// be written, because the interface is down for example, is dropped.
func forward(from, to tun.Device) error {
	bufs, sizes := make([][]byte, from.BatchSize()), make([]int, from.BatchSize())
	for i := range bufs {
		// As large as wireguard-go's: Write appends to the first packet of a flow.
		bufs[i] = make([]byte, device.MaxMessageSize)
	}
	batch := make([][]byte, 0, len(bufs))
	for {
		n, err := from.Read(bufs, sizes, offset)
		if err != nil && !errors.Is(err, tun.ErrTooManySegments) {
			return err
		}
		batch = batch[:0]
		for i := range n {
			batch = append(batch, bufs[i][:offset+sizes[i]])
		}
		if _, err := to.Write(batch, offset); errors.Is(err, os.ErrClosed) {
			return err
		}
	}
}
