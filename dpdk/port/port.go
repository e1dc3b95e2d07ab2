// SPDX-License-Identifier: BSD-3-Clause

// Package port is a port of the DPDK plugin: what ethdev's callbacks do, in terms of package rtap. It knows
// nothing of cgo: package plugin hands in plain numbers and memory, tests do the same.
//
// Everything but bursts is control plane: it may lock, allocate and fail, and its errors are logged where they
// become an errno. Callers may be any threads. One control call at a time runs on a port, as ethdev has it too.
package port

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/mbuf"
)

// Ports are the plugin's ports in this process.
type Ports struct {
	host    Host
	runtime runtimePolicy
	table   table

	mu    sync.Mutex // taken to change what follows, and what a port says of its queues
	ports []atomic.Pointer[eth]
}

// eth is one port.
type eth struct {
	ports     *Ports
	id        uint16
	name      string // of the vdev, such as net_rtap0
	secondary bool   // the port is another process's
	places    *places

	mu   sync.Mutex   // one control call at a time
	dev  *rtap.Device // nil in a secondary
	conf Conf         // as of OpConfigure, less what was no wish
	mtu  uint32       // that the device arguments ask for; 0 if they do not, or the application does by now
	last lastLink

	// By queue, and the memory that Tx queues have registered, nil while the port is stopped; under Ports.mu.
	rx, tx  []queueNote
	regions []mbuf.Region

	events eventGate

	generation uint32 // how often the port was started

	// Of a secondary.
	joining joining
	shared  *rtap.SharedQueues // nil while the primary's port is stopped
}

// New makes room for ports with the numbers 0 to max-1, in a process of so many lcores. version is DPDK's.
func New(host Host, lcores, max int, version string) *Ports {
	host.Log(LevelInfo, "rtap "+rtap.Version+" in "+version)
	return &Ports{host: host, runtime: runtimePolicy{lcores: lcores},
		table: make(table, max), ports: make([]atomic.Pointer[eth], max)}
}

// Probe opens a port. args are devargs without the name. A secondary's port gets its queues by OpJoin.
func (p *Ports) Probe(port uint16, name, args string, secondary bool) (result int32) {
	defer p.recovered(opProbe, port, &result)
	defer p.runtime.tidy(false)
	if err := p.probe(port, name, args, secondary); err != nil {
		return p.failed(opProbe, port, fmt.Errorf("%s: %w", name, err))
	}
	return 0
}

func (p *Ports) probe(port uint16, name, args string, secondary bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case int(port) >= len(p.ports):
		return fmt.Errorf("port %d: %w: there is room for %d ports", port, syscall.ENOSPC, len(p.ports))
	case p.ports[port].Load() != nil:
		return fmt.Errorf("port %d: %w", port, syscall.EEXIST)
	}
	e := &eth{ports: p, id: port, name: name, secondary: secondary, places: new(places)}
	if !secondary {
		if err := e.open(args); err != nil {
			return err
		}
	}
	p.ports[port].Store(e)
	p.table[port].Store(e.places)
	return nil
}

// open makes the interface that args describe.
func (e *eth) open(args string) error {
	cfg, err := parseArgs(e.name, args)
	if err != nil {
		return err
	}
	cfg.Port, cfg.Shared = e.id, true
	cfg.Log = newLog(e.ports.host, e.name)
	if e.dev, err = rtap.Open(cfg); err != nil {
		return err
	}
	e.mtu = uint32(cfg.MTU)
	e.link() // what is known should the interface go at once
	e.listen()
	return nil
}

// Remove closes a port, if it is not closed yet.
func (p *Ports) Remove(port uint16) (result int32) { return p.Call(OpClose, port, nil, 0) }

// port finds a port; nil if there is none.
func (p *Ports) port(id uint16) *eth {
	if int(id) >= len(p.ports) {
		return nil
	}
	return p.ports[id].Load()
}

// close gives up the interface. The port's number is free again, whatever Close says.
func (e *eth) close() error {
	e.events.end()
	err := e.leave()
	if e.dev != nil {
		err = errors.Join(err, e.dev.Close())
	}
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	e.rx, e.tx, e.regions = nil, nil, nil
	e.ports.follow()
	if e.ports.ports[e.id].CompareAndSwap(e, nil) {
		e.ports.table[e.id].Store(nil)
	}
	return err
}

// isEmpty reports whether no port is left.
func (p *Ports) isEmpty() bool {
	for i := range p.ports {
		if p.ports[i].Load() != nil {
			return false
		}
	}
	return true
}
