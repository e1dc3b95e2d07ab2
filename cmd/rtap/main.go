// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// streams are what a verb writes to.
type streams struct {
	out io.Writer // results
	err io.Writer // messages, progress
}

// verb is one thing the command does.
type verb struct {
	name    string
	summary string // one line, "": not for users
	run     func(ctx context.Context, s streams, args []string) error
}

// verbs is the table of verbs, in the order of the help text. A new verb is a
// file and a line here. It is a function because "help" is in it and reads it.
func verbs() []verb {
	return []verb{
		{"run", "forward packets between ports, as testpmd does", runVerb},
		{"capture", "write what a running rtap's port receives and sends to a pcap file", captureVerb},
		{"ports", "list the ports of a running rtap", portsVerb},
		{"stats", "show the statistics of a running rtap's ports", statsVerb},
		{"xstats", "show their extended statistics", xstatsVerb},
		{"link", "show their links", linkVerb},
		{"info", "say what this kernel and these privileges allow, and what is missing", infoVerb},
		{"bench", "measure the engines side by side", benchVerb},
		{"demo", "show real traffic through ports in namespaces of their own", demoVerb},
		{"version", "print the version", versionVerb},
		{"help", "explain a verb", helpVerb},
		{benchPing, "", benchPingVerb},
	}
}

func main() {
	os.Exit(command(os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// command runs one command line and returns its exit code. SIGINT and SIGTERM
// end the verb through its context; a second one ends the process.
func command(args []string, s streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := dispatch(ctx, s, args)
	var usage *usageError
	switch {
	case err == nil, errors.Is(err, errHelp):
		return exitDone
	case errors.As(err, &usage):
		fmt.Fprintf(s.err, "rtap%s: %s\n", usage.verb, usage.text)
		fmt.Fprintf(s.err, "rtap help%s explains how to use it.\n", usage.verb)
		return exitUsage
	}
	fmt.Fprintf(s.err, "rtap: %s\n", message(err))
	return exitFailed
}

func dispatch(ctx context.Context, s streams, args []string) error {
	if len(args) == 0 {
		printHelp(s.err)
		return &usageError{text: "no verb given"}
	}
	name := args[0]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-version", "--version":
		name = "version"
	}
	v, ok := findVerb(name)
	if !ok {
		return &usageError{text: fmt.Sprintf("there is no verb %q", args[0])}
	}
	return v.run(ctx, s, args[1:])
}

func findVerb(name string) (verb, bool) {
	for _, v := range verbs() {
		if v.name == name {
			return v, true
		}
	}
	return verb{}, false
}

// usageError is a command line that makes no sense: exit code 2.
type usageError struct {
	verb string // with a space in front, or ""
	text string
}

func (e *usageError) Error() string { return e.text }

// errHelp says that help was asked for and given.
var errHelp = errors.New("help was asked for")
