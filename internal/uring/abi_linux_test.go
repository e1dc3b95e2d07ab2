// SPDX-License-Identifier: BSD-3-Clause

package uring

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/rtap-project/rtap/internal/nettest"
)

// layout is one number of the kernel's interface: what we have, and the C
// expression for it.
type layout struct {
	c     string
	got   uintptr
	since [2]int // the Linux version whose header has it, if after 6.0
}

func size(name string, got uintptr) layout { return layout{c: "sizeof(struct " + name + ")", got: got} }

func offset(name, field string, got uintptr) layout {
	return layout{c: "offsetof(struct " + name + ", " + field + ")", got: got}
}

func value(name string, got uintptr) layout { return layout{c: name, got: got} }

func (l layout) from(major, minor int) layout { l.since = [2]int{major, minor}; return l }

func layouts() []layout {
	var (
		s  SQE
		c  CQE
		v  Iovec
		p  params
		so sqOffsets
		co cqOffsets
		sc syncCancel
		cb cloneBuffers
		wa waitArg
		ru ringUpdate
	)
	return []layout{
		size("io_uring_sqe", unsafe.Sizeof(s)),
		offset("io_uring_sqe", "opcode", unsafe.Offsetof(s.Opcode)),
		offset("io_uring_sqe", "flags", unsafe.Offsetof(s.Flags)),
		offset("io_uring_sqe", "ioprio", unsafe.Offsetof(s.IOPrio)),
		offset("io_uring_sqe", "fd", unsafe.Offsetof(s.FD)),
		offset("io_uring_sqe", "off", unsafe.Offsetof(s.Off)),
		offset("io_uring_sqe", "addr", unsafe.Offsetof(s.Addr)),
		offset("io_uring_sqe", "len", unsafe.Offsetof(s.Len)),
		offset("io_uring_sqe", "rw_flags", unsafe.Offsetof(s.OpFlags)),
		offset("io_uring_sqe", "poll32_events", unsafe.Offsetof(s.OpFlags)),
		offset("io_uring_sqe", "cancel_flags", unsafe.Offsetof(s.OpFlags)),
		offset("io_uring_sqe", "user_data", unsafe.Offsetof(s.UserData)),
		offset("io_uring_sqe", "buf_index", unsafe.Offsetof(s.BufIndex)),
		size("io_uring_cqe", unsafe.Sizeof(c)),
		offset("io_uring_cqe", "user_data", unsafe.Offsetof(c.UserData)),
		offset("io_uring_cqe", "res", unsafe.Offsetof(c.Res)),
		offset("io_uring_cqe", "flags", unsafe.Offsetof(c.Flags)),
		size("iovec", unsafe.Sizeof(v)),
		offset("iovec", "iov_base", unsafe.Offsetof(v.Base)),
		offset("iovec", "iov_len", unsafe.Offsetof(v.Len)),
		size("io_uring_params", unsafe.Sizeof(p)),
		offset("io_uring_params", "sq_entries", unsafe.Offsetof(p.sqEntries)),
		offset("io_uring_params", "cq_entries", unsafe.Offsetof(p.cqEntries)),
		offset("io_uring_params", "flags", unsafe.Offsetof(p.flags)),
		offset("io_uring_params", "features", unsafe.Offsetof(p.features)),
		offset("io_uring_params", "sq_off", unsafe.Offsetof(p.sqOff)),
		offset("io_uring_params", "cq_off", unsafe.Offsetof(p.cqOff)),
		size("io_sqring_offsets", unsafe.Sizeof(so)),
		offset("io_sqring_offsets", "head", unsafe.Offsetof(so.head)),
		offset("io_sqring_offsets", "tail", unsafe.Offsetof(so.tail)),
		offset("io_sqring_offsets", "ring_mask", unsafe.Offsetof(so.ringMask)),
		offset("io_sqring_offsets", "ring_entries", unsafe.Offsetof(so.ringEntries)),
		offset("io_sqring_offsets", "flags", unsafe.Offsetof(so.flags)),
		offset("io_sqring_offsets", "dropped", unsafe.Offsetof(so.dropped)),
		offset("io_sqring_offsets", "array", unsafe.Offsetof(so.array)),
		size("io_cqring_offsets", unsafe.Sizeof(co)),
		offset("io_cqring_offsets", "head", unsafe.Offsetof(co.head)),
		offset("io_cqring_offsets", "tail", unsafe.Offsetof(co.tail)),
		offset("io_cqring_offsets", "ring_mask", unsafe.Offsetof(co.ringMask)),
		offset("io_cqring_offsets", "overflow", unsafe.Offsetof(co.overflow)),
		offset("io_cqring_offsets", "cqes", unsafe.Offsetof(co.cqes)),
		size("io_uring_sync_cancel_reg", unsafe.Sizeof(sc)),
		offset("io_uring_sync_cancel_reg", "fd", unsafe.Offsetof(sc.fd)),
		offset("io_uring_sync_cancel_reg", "flags", unsafe.Offsetof(sc.flags)),
		offset("io_uring_sync_cancel_reg", "timeout.tv_sec", unsafe.Offsetof(sc.timeoutSec)),
		offset("io_uring_sync_cancel_reg", "timeout.tv_nsec", unsafe.Offsetof(sc.timeoutNsec)),
		size("io_uring_clone_buffers", unsafe.Sizeof(cb)).from(6, 12),
		offset("io_uring_clone_buffers", "src_fd", unsafe.Offsetof(cb.srcFD)).from(6, 12),
		offset("io_uring_clone_buffers", "flags", unsafe.Offsetof(cb.flags)).from(6, 12),
		offset("io_uring_clone_buffers", "nr", unsafe.Offsetof(cb.nr)).from(6, 13),
		size("io_uring_getevents_arg", unsafe.Sizeof(wa)),
		offset("io_uring_getevents_arg", "ts", unsafe.Offsetof(wa.timespec)),
		size("io_uring_rsrc_update", unsafe.Sizeof(ru)),
		offset("io_uring_rsrc_update", "offset", unsafe.Offsetof(ru.offset)),
		offset("io_uring_rsrc_update", "data", unsafe.Offsetof(ru.data)),

		value("IORING_OP_NOP", opNop),
		value("IORING_OP_READV", opReadv),
		value("IORING_OP_WRITEV", opWritev),
		value("IORING_OP_READ_FIXED", opReadFixed),
		value("IORING_OP_WRITE_FIXED", opWriteFixed),
		value("IORING_OP_POLL_ADD", opPollAdd),
		value("IORING_OP_ASYNC_CANCEL", opAsyncCancel),
		value("IORING_OP_READ", opRead),
		value("IORING_OP_WRITE", opWrite),
		value("IOSQE_FIXED_FILE", FixedFile),
		value("IOSQE_IO_DRAIN", ioDrain),
		value("IOSQE_CQE_SKIP_SUCCESS", CQESkipSuccess),
		value("RWF_NOWAIT", RWFNoWait),
		value("IORING_SETUP_CLAMP", setupClamp),
		value("IORING_SETUP_SUBMIT_ALL", setupSubmitAll),
		value("IORING_SETUP_COOP_TASKRUN", setupCoopTaskrun),
		value("IORING_SETUP_SINGLE_ISSUER", setupSingleIssuer),
		value("IORING_SETUP_DEFER_TASKRUN", setupDeferTaskrun).from(6, 1),
		value("IORING_SETUP_NO_SQARRAY", setupNoSQArray).from(6, 6),
		value("IORING_ENTER_GETEVENTS", enterGetEvents),
		value("IORING_ENTER_EXT_ARG", enterExtArg),
		value("IORING_ENTER_REGISTERED_RING", enterRegisteredRing),
		value("IORING_FEAT_SINGLE_MMAP", featSingleMmap),
		value("IORING_FEAT_NODROP", featNoDrop),
		value("IORING_FEAT_EXT_ARG", featExtArg),
		value("IORING_FEAT_CQE_SKIP", featCQESkip),
		value("IORING_REGISTER_BUFFERS", registerBuffers),
		value("IORING_UNREGISTER_BUFFERS", unregisterBuffers),
		value("IORING_REGISTER_FILES", registerFiles),
		value("IORING_UNREGISTER_FILES", unregisterFiles),
		value("IORING_REGISTER_RING_FDS", registerRingFDs),
		value("IORING_UNREGISTER_RING_FDS", unregisterRingFDs),
		value("IORING_REGISTER_SYNC_CANCEL", registerSyncCancel),
		value("IORING_REGISTER_CLONE_BUFFERS", registerCloneBuffers).from(6, 12),
		value("IORING_ASYNC_CANCEL_ALL", cancelAll),
		value("IORING_ASYNC_CANCEL_ANY", cancelAny),
		value("IORING_OFF_SQ_RING", offSQRing),
		value("IORING_OFF_SQES", offSQEs),
	}
}

// TestSizes needs no compiler: io_uring_setup(2) and io_uring_register(2).
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"SQE", unsafe.Sizeof(SQE{}), sqeSize},
		{"SQE", unsafe.Sizeof(SQE{}), 64},
		{"CQE", unsafe.Sizeof(CQE{}), cqeSize},
		{"CQE", unsafe.Sizeof(CQE{}), 16},
		{"Iovec", unsafe.Sizeof(Iovec{}), iovecSize},
		{"params", unsafe.Sizeof(params{}), 120},
		{"sqOffsets", unsafe.Sizeof(sqOffsets{}), 40},
		{"cqOffsets", unsafe.Sizeof(cqOffsets{}), 40},
		{"syncCancel", unsafe.Sizeof(syncCancel{}), 64},
		{"cloneBuffers", unsafe.Sizeof(cloneBuffers{}), 32},
		{"waitArg", unsafe.Sizeof(waitArg{}), 24},
		{"ringUpdate", unsafe.Sizeof(ringUpdate{}), 16},
		// These are younger than the header on Debian 12.
		{"offset of cloneBuffers.srcFD", unsafe.Offsetof(cloneBuffers{}.srcFD), 0},
		{"offset of cloneBuffers.flags", unsafe.Offsetof(cloneBuffers{}.flags), 4},
		{"offset of cloneBuffers.nr", unsafe.Offsetof(cloneBuffers{}.nr), 16},
		{"offset of SQE.UserData", unsafe.Offsetof(SQE{}.UserData), 32},
		{"offset of SQE.BufIndex", unsafe.Offsetof(SQE{}.BufIndex), 40},
	} {
		if c.got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, c.got, c.want)
		}
	}
}

// TestHeader holds every number against the installed linux/io_uring.h.
func TestHeader(t *testing.T) {
	if os.Getenv("RTAP_TEST_VM") != "" {
		t.Skip("no C compiler in the virtual machine; the host runs this test")
	}
	var src strings.Builder
	src.WriteString("#include <stddef.h>\n#include <stdio.h>\n#include <sys/uio.h>\n#include <linux/fs.h>\n" +
		"#include <linux/io_uring.h>\n#include <linux/version.h>\nint main(void) {\n")
	for i, l := range layouts() {
		fmt.Fprintf(&src, "#if LINUX_VERSION_CODE >= KERNEL_VERSION(%d, %d, 0)\n", l.since[0], l.since[1])
		fmt.Fprintf(&src, "printf(\"%d %%llu\\n\", (unsigned long long)(%s));\n#endif\n", i, l.c)
	}
	src.WriteString("return 0; }\n")
	want := map[int]uintptr{}
	for line := range strings.Lines(runC(t, src.String())) {
		var i int
		var v uint64
		if _, err := fmt.Sscan(line, &i, &v); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		want[i] = uintptr(v)
	}
	for i, l := range layouts() {
		w, ok := want[i]
		switch {
		case !ok:
			t.Logf("the installed header has no %s", l.c)
		case l.got != w:
			t.Errorf("%s is %d, want %d", l.c, l.got, w)
		}
	}
}

// runC compiles a program and returns what it prints.
func runC(t *testing.T, src string) string {
	t.Helper()
	lack := t.Skipf
	if nettest.CI() {
		lack = t.Fatalf
	}
	dir := t.TempDir()
	file, bin := filepath.Join(dir, "layout.c"), filepath.Join(dir, "layout")
	if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-o", bin, file}
	if ptrSize == 4 {
		args = append(args, "-m32")
	}
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		lack("a C compiler and linux/io_uring.h are needed: %v\n%s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
