//go:build tools

// Package tools pins github.com/tsenart/vegeta/v12; tools/build-peers.sh builds it.
package tools

import (
	_ "github.com/tsenart/vegeta/v12"
)
