// SPDX-License-Identifier: BSD-3-Clause

package wireguard

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap"
)

const (
	// batch is how many packets wireguard-go reads or writes at once.
	batch = conn.IdealBatchSize
	// Memory for packets to be written: several batches of wireguard-go's, of which one is written at a time. A packet
	// of more than writeRoom bytes takes several mbufs, at most maxPieces.
	writeRoom = 2048
	maxPieces = (1<<16 + writeRoom - 1) / writeRoom
	writeBufs = 2*batch + maxPieces
)

// wanted are the offloads that are taken if the kernel has them.
const (
	wantedRx = rtap.RxOffloadTCPCksum | rtap.RxOffloadUDPCksum | rtap.RxOffloadTCPLRO | rtap.RxOffloadUDPLRO |
		rtap.RxOffloadTunnelLRO
	wantedTx = rtap.TxOffloadTCPCksum | rtap.TxOffloadUDPCksum | rtap.TxOffloadTCPTSO | rtap.TxOffloadUDPTSO
)

// Device is a tun.Device over a port of rtap's, in TUN mode. Its methods may be called by any goroutine.
type Device struct {
	port    *rtap.Device
	reader  reader
	writer  writer
	events  events
	file    *os.File
	closing atomic.Bool
	once    sync.Once
	err     error // of Close
}

var _ tun.Device = (*Device)(nil)

// CreateTUN creates a TUN interface of that name ("%d" in it is replaced by the kernel, and "" stands for "tun%d"), down,
// with that MTU in bytes. It stands in for tun.CreateTUN.
func CreateTUN(name string, mtu int) (tun.Device, error) {
	d, err := New(rtap.Config{Name: cmp.Or(name, "tun%d"), MTU: mtu})
	if err != nil {
		return nil, err // not a nil *Device
	}
	return d, nil
}

var errOnlyQueue = errors.New("wireguard-go polls the only queue")

// New opens the port that cfg describes, for a program that wants more than a name and an MTU: another network
// namespace, the choice of engine, a file prefix for others to watch it. Mode is ModeTUN, and Queues 1, whatever
// cfg says: wireguard-go reads from one goroutine. Offloads, rings and memory are the device's own choice.
//
// The interface is down, as tun.CreateTUN leaves it: wireguard-go's device.Device goes up with it.
func New(cfg rtap.Config) (*Device, error) {
	cfg.Mode, cfg.Queues, cfg.NoLinkUp = rtap.ModeTUN, 1, true
	cfg.MayLease = func(rtap.Process, []int) error { return errOnlyQueue }
	port, err := rtap.Open(cfg)
	if err != nil {
		return nil, err
	}
	d := &Device{port: port}
	d.events.init()
	if err := d.start(); err != nil {
		return nil, errors.Join(err, d.end(port.Discard))
	}
	return d, nil
}

func (d *Device) start() error {
	info := d.port.Info()
	err := d.port.Configure(rtap.PortConfig{RxQueues: 1, TxQueues: 1, RxOffloads: wantedRx & info.RxOffloads, TxOffloads: wantedTx & info.TxOffloads})
	if err != nil {
		return err
	}
	if err := d.reader.open(d.port); err != nil {
		return err
	}
	if err := d.writer.open(d.port, info.TxOffloads); err != nil {
		return err
	}
	if err := d.port.Start(); err != nil {
		return err
	}
	fd, err := d.port.DupFD()
	if err != nil {
		return err
	}
	d.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	return d.events.open(d.port)
}

// Port is what the device is made of, for statistics, telemetry and events. It is the device's to stop and close.
func (d *Device) Port() *rtap.Device { return d.port }

// File is a descriptor of the interface, the device's to close, for ioctl(2) such as TUNGETIFF. It is detached from traffic:
// whoever could read from the queue's would take packets away from Read. A process that it is handed on to holds the
// interface with it, but cannot make a device of it: tun.CreateTUNFromFile would be without a queue, and does not know
// headers as long as the kernel's are here since Linux 6.17, 24 bytes. To hand an interface on, open it with
// rtap.Config.Persist: when this device is closed, or its process has ended, and every File and its duplicates are
// closed, another process calls New with the interface's name.
func (d *Device) File() *os.File { return d.file }

// MTU is the interface's, in bytes.
func (d *Device) MTU() (int, error) {
	link, err := d.port.Link()
	return link.MTU, err
}

// Name is the interface's present name.
func (d *Device) Name() (string, error) {
	link, err := d.port.Link()
	return link.Name, err
}

// BatchSize is how many packets Read and Write move at once: 128, conn.IdealBatchSize.
func (d *Device) BatchSize() int { return batch }

// Close removes the interface, unless it is persistent. A Read that waits returns os.ErrClosed, and the channel
// of Events is closed. Closing again does nothing and returns the same.
func (d *Device) Close() error { return d.end(d.port.Close) }

// end ends what goes on, and then the port by shut.
func (d *Device) end(shut func() error) error {
	d.once.Do(func() {
		d.closing.Store(true)
		d.events.close()
		if d.file != nil {
			d.file.Close() // else it would hold the interface
		}
		err := d.port.Stop() // Read and Write return from now on
		d.reader.drop()
		d.err = errors.Join(err, shut(), d.reader.close(), d.writer.close())
	})
	return d.err
}

// ended is what Read returns when waiting has failed: wireguard-go ends with any error, and logs those that are not
// os.ErrClosed.
func (d *Device) ended(err error) error {
	if d.down() {
		return closed(d.port)
	}
	return fmt.Errorf("wireguard: read: %w", err)
}

// closed is what Read and Write return when the port gives nothing more.
func closed(port *rtap.Device) error {
	if err := port.Err(); errors.Is(err, rtap.ErrGone) {
		return fmt.Errorf("%w: %w", os.ErrClosed, err)
	}
	return os.ErrClosed
}
