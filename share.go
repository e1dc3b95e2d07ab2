// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/internal/shm"
	"github.com/rtap-project/rtap/internal/tuntap"
	"github.com/rtap-project/rtap/mbuf"
)

// Queues that several processes may poll, as DPDK has it: no process has a queue to itself, the program sees to it that
// one thread at a time polls it. Leases are for programs that want that done for them. Processes and memory
// are the program's, too: how descriptors get to the other process, what mbufs its queues receive into, and when it
// gives them up.

// Shared is what another process must know of a started port to poll its queues: see [Device.Share]. It may travel as
// JSON.
type Shared struct {
	Name    string     `json:"name"`  // of the interface, for messages
	Index   int        `json:"index"` // likewise
	Port    uint16     `json:"port"`  // Config.Port
	Mode    Mode       `json:"mode"`  // Config.Mode
	Conf    PortConfig `json:"conf"`
	MTU     int        `json:"mtu"`     // bytes, that the slots must take
	RxRings []int      `json:"rx_ring"` // of each queue
	TxRings []int      `json:"tx_ring"`
}

// SharedConfig says what is another process's own.
type SharedConfig struct {
	// Memory of Rx queue i, which may not be nil.
	Memory func(i int) Memory
	// Free and Regions are TxConfig's, of all Tx queues. Nil Regions register nothing.
	Free    mbuf.Allocator
	Regions []mbuf.Region
	// Engine to use. Empty means EngineAuto.
	Engine Engine
	// Log gets what the control plane has to say. nil means nothing is logged.
	Log *slog.Logger
}

// errNotShared is of Share without Config.Shared.
var errNotShared = errors.New("the port is not shared: set Config.Shared")

// Share describes the port, which was opened with Config.Shared or a file prefix and is started, and its queues to
// another process, for OpenShared: fds are duplicates of one descriptor more than there are queues, which the caller passes on
// (SCM_RIGHTS) and closes. They are good until Stop, Configure or SetMTU; who has opened them must close them before, and opens
// anew after. While somebody has them the interface stays, even if this process ends.
//
// What is received and sent there is counted here, in Stats, QueueStats and XStats.
func (d *Device) Share() (s Shared, fds []int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, fds, err = d.share()
	return s, fds, d.opErr("share", -1, err)
}

// DupFD is another descriptor of /dev/net/tun for the interface, close-on-exec and non-blocking, which the caller owns and
// closes. It is detached from traffic: there is nothing to read from it, and it takes no packets from anybody. It answers
// ioctl(2), such as TUNGETIFF, whatever became of the name, and the interface lasts as long as it is open, even if this
// process ends; until it is closed nobody else can open the interface (EBUSY). Any state of the port will do but closed; of
// a secondary it is ErrSecondary. Linux only.
func (d *Device) DupFD() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.locate()
	if err != nil {
		return -1, d.opErr("duplicate the descriptor of", -1, err)
	}
	fd, err := shm.Dup(d.keep.FD())
	return fd, d.opErr("duplicate the descriptor of", -1, err)
}

func (d *Device) share() (s Shared, fds []int, err error) {
	if err := d.locate(); err != nil {
		return s, nil, err
	}
	switch {
	case d.area == nil:
		return s, nil, errNotShared
	case d.state != stateStarted:
		return s, nil, ErrStopped
	}
	link, err := d.conn.Link(d.index)
	if err != nil {
		return s, nil, err
	}
	s = Shared{Name: d.name, Index: d.index, Port: d.cfg.Port, Mode: d.mode, Conf: d.conf, MTU: link.MTU}
	from := []int{d.area.memory.FD()}
	for _, p := range d.pairs {
		s.RxRings, s.TxRings, from = append(s.RxRings, p.rx.depth), append(s.TxRings, len(p.tx.descs)), append(from, p.tap.FD())
	}
	for _, fd := range from {
		dup, err := shm.Dup(fd)
		if err != nil {
			ipc.CloseAll(fds)
			return s, nil, err
		}
		fds = append(fds, dup)
	}
	return s, fds, nil
}

// SharedQueues are the queues of another process's port.
type SharedQueues struct{ d *Device }

// OpenShared makes the queues that [Device.Share] has described, on its descriptors, which it takes over and closes
// if it fails. Bursts may begin at once; until then the queues hold no mbufs. One thread at a time polls a queue, in
// all processes together: of two, none is told of the other. Linux only.
func OpenShared(s Shared, fds []int, cfg SharedConfig) (*SharedQueues, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Engine == "" {
		cfg.Engine = EngineAuto
	}
	d := &Device{cfg: Config{Port: s.Port, Engine: cfg.Engine, Log: cfg.Log}, name: s.Name, index: s.Index, mode: s.Mode, conf: s.Conf, mtu: s.MTU}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.openShared(&s, fds, &cfg); err != nil {
		return nil, d.opErr("open shared queues of", -1, errors.Join(err, d.closeShared()))
	}
	return &SharedQueues{d}, nil
}

// openShared takes over fds in any case.
func (d *Device) openShared(s *Shared, fds []int, cfg *SharedConfig) (err error) {
	if err := checkShared(s, len(fds), cfg); err != nil {
		ipc.CloseAll(fds)
		return err
	}
	for _, fd := range fds[1:] {
		d.pairs = append(d.pairs, &pair{tap: tuntap.FromFD(fd)})
	}
	if d.area, err = attachArea(fds[0]); err != nil {
		return err
	}
	if err := d.choose(fds[1]); err != nil {
		return err
	}
	regions := append([]mbuf.Region{}, cfg.Regions...)
	for i, p := range d.pairs {
		d.counters = append(d.counters, newCounters(d.area.pair(i)))
		memory := cfg.Memory(i)
		if memory == nil {
			return fmt.Errorf("queue %d has no memory", i)
		}
		if err := d.take(i, p.tap, RxConfig{Ring: s.RxRings[i], Memory: memory},
			TxConfig{Ring: s.TxRings[i], Free: cfg.Free, Regions: regions}); err != nil {
			return fmt.Errorf("queue %d: %w", i, err)
		}
	}
	d.state = stateStarted
	for _, p := range d.pairs {
		if err := p.open(); err != nil {
			return err
		}
	}
	return nil
}

// checkShared refuses what Share cannot have made.
func checkShared(s *Shared, fds int, cfg *SharedConfig) error {
	n := len(s.RxRings)
	if err := checkRange("Shared.RxRings", n, 1, MaxQueues); err != nil {
		return err
	}
	if len(s.TxRings) != n || fds != n+1 {
		return &ConfigError{"descriptors", fds, fmt.Sprintf("%d, one more than Rx queues, of which there are as many as Tx queues, %d",
			n+1, len(s.TxRings))}
	}
	for i := range n {
		if err := errors.Join(checkRange("Shared.RxRings", s.RxRings[i], 1, MaxRingSize),
			checkRange("Shared.TxRings", s.TxRings[i], 1, MaxRingSize)); err != nil {
			return err
		}
	}
	if err := s.Mode.check(); err != nil {
		return err
	}
	if cfg.Memory == nil {
		return &ConfigError{"SharedConfig.Memory", "nil", "a function"}
	}
	return checkEngine(cfg.Engine)
}

// RxQueue is the i-th Rx queue, nil if there is none or all are closed.
func (q *SharedQueues) RxQueue(i int) *RxQueue { return q.d.RxQueue(i) }

// TxQueue is the i-th Tx queue, as RxQueue.
func (q *SharedQueues) TxQueue(i int) *TxQueue { return q.d.TxQueue(i) }

// Engine is what moves packets here, and why: Info's words.
func (q *SharedQueues) Engine() (e Engine, reason string) {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	if q.d.engine == nil {
		return "", ""
	}
	return Engine(q.d.engine.Name()), q.d.engineReason()
}

// Close gives the queues up: bursts that run are waited for, later ones return 0, mbufs go to their memory. The port is
// not touched. Closing again does nothing.
func (q *SharedQueues) Close() error {
	q.d.mu.Lock()
	defer q.d.mu.Unlock()
	return q.d.opErr("close shared queues of", -1, q.d.closeShared())
}

func (d *Device) closeShared() error {
	var err error
	for _, p := range d.pairs {
		err = errors.Join(err, p.drop())
	}
	d.pairs, d.state = nil, stateClosed
	d.shut.Store(true)
	if d.engine != nil {
		err = errors.Join(err, d.engine.Close())
		d.engine = nil
	}
	err = errors.Join(err, d.area.close())
	d.area = nil
	return err
}
