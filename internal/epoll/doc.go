// SPDX-License-Identifier: BSD-3-Clause

// Package epoll waits for many descriptors at once, in Go's own poller: the goroutine is parked, and no thread
// is held. A [Set] is an epoll instance (epoll(7)), itself a descriptor that Go's poller, or a program's own
// epoll, waits for.
//
// What is in a Set may come and go at any moment. That is what os.File does not offer: it puts a descriptor into
// Go's poller for good, and every packet that arrives then wakes a thread, also while the program polls.
package epoll
