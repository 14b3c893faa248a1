//go:build tools

// Package tools pins github.com/jpillora/chisel; tools/build-peers.sh builds it.
package tools

import (
	_ "github.com/jpillora/chisel"
)
