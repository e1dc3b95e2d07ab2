// SPDX-License-Identifier: BSD-3-Clause

package rtap

import (
	"errors"
	"fmt"

	"github.com/rtap-project/rtap/internal/shm"
)

// area is the memory that a published or shared port has in common with other processes: what its queues count, whoever
// polls them. A nil area is that of a port which is neither.
type area struct {
	memory *shm.Memory
	*areaLayout
}

// areaLayout is the memory itself. There are no pointers in it, and nothing but atomics.
type areaLayout struct {
	pairs [MaxQueues]pairCounters
}

func newArea(name string) (*area, error) {
	memory, err := shm.New(name, uint64(shm.SizeOf[areaLayout]()), false)
	if err != nil {
		return nil, fmt.Errorf("shared memory of the port: %w", err)
	}
	return viewArea(memory)
}

// attachArea maps another process's area. It takes fd over.
func attachArea(fd int) (*area, error) {
	memory, err := shm.Attach(fd, 0)
	if err != nil {
		return nil, fmt.Errorf("shared memory of the port: %w", err)
	}
	return viewArea(memory)
}

func viewArea(memory *shm.Memory) (*area, error) {
	layout, err := shm.View[areaLayout](memory)
	if err != nil {
		return nil, errors.Join(err, memory.Close())
	}
	return &area{memory, layout}, nil
}

// pair is where queue pair i counts.
func (a *area) pair(i int) *pairCounters {
	if a == nil {
		return &pairCounters{}
	}
	return &a.pairs[i]
}

func (a *area) close() error {
	if a == nil {
		return nil
	}
	return a.memory.Close()
}

// mend ends a burst that a process which was killed has begun. What it had published counts.
func (p *pairCounters) mend() {
	for _, t := range []*tally{&p.rx.tally, &p.tx.tally} {
		if turns := t.turns.Load(); turns&1 != 0 {
			t.turns.CompareAndSwap(turns, turns+1)
		}
	}
}
