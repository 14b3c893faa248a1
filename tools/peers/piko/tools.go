//go:build tools

// Package tools pins github.com/andydunstall/piko; tools/build-peers.sh builds it.
package tools

import (
	_ "github.com/andydunstall/piko"
)
