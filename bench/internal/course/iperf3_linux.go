// SPDX-License-Identifier: BSD-3-Clause

package course

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rtap-project/rtap/internal/netns"
	"github.com/rtap-project/rtap/internal/traffic"
)

// A stream goes from one namespace to an address in another for a while; how many
// bits of payload arrived each second is what comes of it.
type stream func(ctx context.Context, from, to *netns.NS, dst netip.Addr, d time.Duration) (bitsPerSecond float64, err error)

// streams are the ways to send one, by the name that -sender takes.
var streams = map[string]stream{"own": ownStream, "iperf3": iperf3Stream}

// Senders are the names of the ways.
var Senders = []string{"own", "iperf3"}

// ownStream sends by this program.
func ownStream(ctx context.Context, from, to *netns.NS, dst netip.Addr, d time.Duration) (float64, error) {
	t, err := traffic.TCP(ctx, traffic.TCPConfig{Client: from, Server: to, Addr: netip.AddrPortFrom(dst, 0), Duration: d, NoVerify: true})
	return t.BitsPerSecond(), err
}

// iperf3Stream sends by iperf3, whole seconds.
func iperf3Stream(ctx context.Context, from, to *netns.NS, dst netip.Addr, d time.Duration) (float64, error) {
	path, err := exec.LookPath("iperf3")
	if err != nil {
		return 0, err
	}
	server, err := Start(to, path, []string{"-s", "-1", "--forceflush"})
	if err != nil {
		return 0, err
	}
	defer server.Stop() // as a rule it has ended, after one client
	if err := server.Says(ctx, "listening"); err != nil {
		return 0, err
	}
	seconds := max(1, int((d+time.Second/2)/time.Second))
	client := exec.CommandContext(ctx, path, "-c", dst.String(), "-t", strconv.Itoa(seconds), "-J")
	client.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var out bytes.Buffer
	client.Stdout = &out
	if err := from.Do(client.Start); err != nil {
		return 0, err
	}
	err = client.Wait()
	return parseIperf3(out.Bytes(), err)
}

// parseIperf3 reads what iperf3 -J printed; waitErr is how it ended. What it says
// itself comes first.
func parseIperf3(out []byte, waitErr error) (float64, error) {
	var report struct {
		Error string `json:"error"`
		End   struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	err := json.Unmarshal(out, &report)
	switch {
	case report.Error != "":
		return 0, fmt.Errorf("iperf3: %s", report.Error)
	case waitErr != nil:
		return 0, fmt.Errorf("iperf3: %w", waitErr)
	case err != nil:
		return 0, fmt.Errorf("iperf3: %w", err)
	case report.End.Received.BitsPerSecond == 0:
		return 0, errors.New("iperf3: nothing was received")
	}
	return report.End.Received.BitsPerSecond, nil
}

// Says waits for the command to have written something.
func (c *Child) Says(ctx context.Context, text string) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for !strings.Contains(c.Output.String(), text) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not say %q: %w", c.cmd.Path, text, context.Cause(ctx))
		case <-c.Ended:
			return fmt.Errorf("%s ended: %v: %s", c.cmd.Path, c.Err, &c.Output)
		case <-tick.C:
		}
	}
	return nil
}
