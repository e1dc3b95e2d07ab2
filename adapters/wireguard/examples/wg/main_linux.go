// SPDX-License-Identifier: BSD-3-Clause

// Command wg is one end of a WireGuard tunnel: wireguard-go over an rtap port, in the namespace it is started in.
//
//	wg [-own] NAME < CONFIG
//
// CONFIG is in wireguard-go's own words (https://www.wireguard.com/xplatform/): lines such as private_key=, listen_port=,
// public_key=, endpoint=, allowed_ip=, keys in hexadecimal. The interface NAME is made, down; the tunnel is up while it
// is. -own takes wireguard-go's TUN device instead: one line makes the difference. It ends with SIGINT or SIGTERM, or when
// the interface is deleted. Linux only; it needs CAP_NET_ADMIN.
//
// A tunnel between two namespaces on one machine, with keys from "wg genkey | tee a.key | base64 -d | xxd -p -c32" and
// the like:
//
//	ip netns add a; ip netns add b
//	ip -n a link add outer type veth peer outer netns b
//	ip -n a addr add 192.0.2.1/24 dev outer; ip -n a link set outer up
//	ip -n b addr add 192.0.2.2/24 dev outer; ip -n b link set outer up
//	ip netns exec a wg wg0 < a.conf & ip netns exec b wg wg0 < b.conf & sleep 1
//	ip -n a addr add 10.7.0.1/24 dev wg0; ip -n a link set wg0 up
//	ip -n b addr add 10.7.0.2/24 dev wg0; ip -n b link set wg0 up
//	ip netns exec a ping 10.7.0.2
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap/adapters/wireguard"
)

func main() {
	own := flag.Bool("own", false, "take wireguard-go's own TUN device")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: wg [-own] NAME < CONFIG")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	create := wireguard.CreateTUN
	if *own {
		create = tun.CreateTUN
	}
	if err := run(ctx, create, flag.Arg(0), os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "wg:", err)
		os.Exit(1)
	}
}

// run is one end of a tunnel until ctx is done.
func run(ctx context.Context, create func(name string, mtu int) (tun.Device, error), name string, config io.Reader) error {
	t, err := create(name, device.DefaultMTU)
	if err != nil {
		return err
	}
	wg := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelError, name+": "))
	defer wg.Close() // and t with it
	if err := wg.IpcSetOperation(config); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	fmt.Println("ready")
	select {
	case <-ctx.Done():
	case <-wg.Wait():
	}
	return nil
}
