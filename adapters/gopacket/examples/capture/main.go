// SPDX-License-Identifier: BSD-3-Clause

// Command capture writes what the kernel sends on an interface, which it makes, to a file that Wireshark reads (pcapng):
//
//	capture -name cap0 -w cap0.pcapng
//	capture -name cap0 -mode tun -count 10 -print
//
// To see the traffic of another interface, have the kernel mirror it to this one (tc-mirred(8)). It ends with Ctrl-C
// or SIGTERM, after -count packets, or when the interface is deleted.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/rtap-project/rtap"
	rtapsource "github.com/rtap-project/rtap/adapters/gopacket"
)

func main() {
	name := flag.String("name", "cap0", "`NAME` of the interface")
	mode := flag.String("mode", "tap", "tap, or tun: without Ethernet headers")
	path := flag.String("w", "", "`FILE` to write, in pcapng; - is standard output")
	count := flag.Int("count", 0, "`PACKETS` to capture; 0: until Ctrl-C")
	show := flag.Bool("print", false, "print each packet")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := capture(ctx, rtap.Config{Name: *name, Mode: rtap.Mode(*mode)}, *path, *count, *show); err != nil {
		log.Fatal(err)
	}
}

// capture opens the interface and the file, and closes both.
func capture(ctx context.Context, cfg rtap.Config, path string, count int, show bool) (err error) {
	file, text := io.Writer(io.Discard), io.Discard
	switch path {
	case "":
	case "-":
		file = os.Stdout
	default:
		f, e := os.Create(path)
		if e != nil {
			return e
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		file = f
	}
	if show {
		text = os.Stderr
	}
	dev, err := rtap.Start(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	n, err := run(ctx, dev, file, text, count)
	fmt.Fprintln(os.Stderr, n, "packets captured")
	return err
}

// run writes packets until ctx is done, count have come, or the interface is gone, and returns how many it were.
func run(ctx context.Context, dev *rtap.Device, file, text io.Writer, count int) (n int, err error) {
	src, err := rtapsource.New(ctx, dev, 0)
	if err != nil {
		return 0, err
	}
	defer src.Close()
	buf := bufio.NewWriter(file)
	w, err := pcapgo.NewNgWriterInterface(buf, pcapgo.NgInterface{
		Name: dev.Name(), LinkType: src.LinkType(), OS: runtime.GOOS, TimestampResolution: 9,
	}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		return 0, err
	}
	for count == 0 || n < count {
		data, ci, err := src.ZeroCopyReadPacketData()
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
		if text != io.Discard {
			fmt.Fprintln(text, gopacket.NewPacket(data, src.LinkType(), gopacket.NoCopy))
		}
		ci.InterfaceIndex = 0 // of the file, which has one
		if err := w.WritePacket(ci, data); err != nil {
			return n, err
		}
		n++
	}
	return n, errors.Join(src.Err(), w.Flush(), buf.Flush())
}
