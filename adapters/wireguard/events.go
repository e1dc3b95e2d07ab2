// SPDX-License-Identifier: BSD-3-Clause

package wireguard

import (
	"golang.zx2c4.com/wireguard/tun"

	"github.com/rtap-project/rtap"
)

// events turns what happens to the interface into wireguard-go's words.
type events struct {
	out  chan tun.Event
	stop chan struct{}
	sub  *rtap.Subscription
	done chan struct{}
}

// init makes the channel, which is there from the beginning.
func (e *events) init() {
	e.out, e.stop, e.done = make(chan tun.Event, 8), make(chan struct{}), make(chan struct{})
}

// open starts listening. It is called once at most. An interface that was there before may be up.
func (e *events) open(port *rtap.Device) error {
	e.sub = port.Events()
	link, err := port.Link()
	if link.Running {
		e.out <- tun.EventUp // there is room
	}
	go e.run()
	return err
}

func (e *events) run() {
	defer close(e.done)
	for ev := range e.sub.C {
		if said := translate(ev); said != 0 && !e.say(said) {
			return
		}
	}
}

// say is false when nobody listens any more.
func (e *events) say(said tun.Event) bool {
	select {
	case e.out <- said:
		return true
	case <-e.stop:
		return false
	}
}

// translate is what ev means to wireguard-go: bits, as tun.Event is.
func translate(ev rtap.Event) (said tun.Event) {
	before, after := ev.Before, ev.After
	switch {
	case !before.Running && after.Running:
		said |= tun.EventUp
	case before.Running && !after.Running: // after is empty if it was deleted
		said |= tun.EventDown
	}
	if before.MTU != after.MTU && ev.Changed&rtap.ChangeRemoved == 0 {
		said |= tun.EventMTUUpdate
	}
	return said
}

// close ends listening, and closes the channel.
func (e *events) close() {
	close(e.stop)
	if e.sub != nil {
		e.sub.Close()
		<-e.done
	}
	close(e.out)
}

// Events is a channel of what happens to the interface, whoever makes it happen: tun.EventUp and tun.EventDown when packets
// begin or cease to flow, deletion included, tun.EventMTUUpdate. The values are bits, of which one event may have
// several. Nothing is lost to a slow reader. Close closes the channel.
func (d *Device) Events() <-chan tun.Event { return d.events.out }
