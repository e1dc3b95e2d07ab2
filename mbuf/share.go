// SPDX-License-Identifier: BSD-3-Clause

package mbuf

import (
	"fmt"

	"github.com/rtap-project/rtap/internal/shm"
)

// Layout differs between builds whose pools and rings cannot be shared.
func Layout() string { return fmt.Sprintf("%#x, debug %t", layoutVersion, debug) }

// DupFD returns another descriptor of the memory file, for another process. The
// caller closes it.
func (p *Pool) DupFD() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hdr == nil {
		return -1, fmt.Errorf("mbuf: pool %q is closed", p.cfg.Name)
	}
	return shm.Dup(p.mem.FD())
}
