// SPDX-License-Identifier: BSD-3-Clause

package traffic

import "encoding/binary"

// VLANTag is a tag in an Ethernet frame (IEEE 802.1Q).
type VLANTag struct {
	Type uint16 // 0x8100, or 0x88a8 for the outer one of two (802.1ad)
	TCI  uint16 // priority, drop eligibility and VLAN number
}

// The programs of [PushVLAN] and [Redirect], in the instructions of uapi linux/bpf.h: code, registers, offset, immediate.
const (
	opMov64X = 0xbf // BPF_ALU64 | BPF_MOV | BPF_X
	opMov64K = 0xb7 // BPF_ALU64 | BPF_MOV | BPF_K
	opCall   = 0x85 // BPF_JMP | BPF_CALL
	opExit   = 0x95 // BPF_JMP | BPF_EXIT

	helperPush     = 18 // BPF_FUNC_skb_vlan_push
	helperPop      = 19 // BPF_FUNC_skb_vlan_pop
	helperRedirect = 23 // BPF_FUNC_redirect

	ctxReg = 6 // kept across calls
)

func instruction(b []byte, code, dst, src uint8, imm int32) []byte {
	regs := dst | src<<4
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // bit fields begin at the other end
		regs = dst<<4 | src
	}
	b = append(b, code, regs, 0, 0)
	return binary.NativeEndian.AppendUint32(b, uint32(imm))
}

// pushProgram adds tags, the last of them first.
func pushProgram(tags []VLANTag) []byte {
	b := instruction(nil, opMov64X, ctxReg, 1, 0)
	for i := len(tags) - 1; i >= 0; i-- {
		var wire [2]byte // the helper takes the type as it is in the frame
		binary.BigEndian.PutUint16(wire[:], tags[i].Type)
		b = instruction(b, opMov64X, 1, ctxReg, 0)
		b = instruction(b, opMov64K, 2, 0, int32(binary.NativeEndian.Uint16(wire[:])))
		b = instruction(b, opMov64K, 3, 0, int32(tags[i].TCI))
		b = instruction(b, opCall, 0, 0, helperPush)
	}
	return accept(b)
}

// popProgram takes n tags off.
func popProgram(n int) []byte {
	b := instruction(nil, opMov64X, ctxReg, 1, 0)
	for range n {
		b = instruction(b, opMov64X, 1, ctxReg, 0)
		b = instruction(b, opCall, 0, 0, helperPop)
	}
	return accept(b)
}

// accept ends a program with TC_ACT_OK.
func accept(b []byte) []byte {
	return instruction(instruction(b, opMov64K, 0, 0, 0), opExit, 0, 0, 0)
}

// redirectProgram sends everything out of another interface.
func redirectProgram(index int) []byte {
	b := instruction(nil, opMov64K, 1, 0, int32(index))
	b = instruction(b, opMov64K, 2, 0, 0)
	b = instruction(b, opCall, 0, 0, helperRedirect) // returns what the program is to return
	return instruction(b, opExit, 0, 0, 0)
}
