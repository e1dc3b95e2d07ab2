// SPDX-License-Identifier: BSD-3-Clause

package traffic

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Steer has the kernel put frames of IPv4 and UDP, without options and tags, onto the queue whose number is their source
// port less first, modulo the queues there are. fd is a queue of the TAP.
//
// Without it the kernel remembers on which queue a flow was sent last, but for three seconds only (TUN_FLOW_EXPIRE): on a
// machine that stands still for longer now and then, frames go astray.
func Steer(fd int, first uint16) error {
	const sourcePort = 34 // offset in the frame
	var program []byte
	for _, insn := range []struct {
		op, regs uint8
		imm      int32
	}{
		{0xbf, 0x16, 0},                        // r6 = r1, where BPF_LD wants the frame
		{0x28, 0, sourcePort},                  // r0 = two bytes of it
		{0x07, 0, -int32(first)},               // r0 -= first
		{unix.BPF_JMP | unix.BPF_EXIT, 0, 0x0}, // return r0
	} {
		program = append(program, insn.op, insn.regs, 0, 0)
		program = binary.NativeEndian.AppendUint32(program, uint32(insn.imm))
	}
	prog, err := loadFilter(unix.BPF_PROG_TYPE_SOCKET_FILTER, program)
	if err != nil {
		return fmt.Errorf("load the program that steers: %w", err)
	}
	defer closeFD(prog)
	return unix.IoctlSetPointerInt(fd, unix.TUNSETSTEERINGEBPF, prog)
}
