// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/rtap-project/rtap/internal/runtimedir"
	"github.com/rtap-project/rtap/telemetry"
)

// telemetryOptions are the flags of rtap run for its telemetry socket.
type telemetryOptions struct {
	prefix string
	off    bool
}

func (o *telemetryOptions) register(f *flags) {
	f.StringVar(&o.prefix, "file-prefix", telemetry.DefaultFilePrefix,
		"NAME: what others tell this rtap by: rtap stats, rtap capture, secondaries, dpdk-telemetry.py -f NAME\n(if another rtap has the default already: rtap.PID)")
	f.BoolVar(&o.off, "no-telemetry", false, "do not serve rtap stats and the like; without --file-prefix, no other processes at all")
}

func (o *telemetryOptions) check(f *flags) error {
	if err := runtimedir.CheckPrefix(o.prefix); err != nil {
		return f.usage("--file-prefix: %v", err)
	}
	return nil
}

// reservation is the runtime directory of a file prefix, held until everything that is in it has been made.
type reservation struct {
	prefix string // "": none, so that no other process finds this one
	socket *runtimedir.Listener
}

// startSocket is the name of a socket that is there only while rtap starts.
const startSocket = "rtap_start"

// reserve finds the file prefix under which other processes will find the ports. One that was asked for must be had,
// as with DPDK. Without one, a second rtap takes a name of its own, and one that cannot have a socket, as in a
// read-only container, works without: ports are what the user has asked for.
func (o *telemetryOptions) reserve(f *flags, d *display) (reservation, error) {
	if o.off && !f.given("file-prefix") {
		return reservation{}, nil
	}
	socket, err := runtimedir.Listen("", o.prefix, startSocket)
	if errors.Is(err, telemetry.ErrInUse) && !f.given("file-prefix") {
		o.prefix = fmt.Sprintf("%s.%d", o.prefix, os.Getpid())
		socket, err = runtimedir.Listen("", o.prefix, startSocket)
	}
	switch {
	case err == nil:
		return reservation{o.prefix, socket}, nil
	case f.given("file-prefix"):
		return reservation{}, fmt.Errorf("--file-prefix=%s: %w", o.prefix, err)
	}
	d.printf("no telemetry: %v", err)
	o.off = true
	return reservation{}, nil
}

func (r reservation) close() {
	if r.socket != nil {
		r.socket.Close()
	}
}

// telemetryServer is a running server, or none.
type telemetryServer struct{ server *telemetry.Server }

// serve shows a session's ports.
func (o *telemetryOptions) serve(s *session, d *display) (telemetryServer, error) {
	if o.off {
		return telemetryServer{}, nil
	}
	server, err := telemetry.Serve(telemetry.Config{FilePrefix: o.prefix, Ports: s.telemetryPorts(), Pools: s.pools(),
		Version: "rtap " + version(), Log: s.cfg.log})
	if err != nil {
		return telemetryServer{}, err
	}
	d.printf("telemetry: file prefix %s, for rtap stats and dpdk-telemetry.py", server.FilePrefix())
	return telemetryServer{server}, nil
}

func (t telemetryServer) close() error {
	if t.server == nil {
		return nil
	}
	return t.server.Close()
}
