// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
)

// helpVerb is rtap help [VERB].
func helpVerb(ctx context.Context, s streams, args []string) error {
	if len(args) == 0 {
		printHelp(s.out)
		return nil
	}
	v, ok := findVerb(args[0])
	if !ok || len(args) > 1 {
		return &usageError{" help", fmt.Sprintf("there is no verb %q", strings.Join(args, " "))}
	}
	if v.name == "help" || v.name == "version" {
		fmt.Fprintf(s.out, "rtap %s: %s\n", v.name, v.summary)
		return nil
	}
	return v.run(ctx, s, []string{"--help"})
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "rtap moves packets through Linux TAP interfaces with io_uring.\n\nUsage: rtap VERB [--flag value]...\n\nVerbs:\n")
	for _, v := range verbs() {
		if v.summary != "" {
			fmt.Fprintf(w, "  %-9s%s\n", v.name, v.summary)
		}
	}
	fmt.Fprint(w, `
Start with

  rtap info                      # does it work here?
  rtap demo                      # see it work (root)
  rtap run --vdev=net_rtap0,iface=foo0 --forward-mode=icmpecho
                                 # in another terminal: ip addr add 10.0.0.1/24 dev foo0; ping 10.0.0.2

rtap help VERB has the flags and more examples.
Exit codes: 0 done, 1 failed, 2 the command line makes no sense.
`)
}

// versionVerb is rtap version.
func versionVerb(_ context.Context, s streams, args []string) error {
	if len(args) > 0 {
		return &usageError{" version", "it takes no arguments"}
	}
	fmt.Fprintf(s.out, "rtap %s %s/%s %s\n", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	return nil
}

// version is what the go command knows about this build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	return v
}

// message is err as a user is told, with what to do about it where the error
// itself does not say.
func message(err error) string {
	text := err.Error()
	text = strings.TrimPrefix(text, "rtap: ")
	switch {
	case errors.Is(err, errors.ErrUnsupported) && runtime.GOOS != "linux":
		return text + "\nTAP interfaces and io_uring are Linux only: run rtap on Linux 6.1 or newer"
	case errors.Is(err, syscall.EPERM):
		return text + "\nRun it as root, or with the capabilities named (setcap, docker run --cap-add); rtap info lists what is missing"
	}
	return text
}
