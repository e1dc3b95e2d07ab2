// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/rtap-project/rtap/internal/runtimedir"
	"github.com/rtap-project/rtap/mbuf"
	"github.com/rtap-project/rtap/telemetry"
)

// telemetryOptions are the flags of rtap run for its telemetry socket.
type telemetryOptions struct {
	prefix string
	off    bool
}

func (o *telemetryOptions) register(f *flags) {
	f.StringVar(&o.prefix, "file-prefix", telemetry.DefaultFilePrefix,
		"NAME: what clients tell this rtap by: rtap stats, dpdk-telemetry.py -f NAME\n(if another rtap has the default already: rtap.PID)")
	f.BoolVar(&o.off, "no-telemetry", false, "do not serve such clients")
}

func (o *telemetryOptions) check(f *flags) error {
	if err := runtimedir.CheckPrefix(o.prefix); err != nil {
		return f.usage("--file-prefix: %v", err)
	}
	return nil
}

// telemetryServer is a running server, or none.
type telemetryServer struct{ server *telemetry.Server }

// serve shows a session's ports. A prefix that was asked for must be had, as with DPDK. Without one, a second
// rtap takes a name of its own, and one that cannot have a socket, as in a read-only container, works
// without: ports are what the user has asked for.
func (o *telemetryOptions) serve(f *flags, s *session, d *display) (telemetryServer, error) {
	if o.off {
		return telemetryServer{}, nil
	}
	cfg := telemetry.Config{FilePrefix: o.prefix, Pools: []*mbuf.Pool{s.pool}, Version: "rtap " + version(), Log: s.cfg.log}
	if p := s.packets.pool; p != nil {
		cfg.Pools = append(cfg.Pools, p)
	}
	for i, p := range s.ports {
		cfg.Ports = append(cfg.Ports, telemetry.Port{ID: i, Name: p.name, Device: p.dev})
	}
	server, err := telemetry.Serve(cfg)
	if errors.Is(err, telemetry.ErrInUse) && !f.given("file-prefix") {
		cfg.FilePrefix = fmt.Sprintf("%s.%d", o.prefix, os.Getpid())
		server, err = telemetry.Serve(cfg)
	}
	switch {
	case err == nil:
		d.printf("telemetry: file prefix %s, for rtap stats and dpdk-telemetry.py", server.FilePrefix())
	case f.given("file-prefix"):
		return telemetryServer{}, err
	default:
		d.printf("no %v", err)
	}
	return telemetryServer{server}, nil
}

func (t telemetryServer) close() error {
	if t.server == nil {
		return nil
	}
	return t.server.Close()
}
