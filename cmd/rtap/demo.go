// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rtap-project/rtap"
)

const demoIntro = `Shows the driver at work on real traffic of this kernel. In network namespaces of
its own, which vanish with it, it opens

  a port that answers the kernel: ARP and ping, IPv4 and IPv6;
  two ports with a forwarder between them, which the kernel sends pings, UDP
  and a TCP stream through;
  the same two ports with offloads, and a TCP stream in large frames.

Every answer and every byte is checked. The exit code is 1, and the reason is said,
if anything did not get through. It needs root and no other program.
`

const demoMore = `Examples:
  rtap demo
  rtap demo --duration 60 --engine syscall
`

// demo is a run of rtap demo.
type demo struct {
	d        *display
	engine   rtap.Engine
	duration time.Duration
	steps    int
	err      error // what did not get through, all of it
}

// demoVerb is rtap demo.
func demoVerb(ctx context.Context, st streams, args []string) error {
	f := newFlags("demo", demoIntro, demoMore)
	length := seconds(12 * time.Second)
	f.Var(&length, "duration", "SECONDS: how long all of it takes, about")
	engine := f.String("engine", "auto", "NAME: engine of the ports: auto, uring or syscall")
	if err := f.parse(args, st.out); err != nil {
		return err
	}
	e, err := engineNamed(*engine)
	if err != nil {
		return f.usage("--engine is %v", err)
	}
	if d := time.Duration(length); d < 100*time.Millisecond || d > time.Hour {
		return f.usage("--duration is %v: want 100ms to 1h", d)
	}
	m := &demo{d: newDisplay(st.out), engine: e, duration: time.Duration(length)}
	start := time.Now()
	if err := m.run(ctx); err != nil {
		return err
	}
	m.d.printf("")
	if m.err != nil {
		m.d.printf("%s after %.1f s", m.d.paint(red, "Something did not get through"), time.Since(start).Seconds())
		return m.err
	}
	m.d.printf("%s %d checks, %.1f s; ports and namespaces are gone again.",
		m.d.paint(green, "Everything got through."), m.steps, time.Since(start).Seconds())
	return nil
}

// run does the three parts. The error is that of setting up or taking down; what
// did not get through is collected.
func (m *demo) run(ctx context.Context) error {
	for _, part := range []func(context.Context) error{m.host, m.cable, m.large} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// part announces ports, forwards while steps runs, and shows what they counted.
func (m *demo) part(ctx context.Context, title string, s *session, steps func(ctx context.Context)) {
	m.d.printf("%s", m.d.paint(bold, title))
	for _, p := range s.ports {
		info := p.dev.Info()
		m.d.printf("      %s: interface %s, engine %s (%s)", p.name, info.Name, info.Engine, info.EngineReason)
	}
	start := time.Now()
	err := s.forwarding(ctx, func(ctx context.Context) error {
		steps(ctx)
		return nil
	})
	r := s.sample(time.Since(start))
	m.d.printf("\n%s", strings.TrimSuffix(r.totals(), "\n"))
	m.failed("forwarding", errors.Join(err, r.check()))
}

// check is an error if a port or the forwarder lost something. What the kernel
// dropped because a queue was full (imissed) is none: that is how a TCP stream
// finds out how fast it may be.
func (r *report) check() error {
	var err error
	for _, p := range r.Ports {
		if p.errors() > 0 || p.Error != "" {
			err = errors.Join(err, fmt.Errorf("port %s: %d ierrors, %d oerrors, %d rx_nombuf %s",
				p.Name, p.IErrors, p.OErrors, p.RxNoMbuf, p.Error))
		}
	}
	if r.Forward.FwdDropped > 0 {
		err = errors.Join(err, fmt.Errorf("%d packets were not taken by a Tx queue", r.Forward.FwdDropped))
	}
	return err
}

func (m *demo) failed(what string, err error) {
	if err != nil {
		m.err = errors.Join(m.err, fmt.Errorf("%s: %w", what, err))
	}
}

// errSkipped is wrapped by the error of a step that this machine cannot do.
var errSkipped = errors.New("skipped")

// refresh is how often the live table is drawn: on a terminal, and in plain lines.
const (
	refresh      = 250 * time.Millisecond
	refreshPlain = 2 * time.Second
)

// step does one thing with the live table below it, and says how it went. f
// returns what to say.
func (m *demo) step(ctx context.Context, s *session, name string, f func(ctx context.Context) (string, error)) {
	if ctx.Err() != nil {
		m.failed(name, errors.New("interrupted"))
		return
	}
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := f(ctx)
		done <- result{text, err}
	}()
	period := refreshPlain
	if m.d.terminal != nil {
		period = refresh
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	start := time.Now()
	last := s.sample(0)
	for {
		select {
		case r := <-done:
			m.say(name, r.text, r.err)
			return
		case <-tick.C:
			now := s.sample(time.Since(start))
			m.d.block(fmt.Sprintf("      %s...\n%s", name, rates(last, now)))
			last = now
		}
	}
}

func (m *demo) say(name, text string, err error) {
	switch {
	case errors.Is(err, errSkipped):
		m.d.printf("  %s  %-22s %v", m.d.paint(grey, "--"), name, err)
	case err != nil:
		m.d.printf("  %s  %-22s %v", m.d.paint(red, "NO"), name, err)
		m.failed(name, err)
	default:
		m.d.printf("  %s  %-22s %s", m.d.paint(green, "ok"), name, text)
		m.steps++
	}
}
