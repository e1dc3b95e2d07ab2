module github.com/rtap-project/rtap/bench

go 1.26.0

require (
	github.com/rtap-project/rtap v0.0.0-00010101000000-000000000000
	github.com/rtap-project/rtap/adapters/wireguard v0.0.0-00010101000000-000000000000
	github.com/vishvananda/netlink v1.3.1
	golang.org/x/sys v0.49.0
	golang.zx2c4.com/wireguard v0.0.0-20260522210424-ecfc5a8d5446
)

require (
	github.com/songgao/water v0.0.0-20200317203138-2b4b6d7c09d8 // indirect
	github.com/vishvananda/netns v0.0.5 // indirect
	golang.org/x/crypto v0.37.0 // indirect
	golang.org/x/net v0.39.0 // indirect
	golang.zx2c4.com/wintun v0.0.0-20230126152724-0fa3db229ce2 // indirect
)

replace github.com/rtap-project/rtap => ../

replace github.com/rtap-project/rtap/adapters/wireguard => ../adapters/wireguard
