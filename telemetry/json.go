// SPDX-License-Identifier: BSD-3-Clause

package telemetry

import (
	"encoding/json"
	"math"
)

// dict is a JSON object that keeps its order.
type dict []entry

type entry struct {
	name  string
	value any
}

// array is a JSON array.
type array []any

// MarshalJSON is for what lies within another value.
func (d dict) MarshalJSON() ([]byte, error) { return d.fit(math.MaxInt), nil }

// fit is the object, less the entries at its end that would make it longer than room.
func (d dict) fit(room int) []byte {
	return container('{', '}', len(d), room, func(i int) []byte {
		return append(append(marshal(d[i].name), ':'), marshal(d[i].value)...)
	})
}

// fit is the array, cut likewise.
func (a array) fit(room int) []byte {
	return container('[', ']', len(a), room, func(i int) []byte { return marshal(a[i]) })
}

// container puts n elements between two brackets, as many of the first as there is room for.
func container(open, end byte, n, room int, element func(i int) []byte) []byte {
	b := []byte{open}
	for i := range n {
		before := len(b)
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, element(i)...)
		if len(b)+1 > room {
			b = b[:before]
			break
		}
	}
	return append(b, end)
}

// marshal is a value that JSON can say.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte("null")
	}
	return b
}

// encode is a reply of at most limit bytes. As in the C library, a container that does not fit ends
// earlier; what remains is valid JSON. Any other value that does not fit is null.
func encode(command string, value any, limit int) []byte {
	b := append(append([]byte{'{'}, marshal(command)...), ':')
	room := limit - len(b) - 1
	switch v := value.(type) {
	case dict:
		b = append(b, v.fit(room)...)
	case array:
		b = append(b, v.fit(room)...)
	default:
		m := marshal(v)
		if len(m) > room {
			m = []byte("null")
		}
		b = append(b, m...)
	}
	return append(b, '}')
}
