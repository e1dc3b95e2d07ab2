// SPDX-License-Identifier: BSD-3-Clause

package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rtap-project/rtap/internal/nettest"
	"github.com/rtap-project/rtap/internal/runtimedir"
	"golang.org/x/sys/unix"
)

const goodHello = `{"id":1,"op":"ipc.hello","body":{"magic":"` + magic + `","build":"1","name":"raw"}}`

// raw speaks as it likes.
type raw struct {
	*net.UnixConn
	t *testing.T
}

func knock(t *testing.T, base string) raw {
	t.Helper()
	c, err := runtimedir.Dial(base, "p", SocketName)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(nettest.Bound(3*wait))))
	sys, err := c.SyscallConn()
	must(t, err)
	sys.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4<<20) })
	return raw{c, t}
}

// say sends a message, unless the other side has closed the connection.
func (c raw) say(msg string, fds ...int) {
	c.t.Helper()
	_, _, err := c.WriteMsgUnix([]byte(msg), unix.UnixRights(fds...), nil)
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.ENOBUFS) {
		c.t.Error(err)
	}
}

// read is the next message, "" at the end.
func (c raw) read() string {
	c.t.Helper()
	b := make([]byte, maxMessage)
	for {
		n, err := c.Read(b)
		if errors.Is(err, unix.ECONNRESET) { // ahead of what was sent before
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			c.t.Error(err)
		}
		return string(b[:max(n, 0)])
	}
}

// ended reads until the other side has closed the connection, closes it too, and returns the last message.
func (c raw) ended() (last string) {
	c.t.Helper()
	for {
		msg := c.read()
		if msg == "" {
			c.Close()
			return last
		}
		last = msg
	}
}

// joined is a raw peer that was let in.
func joined(t *testing.T, base string) raw {
	t.Helper()
	var c raw
	nettest.Eventually(t, wait, "a peer is let in", func() bool { // others may be ahead of it
		c = knock(t, base)
		c.say(goodHello)
		return strings.HasPrefix(c.read(), `{"id":1,"body":{"id":`)
	})
	return c
}

// first and joined peers alike.
var stages = map[string]func(*testing.T, string) raw{"first": knock, "joined": joined}

// TestHostilePeers: nothing that a peer does keeps others from being served, or leaves anything behind.
func TestHostilePeers(t *testing.T) {
	short, slow, patient := defaultLimits, defaultLimits, defaultLimits
	short.handshake = nettest.Bound(200 * time.Millisecond) // polite peers are to manage
	slow.write = 100 * time.Millisecond
	patient.write = time.Hour
	for _, a := range []struct {
		name   string
		limits limits
		attack func(t *testing.T, s *Server, base string)
	}{
		{"garbage", defaultLimits, garbage},
		{"no messages", defaultLimits, noMessages},
		{"truncated", defaultLimits, truncated},
		{"large", defaultLimits, large},
		{"descriptors", defaultLimits, descriptors},
		{"hellos", defaultLimits, hellos},
		{"half-open by the hundred", defaultLimits, halfOpen},
		{"silent", short, silent},
		{"gone at once", defaultLimits, goneAtOnce},
		{"never reading", slow, neverReading},
		{"not reading", patient, notReading},
		{"flood", defaultLimits, flood},
		{"after goodbye", defaultLimits, afterGoodbye},
	} {
		t.Run(a.name, func(t *testing.T) {
			base, h := newBase(t), newPrimary(t)
			before := nettest.Leaks()
			s, err := listen(ServerConfig{Base: base, Prefix: "p", Build: "1", Handler: h}, a.limits)
			must(t, err)
			defer s.Close()
			a.attack(t, s, base)
			wantService(t, base)
			h.wantNobody(t, s)
			must(t, s.Close())
			before.Check(t)
		})
	}
}

func garbage(t *testing.T, _ *Server, base string) {
	random := rand.NewChaCha8([32]byte{1})
	for _, stage := range stages {
		for i := range nettest.Scale(200) {
			c := stage(t, base)
			b := make([]byte, 1+i*7)
			random.Read(b)
			c.say(string(b))
			c.ended()
		}
	}
}

// noMessages are JSON, and neither requests nor answers.
func noMessages(t *testing.T, _ *Server, base string) {
	for _, msg := range []string{"", "null", "[]", "1", `""`, `{"id":-1}`, `{"id":1.5}`, `{"op":5}`,
		`{"fds":-1}`, `{"fds":1e9}`, `{"id":"1"}`,
		strings.Repeat("[", 60000), strings.Repeat(`{"body":`, 7000)} {
		for name, stage := range stages {
			c := stage(t, base)
			c.say(msg)
			if name == "joined" && msg != "null" || name == "first" {
				c.ended()
			}
			c.Close()
		}
	}
}

// truncated are all the beginnings of what is right.
func truncated(t *testing.T, _ *Server, base string) {
	for name, msg := range map[string]string{"first": goodHello, "joined": `{"id":7,"op":"echo","body":{"a":[1,"b"]}}`} {
		for n := range len(msg) - 1 {
			c := stages[name](t, base)
			c.say(msg[:n])
			c.ended()
		}
	}
}

func large(t *testing.T, _ *Server, base string) {
	for _, size := range []int{maxMessage + 1, 100 << 10, 1 << 20} {
		for _, stage := range stages {
			for _, begin := range []string{`{"id":7,"op":"echo","body":"`, "x"} {
				c := stage(t, base)
				c.say(begin + strings.Repeat("a", size-len(begin)-2) + `"}`)
				if size < 1<<20 { // of that size the kernel may not have a piece of memory
					c.ended()
				}
				c.Close()
			}
		}
	}
	c := joined(t, base)
	begin := `{"id":7,"op":"echo","body":"`
	msg := begin + strings.Repeat("a", maxMessage-len(begin)-2) + `"}`
	c.say(msg) // as large as can be, but that its answer is shorter
	if got, want := c.read(), strings.Replace(msg, `"op":"echo",`, "", 1); got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	c.say(strings.Replace(msg, "echo", "grow", 1)) // has an answer that is too long
	if got := c.read(); !strings.HasPrefix(got, `{"id":7,"error":"grow: answer: a message of `) {
		t.Errorf("%.200s", got)
	}
	c.Close()
}

// descriptors that nobody asked for are not taken.
func descriptors(t *testing.T, _ *Server, base string) {
	fds := slices.Repeat([]int{int(os.Stdout.Fd())}, 300)
	for _, n := range []int{1, 253} { // the kernel takes no more in one message
		for _, stage := range stages {
			for _, msg := range []string{goodHello, `{"id":2,"op":"echo"}`, `{"id":1}`, "{", ""} {
				c := stage(t, base)
				c.say(msg, fds[:n]...)
				c.ended()
			}
		}
	}
	c := joined(t, base)
	if _, _, err := c.WriteMsgUnix([]byte("{}"), unix.UnixRights(fds...), nil); err == nil {
		t.Error("the kernel takes 300 descriptors")
	}
	c.say(`{"id":2,"op":"denied"}`) // descriptors do not come with an error
	if got := c.read(); !strings.HasPrefix(got, `{"id":2,"error":"denied"}`) {
		t.Error(got)
	}
	c.say(`{"id":2,"op":"files","body":251}`)
	if got := c.read(); !strings.HasPrefix(got, `{"id":2,"error":"files: answer: a message with 251 descriptors`) {
		t.Error(got)
	}
	c.Close()
	dead := joined(t, base)
	dead.say(`{"id":2,"op":"stale"}`) // a descriptor that is closed
	if got := dead.read(); !strings.HasPrefix(got, `{"id":2,"error":"stale: answer: `) {
		t.Error(got)
	}
	dead.Close()
}

// hellos that are refused in words.
func hellos(t *testing.T, s *Server, base string) {
	for _, h := range []struct{ hello, want string }{
		{`{"id":1,"op":"echo"}`, "no rtap process"},
		{`{"id":2,"op":"ipc.hello","body":{"magic":"` + magic + `","build":"1"}}`, "no rtap process"},
		{`{"id":1,"op":"ipc.hello"}`, "no rtap process"},
		{`{"id":1,"op":"ipc.hello","body":[]}`, "no rtap process"},
		{`{"id":1,"op":"ipc.hello","body":{"magic":"x"}}`, "no rtap process"},
		{strings.Replace(goodHello, `"1"`, `"1\u001b[2J`+strings.Repeat("z", 60000)+`"`, 1), "run the same build"},
		{`{"id":1,"op":"ipc.goodbye"}`, "no rtap process"},
	} {
		c := knock(t, base)
		c.say(h.hello)
		got := c.ended()
		if !strings.Contains(got, h.want) || strings.Contains(got, `\u001b`) {
			t.Errorf("%.100s: %.200s", h.hello, got)
		}
	}
	c := knock(t, base)
	c.say(strings.Replace(goodHello, "raw", `\u001b[2J`+strings.Repeat("é", 10000), 1))
	c.read()
	if p := <-s.cfg.Handler.(*primary).joins; p.Name() != "\ufffd[2J"+strings.Repeat("é", 60) {
		t.Errorf("its name is %q", p.Name())
	} else {
		s.cfg.Handler.(*primary).joins <- p
	}
	c.say(goodHello) // once is enough
	if got := c.read(); !strings.Contains(got, `"code":"op"`) {
		t.Error(got)
	}
	c.Close()
}

// halfOpen connections go, the oldest first, for those that come.
func halfOpen(t *testing.T, s *Server, base string) {
	goroutines := runtime.NumGoroutine()
	var conns []raw
	for i := range 300 {
		conns = append(conns, knock(t, base))
		if n := runtime.NumGoroutine(); n > goroutines+s.limits.joining+100 {
			t.Fatalf("%d goroutines, and %d at the beginning", n, goroutines)
		}
		if i%50 == 0 {
			wantService(t, base)
		}
	}
	if got := conns[0].ended(); !strings.Contains(got, `"code":"busy"`) {
		t.Error(got)
	}
	wantService(t, base)
	for _, c := range conns {
		c.Close()
	}
}

// silent peers are closed for it, until they have said who they are.
func silent(t *testing.T, _ *Server, base string) {
	for range nettest.Scale(3) {
		quiet, c := joined(t, base), knock(t, base)
		if got := c.ended(); !strings.Contains(got, "it has not said who it is for") {
			t.Error(got)
		}
		quiet.say(`{"id":2,"op":"echo","body":1}`)
		if got := quiet.read(); got != `{"id":2,"body":1}` {
			t.Error(got)
		}
		quiet.Close()
	}
}

// goneAtOnce peers do not wait for an answer.
func goneAtOnce(t *testing.T, _ *Server, base string) {
	for i := range nettest.Scale(300) {
		c := knock(t, base)
		if i%3 > 0 {
			c.say(goodHello)
		}
		if i%3 > 1 {
			c.say(`{"id":2,"op":"callback"}`)
		}
		c.Close()
	}
}

// neverReading peers ask and do not take the answers, until nothing more can be sent to them. Nobody waits for them.
func neverReading(t *testing.T, s *Server, base string) {
	request := `{"id":2,"op":"echo","body":"` + strings.Repeat("a", 60000) + `"}`
	var wg sync.WaitGroup
	for range 3 {
		c := joined(t, base)
		wg.Go(func() {
			for {
				if _, err := c.Write([]byte(request)); err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error("it is not closed")
					}
					c.Close()
					return
				}
			}
		})
	}
	for range 10 { // meanwhile
		wantService(t, base)
	}
	wg.Wait()

	c, p := called(t, s, base)
	// Each call lasts 10 ms at least, if not for want of room then for want of an answer.
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		err := p.Call(ctx, "x", strings.Repeat("a", 60000), nil)
		cancel()
		if errors.Is(err, ErrPeerGone) {
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) || i > 50 {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	c.Close()
}

// called is a peer that asks for nothing, and its end in the primary.
func called(t *testing.T, s *Server, base string) (raw, *Peer) {
	h := s.cfg.Handler.(*primary)
	seen := len(h.joins)
	c := joined(t, base)
	var p *Peer
	for range seen + 1 {
		p = <-h.joins
		h.joins <- p
	}
	return c, p
}

// notReading peers are called no longer than the context lasts, be it to find room or the turn to write.
func notReading(t *testing.T, s *Server, base string) {
	c, p := called(t, s, base)
	var wg sync.WaitGroup
	call := func(ctx context.Context, want error) {
		if err := p.Call(ctx, "x", strings.Repeat("a", 60000), nil); !errors.Is(err, want) {
			t.Error(err)
		}
	}
	long, cancel := context.WithCancel(t.Context())
	for range 8 { // some find room, one has its turn to write, and keeps it
		wg.Go(func() { call(long, context.Canceled) })
	}
	nettest.Eventually(t, wait, "there is no room", func() bool {
		return len(p.link.places) == 8 && len(p.link.writing) == 1
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			short, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			call(short, context.DeadlineExceeded)
			cancel()
		}
	}()
	await(t, done, "short calls end")
	cancel()
	wg.Wait()

	go p.link.send(t.Context(), &message{ID: 999}, nil) // once there is room nothing is held against it
	for !strings.Contains(c.read(), `"id":999`) {
	}
	p.link.writing <- struct{}{}
	if !p.link.full.IsZero() {
		t.Errorf("it has been full since %v", p.link.full)
	}
	<-p.link.writing
	c.Close()
}

// flood is more requests than anybody would have at a time: they are answered, as fast as the answers are taken.
func flood(t *testing.T, _ *Server, base string) {
	c := joined(t, base)
	n := nettest.Scale(5000)
	go func() {
		for i := range n {
			c.say(fmt.Sprintf(`{"id":%d,"op":"echo","body":%d}`, i, i))
		}
	}()
	for i := range n {
		if got, want := c.read(), fmt.Sprintf(`{"id":%d,"body":%d}`, i, i); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	c.Close()
}

// afterGoodbye nothing is answered.
func afterGoodbye(t *testing.T, _ *Server, base string) {
	c := joined(t, base)
	for _, op := range []string{"echo", "ipc.goodbye", "echo", "ipc.goodbye"} {
		c.say(`{"id":3,"op":"` + op + `"}`)
	}
	if a, b, end := c.read(), c.read(), c.read(); a != `{"id":3,"body":null}` || b != `{"id":3}` || end != "" {
		t.Errorf("%s, %s, %s", a, b, end)
	}
	c.Close()
}

// TestAnswers: only the answer that was asked for counts, and none is waited for longer than the context lasts.
func TestAnswers(t *testing.T) {
	base, h := newBase(t), newPrimary(t)
	mustListen(t, ServerConfig{Base: base, Handler: h}, defaultLimits)
	c := joined(t, base)
	p := <-h.joins
	for i := range 100 {
		c.say(fmt.Sprintf(`{"id":%d,"body":"wrong"}`, i))
	}
	c.say(`{"id":1,"op":"echo"}`)
	c.read() // so that nothing is left of what was said before
	go func() {
		c.say(`{"id":77,"body":"wrong"}`)
		c.read()
		c.say(`{"id":78,"body":"wrong"}`)
		c.say(`{"id":1,"body":"right"}`)
		c.say(`{"id":1,"body":"wrong"}`)
	}()
	var got string
	if err := p.Call(t.Context(), "x", nil, &got); err != nil || got != "right" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c.read()
		cancel()
	}()
	if err := p.Call(ctx, "x", nil, &got); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody answers: %v", err)
	}
	c.say(`{"id":2,"body":"late"}`)
	go func() {
		c.read()
		c.say(`{"id":3,"error":"no","code":"full"}`)
	}()
	var remote *RemoteError
	err := p.Call(t.Context(), "x", nil, &got)
	if !errors.As(err, &remote) || *remote != (RemoteError{"full", "no"}) || !errors.Is(err, ErrFull) || got != "right" {
		t.Errorf("%q, %v", got, err)
	}
	go func() {
		c.read()
		c.say(`{"id":4,"body":[]}`)
	}()
	if err := p.Call(t.Context(), "x", nil, &got); err == nil {
		t.Error("an answer of another type is taken")
	}
	go func() {
		c.read()
		c.Close()
	}()
	if err := p.Call(t.Context(), "x", nil, &got); !errors.Is(err, ErrPeerGone) {
		t.Errorf("a peer that hangs up: %v", err)
	}
	if left := await(t, h.left, "the peer leaves"); left != p || !left.Left() {
		t.Errorf("%v", left)
	}
}

// TestHostilePrimary: whatever a primary says, a secondary comes to an end, and keeps nothing.
func TestHostilePrimary(t *testing.T) {
	fds := slices.Repeat([]int{int(os.Stdout.Fd())}, 253)
	good := `{"id":1,"body":{"id":1,"pid":1}}`
	var giveUp func() // has the secondary's call end, and waits until it has
	for _, a := range []struct {
		name  string
		say   func(c raw)
		joins bool
	}{
		{"nothing", func(c raw) {}, false},
		{"garbage", func(c raw) { c.say("x") }, false},
		{"empty", func(c raw) { c.say("", fds...) }, false},
		{"array", func(c raw) { c.say(`{"id":1,"body":[]}`) }, false},
		{"no body", func(c raw) { c.say(`{"id":1}`) }, false},
		{"descriptors", func(c raw) { c.say(good, fds...) }, false},
		{"too few descriptors", func(c raw) { c.say(`{"id":1,"fds":2}`, fds[0]) }, false},
		{"descriptors to nobody", func(c raw) { c.say(`{"id":9,"fds":250}`, fds[:maxFDs]...) }, false},
		{"descriptors with garbage", func(c raw) { c.say(`{"id":1`, fds...) }, false},
		{"descriptors with a request", func(c raw) { c.say(`{"id":9,"op":"echo"}`, fds...); c.say(good) }, true},
		{"large", func(c raw) { c.say(`{"id":1,"body":"`+strings.Repeat("a", maxMessage)+`"}`, fds...) }, false},
		{"goodbye", func(c raw) { // which is for the secondary to say
			c.say(`{"id":1,"op":"ipc.goodbye"}`)
			c.say(`{"id":2,"op":"echo","body":3}`)
			if a, b := c.read(), c.read(); !strings.Contains(a, `"code":"op"`) || b != `{"id":2,"body":3}` {
				t.Errorf("%s, %s", a, b)
			}
			c.say(good)
		}, true},
		{"requests", func(c raw) {
			for i := range 100 {
				c.say(fmt.Sprintf(`{"id":%d,"op":"echo","body":%d}`, i, i))
			}
			c.say(good)
		}, true},
		{"late", func(c raw) {
			c.say(good)
			c.read()
			giveUp()
			c.say(`{"id":2,"fds":250}`, fds[:maxFDs]...)
		}, true},
	} {
		t.Run(a.name, func(t *testing.T) {
			base := newBase(t)
			l, err := runtimedir.Listen(base, "p", SocketName)
			must(t, err)
			defer l.Close()
			before := nettest.Leaks()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			called := make(chan struct{})
			giveUp = func() { cancel(); <-called }
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				c := raw{conn, t}
				c.SetDeadline(time.Now().Add(nettest.Bound(wait)))
				c.read()
				a.say(c)
			})
			c, err := dialAs(base)
			if (err == nil) != a.joins {
				t.Errorf("dial: %v", err)
			}
			if err == nil {
				fds, _ := c.Call(ctx, "x", nil, nil)
				CloseAll(fds)
			}
			close(called)
			if err == nil {
				await(t, c.Done(), "the end is noticed")
				must(t, c.Close())
			}
			wg.Wait()
			before.Check(t)
		})
	}
}

// TestBusy: who is sent away because others are ahead tries again, whether or not it could say anything.
func TestBusy(t *testing.T) {
	base := newBase(t)
	l, err := runtimedir.Listen(base, "p", SocketName)
	must(t, err)
	defer l.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, answer := range []string{"busy early", "busy", "busy early", "good"} {
			conn, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			c := raw{conn, t}
			if answer != "busy early" {
				c.read()
			}
			if answer == "good" {
				c.say(`{"id":1,"body":{"id":9,"pid":1}}`)
				c.read() // goodbye
			} else {
				c.say(`{"id":1,"error":"busy","code":"busy"}`)
			}
			c.Close()
		}
	})
	c, err := dialAs(base)
	must(t, err)
	if c.ID() != 9 {
		t.Errorf("number %d", c.ID())
	}
	must(t, c.Close())
	wg.Wait()
}

// TestMuteHandshake: Dial lasts no longer than its context.
func TestMuteHandshake(t *testing.T) {
	base := newBase(t)
	l, err := runtimedir.Listen(base, "p", SocketName)
	must(t, err)
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			raw{conn, t}.read()
			cancel()
			<-t.Context().Done()
		}
	}()
	if _, err := Dial(ctx, ClientConfig{Base: base, Prefix: "p"}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
