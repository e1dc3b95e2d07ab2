// SPDX-License-Identifier: BSD-3-Clause

// Package ipc is the control socket of a primary process, as rte_mp_* is DPDK's: secondary processes on the same
// machine join it, both sides make requests of each other, the primary hands out descriptors, and each learns at
// once of the other's end.
//
// The socket, rtap_socket in the directory of the file prefix (package runtimedir), is a Unix one of type
// SOCK_SEQPACKET. A message is a JSON object of at most 64 KiB, with at most 250 descriptors (SCM_RIGHTS, unix(7)).
// The first one is the secondary's, and says which build it is of: the two share memory, so that both must be of
// the same. Only processes of the same user, and root's, are let in.
//
// A secondary has left when its process has ended, which a pidfd tells (pidfd_open(2)), or when it has said goodbye:
// not when the connection breaks, because the process may still use what it was given.
//
// Linux 6.1; on other systems everything is errors.ErrUnsupported.
package ipc

import (
	"encoding/json"
	"errors"
	"log/slog"
	"time"
)

// SocketName is that of the control socket in the directory of the prefix.
const SocketName = "rtap_socket"

// MaxPeers is how many secondaries a primary has at a time.
const MaxPeers = 31

const (
	maxMessage = 64 << 10 // bytes
	maxFDs     = 250      // of a message; the kernel takes 253 (SCM_MAX_FD)
	maxName    = 64       // characters of a peer's name
	maxBuild   = 256      // bytes of a build
)

var (
	// ErrNoPrimary: no process with this file prefix listens.
	ErrNoPrimary = errors.New("no primary process runs")
	// ErrPrimaryGone: the primary has ended, or has closed the connection.
	ErrPrimaryGone = errors.New("the primary process is gone")
	// ErrPeerGone: the secondary has ended, has said goodbye, or has broken the connection.
	ErrPeerGone = errors.New("the secondary process is gone")
	// ErrBuild: the two processes are of different builds.
	ErrBuild = errors.New("the processes are of different builds")
	// ErrFull: the primary has MaxPeers secondaries.
	ErrFull = errors.New("the primary process has as many secondaries as it can have")
	// ErrBusy: too many processes want to join at the same moment. Dial tries again.
	ErrBusy = errors.New("the primary process is busy with others that want to join")
	// ErrNoOp: the other side knows no such request. Handlers return it for what they do not know.
	ErrNoOp = errors.New("no such request")
)

func init() {
	Register("build", ErrBuild)
	Register("full", ErrFull)
	Register("busy", ErrBusy)
	Register("op", ErrNoOp)
	Register("unsupported", errors.ErrUnsupported)
}

// Handler is what a primary does for its secondaries. Its methods are called concurrently for several peers, and one
// at a time for each. None may call Server.Close.
type Handler interface {
	// Join is called when a process has said who it is. An error turns it away, with that text and code. It must
	// not Call the peer, which is not listening yet.
	Join(p *Peer) error
	// Request answers a request: reply is marshalled as JSON, and the descriptors fds are given to the peer and
	// closed here. Request may Call any peer, this one too, with a context that ends: who is called need not answer.
	Request(p *Peer, op string, body json.RawMessage) (reply any, fds []int, err error)
	// Leave is called once for each Join that returned nil: the process has ended, has said goodbye, or has broken
	// the connection before any descriptor was sent to it. No Request runs any more, and none will. Server.Close calls
	// it as well, for processes that may live on: Peer.Left tells. The peer's ID is free once it has returned.
	Leave(p *Peer)
}

// ServerConfig says how to listen.
type ServerConfig struct {
	Base   string // as of package runtimedir; "": as EAL finds it
	Prefix string // the file prefix
	Build  string // what both sides must be alike in, at most 256 bytes
	// Handler is required.
	Handler Handler
	Log     *slog.Logger // is told of who is refused or misbehaves. nil: nobody is
}

// ClientConfig says whom to join, and as what.
type ClientConfig struct {
	Base   string // as ServerConfig's
	Prefix string
	Build  string
	Name   string // what people know this process by, 64 characters of it; "": that of the program
	// Request answers the primary's requests, one at a time, maybe even before Dial has returned. It may call
	// Client.Call, but not Close. nil: every answer is ErrNoOp.
	Request func(op string, body json.RawMessage) (any, error)
}

// limits bound what a peer can take.
type limits struct {
	handshake time.Duration // until a process has said who it is
	write     time.Duration // until a message is taken
	goodbye   time.Duration // until a goodbye is answered
	joining   int           // processes that have not yet said who they are
}

var defaultLimits = limits{handshake: 5 * time.Second, write: 5 * time.Second, goodbye: 10 * time.Second, joining: 16}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
