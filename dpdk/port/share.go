// SPDX-License-Identifier: BSD-3-Clause

package port

import (
	"bytes"
	"encoding/json"
	"fmt"
	"syscall"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/ipc"
	"github.com/rtap-project/rtap/mbuf"
)

// Several processes. Queues are everybody's, as with any DPDK driver: the application sees to it that one thread polls each.
// A secondary has rings of its own on duplicates of the primary's descriptors, and counts in the primary's memory. Mempools
// are at the same address in all processes, so it receives into the same ones.

// offer is what a secondary is told: the JSON of Share, the same in all parts.
type offer struct {
	Generation uint32         `json:"generation"` // so that parts of two starts are not mixed up
	Queues     rtap.Shared    `json:"queues"`
	Pools      []offeredPool  `json:"pools"` // of each Rx queue
	Regions    []offeredSpace `json:"regions"`
}

type offeredPool struct {
	Pool     uint64 `json:"mp"`
	DataRoom uint32 `json:"room"`
	Headroom uint32 `json:"head"`
}

// offeredSpace is base and size of memory to be registered.
type offeredSpace [2]uint64

// share fills in the part of the offer that begins with descriptor s.From. A port that is stopped offers nothing. The
// descriptors are duplicates, which whoever sends them closes.
func (e *eth) share(s *Share) error {
	*s = Share{From: s.From}
	if e.places.rx(0) == nil {
		return nil // stopped
	}
	queues, fds, err := e.dev.Share()
	if err != nil {
		return err
	}
	from := min(int(s.From), len(fds))
	to := min(from+ShareFDs, len(fds))
	ipc.CloseAll(fds[:from])
	ipc.CloseAll(fds[to:])
	for i, fd := range fds[from:to] {
		s.FDs[i] = int32(fd)
	}
	s.NFDs, s.Total = uint32(to-from), uint32(len(fds))
	b, err := json.Marshal(e.offer(queues))
	if err == nil && len(b) > len(s.JSON) {
		err = fmt.Errorf("%d bytes describe the queues, a message takes %d: %w", len(b), len(s.JSON), syscall.E2BIG)
	}
	if err != nil {
		s.drop()
		return err
	}
	s.Len = uint32(copy(s.JSON[:], b))
	return nil
}

// offer describes the queues. What other ports have mempools of may be freed while a secondary has it registered, and is
// left out.
func (e *eth) offer(queues rtap.Shared) *offer {
	e.ports.mu.Lock()
	defer e.ports.mu.Unlock()
	o := &offer{Generation: e.generation, Queues: queues}
	var regions [][]mbuf.Region
	for _, n := range e.rx {
		o.Pools = append(o.Pools, offeredPool{uint64(n.memory.pool), uint32(n.memory.dataRoom), uint32(n.memory.headroom)})
		regions = append(regions, n.memory.regions)
	}
	for _, r := range largest(union(regions...), maxRegions) {
		o.Regions = append(o.Regions, offeredSpace{uint64(r.Base), uint64(r.Size)})
	}
	return o
}

// drop closes the descriptors that nobody has taken.
func (s *Share) drop() {
	for _, fd := range s.FDs[:min(s.NFDs, ShareFDs)] {
		ipc.CloseAll([]int{int(fd)})
	}
	s.NFDs = 0
}

// joining is what a secondary has collected.
type joining struct {
	json []byte
	fds  []int
}

func (j *joining) drop() {
	ipc.CloseAll(j.fds)
	*j = joining{}
}

// join takes the next part of an offer, and with the last one makes the queues. The first one ends what was before.
func (e *eth) join(s *Share) error {
	if s.NFDs > ShareFDs || int(s.Len) > len(s.JSON) {
		return fmt.Errorf("%d descriptors, %d bytes: %w", s.NFDs, s.Len, syscall.EINVAL)
	}
	if s.From == 0 {
		if err := e.leave(); err != nil {
			return err
		}
		e.joining.json = bytes.Clone(s.JSON[:s.Len])
	}
	if int(s.From) != len(e.joining.fds) || !bytes.Equal(e.joining.json, s.JSON[:s.Len]) {
		e.joining.drop()
		return fmt.Errorf("descriptors from %d on are of another start of the port: %w", s.From, syscall.EAGAIN)
	}
	for _, fd := range s.FDs[:s.NFDs] {
		e.joining.fds = append(e.joining.fds, int(fd))
	}
	s.NFDs = 0
	if len(e.joining.fds) < int(s.Total) {
		return nil
	}
	return e.take()
}

// take makes queues of all that has come.
func (e *eth) take() error {
	j := e.joining
	e.joining = joining{}
	if len(j.fds) == 0 {
		return nil // the port is stopped
	}
	var o offer
	err := json.Unmarshal(j.json, &o)
	if err == nil && len(o.Pools) != len(o.Queues.RxRings) {
		err = fmt.Errorf("%d mempools for %d queues: %w", len(o.Pools), len(o.Queues.RxRings), syscall.EINVAL)
	}
	if err != nil {
		j.drop()
		return err
	}
	var regions []mbuf.Region
	for _, r := range o.Regions {
		regions = append(regions, mbuf.Region{Base: uintptr(r[0]), Size: uintptr(r[1])})
	}
	host := e.ports.host
	e.shared, err = rtap.OpenShared(o.Queues, j.fds, rtap.SharedConfig{
		Memory: func(i int) rtap.Memory {
			p := o.Pools[i]
			return &memory{host: host, pool: uintptr(p.Pool), dataRoom: int(p.DataRoom), headroom: int(p.Headroom),
				regions: regions, pen: &e.places[i].pen}
		},
		Free: sent{host}, Regions: regions, Log: newLog(host, e.name),
	})
	if err != nil {
		return err
	}
	e.places.show(e.shared)
	return nil
}

// leave gives up a secondary's queues: their mbufs are back in the mempools then.
func (e *eth) leave() error {
	e.joining.drop()
	if e.shared == nil {
		return nil
	}
	e.places.hide()
	err := e.shared.Close()
	e.shared = nil
	return err
}
