// SPDX-License-Identifier: BSD-3-Clause

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// File types as in st_mode (inode(7)).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
)

// cpioWriter writes an archive in the "newc" format, which the kernel unpacks as its initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). Directories above a file are written
// before it, once; everything belongs to root.
type cpioWriter struct {
	w     *bufio.Writer
	dirs  map[string]bool
	inode int
}

func newCPIOWriter(w io.Writer) *cpioWriter {
	return &cpioWriter{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{".": true, "/": true}}
}

// file adds a file. name is its path in the machine.
func (c *cpioWriter) file(name string, perm os.FileMode, body []byte) error {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if err := c.dir(path.Dir(name)); err != nil {
		return err
	}
	return c.entry(name, modeFile|uint32(perm.Perm()), body)
}

// copy adds a file of this machine.
func (c *cpioWriter) copy(name string, perm os.FileMode, source string) error {
	body, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	return c.file(name, perm, body)
}

// dir adds a directory and those above it, unless they are there.
func (c *cpioWriter) dir(name string) error {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if c.dirs[name] || name == "" {
		return nil
	}
	c.dirs[name] = true
	if err := c.dir(path.Dir(name)); err != nil {
		return err
	}
	return c.entry(name, modeDir|0o755, nil)
}

// trailer is the name of an archive's last entry.
const trailer = "TRAILER!!!"

func (c *cpioWriter) close() error {
	if err := c.entry(trailer, 0, nil); err != nil {
		return err
	}
	return c.w.Flush()
}

// entry writes a header of 110 bytes, the name with a NUL, and the content; name and content are padded so
// that what follows starts at a multiple of four bytes. The writer's error is sticky: one check will do.
func (c *cpioWriter) entry(name string, mode uint32, body []byte) error {
	c.inode++
	const links, noID = 1, 0
	fmt.Fprintf(c.w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.inode, mode, noID, noID, links, 0, len(body), 0, 0, 0, 0, len(name)+1, 0)
	c.w.WriteString(name)
	c.pad(1, 110+len(name)+1)
	c.w.Write(body)
	_, err := c.pad(0, len(body))
	return err
}

// pad writes least NUL bytes, and as many more as fill up size to a multiple of four.
func (c *cpioWriter) pad(least, size int) (int, error) {
	return c.w.Write(make([]byte, least+(4-size%4)%4))
}
