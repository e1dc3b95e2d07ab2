// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"os"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap/adapters/wireguard"
)

// What docs/migration.md shows of programs that use other modules. It compiles; nothing calls it.
var _, _, _, _ = withWater, withFile, withTUN, withRtap

func handle([]byte) []byte { return nil }

func withWater() error {
	ifce, err := water.New(water.Config{
		DeviceType:             water.TUN,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: "tun0"},
	})
	if err != nil {
		return err
	}
	defer ifce.Close()
	buf := make([]byte, 2048)
	for {
		n, err := ifce.Read(buf)
		if err != nil {
			return err
		}
		if _, err := ifce.Write(handle(buf[:n])); err != nil {
			return err
		}
	}
}

func withFile() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq("tun0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "tun0")
	defer file.Close()
	buf := make([]byte, 2048)
	for {
		n, err := file.Read(buf)
		if err != nil {
			return err
		}
		if _, err := file.Write(handle(buf[:n])); err != nil {
			return err
		}
	}
}

func withTUN() (tun.Device, error) {
	dev, err := tun.CreateTUN("wg0", device.DefaultMTU)
	return dev, err
}

func withRtap() (tun.Device, error) {
	dev, err := wireguard.CreateTUN("wg0", device.DefaultMTU)
	return dev, err
}
