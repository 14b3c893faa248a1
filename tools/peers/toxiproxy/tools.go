//go:build tools

// Package tools pins github.com/Shopify/toxiproxy/v2; tools/build-peers.sh builds it.
package tools

import (
	_ "github.com/Shopify/toxiproxy/v2/cmd/server"
)
