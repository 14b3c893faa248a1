//go:build tools

// Package tools pins github.com/fatedier/frp; tools/build-peers.sh builds it.
package tools

import (
	_ "github.com/fatedier/frp/cmd/frpc"
	_ "github.com/fatedier/frp/cmd/frps"
)
