module github.com/rtap-project/rtap/dpdk

go 1.26.0

require github.com/rtap-project/rtap v0.0.0

require golang.org/x/sys v0.49.0 // indirect

replace github.com/rtap-project/rtap => ../
