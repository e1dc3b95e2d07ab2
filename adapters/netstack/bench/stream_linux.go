// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/adapters/netstack/internal/rig"
	"github.com/rtap-project/rtap/internal/netns"
)

// result is one stream's.
type result struct {
	gbps        float64 // payload
	stack, peer float64 // CPU seconds of the two processes for each gigabit, warm-up included
}

const (
	warmUp = 300 * time.Millisecond
	grace  = 20 * time.Second
)

// The ports of the stack by direction.
var ports = map[string]uint16{"in": 5001, "out": 5002}

// roles are what this program is as a child.
var roles = map[string]func(args []string) error{"stack": stackRole, "peer": peerRole}

// stream has one stream run, in a namespace of its own.
func stream(ctx context.Context, rival, direction string, d time.Duration) (res result, err error) {
	ctx, cancel := context.WithTimeout(ctx, warmUp+d+grace)
	defer cancel()
	ns, err := netns.New()
	if err != nil {
		return res, err
	}
	defer ns.Close()
	st, err := start(ctx, ns, "stack", rival)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, st.stop()) }()
	if _, err := st.line(); err != nil {
		return res, err
	}
	before, err := st.ask()
	if err != nil {
		return res, err
	}
	peer, err := start(ctx, ns, "peer", direction, d.String())
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, peer.stop()) }()
	var total, measured, seconds, cpu float64
	said, err := peer.line()
	if err != nil {
		return res, err
	}
	if _, err := fmt.Sscan(said, &total, &measured, &seconds, &cpu); err != nil {
		return res, fmt.Errorf("the peer said %q: %w", said, err)
	}
	after, err := st.ask()
	if err != nil {
		return res, err
	}
	gb := total * 8 / 1e9
	return result{gbps: measured * 8 / 1e9 / seconds, stack: (after - before) / gb, peer: cpu / gb}, nil
}

// child is a process that says lines, and is asked by lines.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(ctx context.Context, ns *netns.NS, args ...string) (*child, error) {
	c := &child{cmd: exec.CommandContext(ctx, "/proc/self/exe", args...)}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // a Ctrl-C reaches it through ctx alone
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	return c, ns.Do(c.cmd.Start) // a child is in the namespace of the thread that makes it
}

func (c *child) line() (string, error) {
	s, err := c.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s ended early: %w", c.cmd.Args[1], err)
	}
	return s, nil
}

// ask is the CPU time of a child in seconds.
func (c *child) ask() (float64, error) {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		return 0, err
	}
	s, err := c.line()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(s[:len(s)-1], 64)
}

func (c *child) stop() error {
	c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w", c.cmd.Args[1], err)
	}
	return nil
}

// stackRole is the stack with a sink and a source.
func stackRole(args []string) error {
	ep, err := find(args[0]).open()
	if err != nil {
		return err
	}
	s, err := rig.NewStack(ep, false)
	if err != nil {
		return err
	}
	defer ep.Close() // the process ends: the stack need not be destroyed
	ns, err := netns.Current()
	if err != nil {
		return err
	}
	if err := rig.RaiseKernel(ns, ifName, false); err != nil {
		return err
	}
	for direction, handle := range map[string]func(net.Conn){"in": rig.Sink, "out": rig.Source} {
		l, err := rig.Listen(s, 4, ports[direction])
		if err != nil {
			return err
		}
		go rig.Each(l, handle)
	}
	fmt.Println("ready")
	for in := bufio.NewReader(os.Stdin); ; fmt.Println(cpuSeconds()) {
		if _, err := in.ReadString('\n'); err != nil {
			return nil // we are done
		}
	}
}

// peerRole is the kernel's end of a stream. It says how many bytes there were in all, how many while it was measured, for how many
// seconds that was, and its CPU time.
func peerRole(args []string) error {
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(rig.Stack[4], ports[args[0]]).String(), grace/2)
	if err != nil {
		return err
	}
	defer c.Close()
	move := c.Write
	if args[0] == "out" {
		move = c.Read
	}
	buf := make([]byte, 256<<10)
	var total, early int64
	begin := time.Now()
	from := begin
	for now := begin; now.Sub(begin) < warmUp+d; now = time.Now() {
		if early == 0 && now.Sub(begin) >= warmUp {
			early, from = total, now
		}
		if err := c.SetDeadline(now.Add(grace)); err != nil {
			return err
		}
		n, err := move(buf)
		if err != nil {
			return err
		}
		total += int64(n)
	}
	fmt.Println(total, total-early, time.Since(from).Seconds(), cpuSeconds())
	return nil
}

// cpuSeconds is what this process has used, in the kernel on its behalf too.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
