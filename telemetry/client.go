// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/rtap-project/rtap"
	"github.com/rtap-project/rtap/internal/runtimedir"
)

// ErrNull says that a reply was null: there is no such command, or no such port.
var ErrNull = errors.New("the answer is null")

// callTimeout bounds each step of a client. A server answers within milliseconds.
const callTimeout = 10 * time.Second

// maxReply bounds what a server may announce.
const maxReply = 16 << 20

// Client is a connection to a server, ours or a DPDK program. One goroutine at a time uses it.
type Client struct {
	conn  *net.UnixConn
	hello Hello
	buf   []byte
}

// Dial connects to the program with that file prefix, as Config has it; "" is DefaultFilePrefix. dir is
// Config.Dir. The error names the prefixes that there are.
func Dial(dir, filePrefix string) (*Client, error) {
	filePrefix = cmp.Or(filePrefix, DefaultFilePrefix)
	conn, err := runtimedir.Dial(dir, filePrefix, runtimedir.SocketName)
	if err != nil {
		if runtimedir.NotThere(err) {
			err = fmt.Errorf("no program with file prefix %s runs; %s", filePrefix, others(dir))
		}
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	c := &Client{conn: conn, buf: make([]byte, 1024)} // as dpdk-telemetry.py
	if err := c.greet(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("telemetry: file prefix %s: %w", filePrefix, err)
	}
	return c, nil
}

func others(dir string) string {
	if p := runtimedir.Prefixes(dir, runtimedir.SocketName); len(p) > 0 {
		return "these do: " + strings.Join(p, ", ")
	}
	return "none does: there is no telemetry socket in " + runtimedir.Dir(dir, "*")
}

func (c *Client) greet() error {
	b, err := c.receive()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &c.hello); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if n := c.hello.MaxOutputLen; n < 1 || n > maxReply {
		return fmt.Errorf("greeting: max_output_len is %d: want 1 to %d", n, maxReply)
	}
	c.buf = make([]byte, c.hello.MaxOutputLen+1)
	return nil
}

// Hello is what the server said of itself.
func (c *Client) Hello() Hello { return c.hello }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) receive() ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return nil, err
	}
	n, err := c.conn.Read(c.buf)
	return c.buf[:n], err
}

// Call sends a request, a command and its parameters if there are any, and decodes the reply's value into v.
// The error wraps ErrNull if that is null.
func (c *Client) Call(v any, command string, params ...string) error {
	request := strings.Join(append([]string{command}, params...), ",")
	if err := c.call(v, command, request); err != nil {
		return fmt.Errorf("telemetry: %s: %w", request, err)
	}
	return nil
}

func (c *Client) call(v any, command, request string) error {
	if err := c.conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte(request)); err != nil {
		return err
	}
	b, err := c.receive()
	if err != nil {
		return err
	}
	var reply map[string]json.RawMessage
	if err := json.Unmarshal(b, &reply); err != nil {
		return err
	}
	value := reply[command]
	if len(value) == 0 || string(value) == "null" {
		return ErrNull
	}
	return json.Unmarshal(value, v)
}

// ask is Call for a value of type T.
func ask[T any](c *Client, command string, params ...string) (v T, err error) {
	err = c.Call(&v, command, params...)
	return v, err
}

// Commands lists what the server knows.
func (c *Client) Commands() ([]string, error) { return ask[[]string](c, "/") }

// Ports lists the ports' IDs.
func (c *Client) Ports() ([]int, error) { return ask[[]int](c, "/ethdev/list") }

// Info describes a port.
func (c *Client) Info(port int) (PortInfo, error) {
	return ask[PortInfo](c, "/rtap/info", strconv.Itoa(port))
}

// Stats reads a port's counters.
func (c *Client) Stats(port int) (PortStats, error) {
	return ask[PortStats](c, "/rtap/stats", strconv.Itoa(port))
}

// Processes lists the other processes that are attached, and what each has leased of a port.
func (c *Client) Processes(port int) ([]PortProcess, error) {
	return ask[[]PortProcess](c, "/rtap/processes", strconv.Itoa(port))
}

// XStats reads all extended statistics of a port, in its order, with as many requests as it takes: those of
// one reply are of one moment.
func (c *Client) XStats(port int) ([]rtap.XStat, error) {
	var all []rtap.XStat
	for {
		more, err := ask[counters](c, "/ethdev/xstats", strconv.Itoa(port), "first="+strconv.Itoa(len(all)))
		if err != nil || len(more) == 0 || len(all) > 0 && more[0].Name == all[0].Name { // DPDK's begins anew
			return all, err
		}
		all = append(all, more...)
	}
}

// counters is an object of numbers that keeps its order.
type counters []rtap.XStat

func (c *counters) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(err, fmt.Errorf("%.20q: want an object", b))
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		x := rtap.XStat{Name: name.(string)}
		if err := d.Decode(&x.Value); err != nil {
			return fmt.Errorf("%s: %w", x.Name, err)
		}
		*c = append(*c, x)
	}
	return nil
}
