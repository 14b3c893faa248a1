#!/bin/sh
# Builds the programs that benchmarks and fault tests compare or work with, each from its own package at the version
# that tools/peers/<tool> pins, into ${XDG_CACHE_HOME:-~/.cache}/platformctl-tools/<tool>-<version>/.
#
#   tools/build-peers.sh [TOOL…]     build what is missing (all of them by default), print one "<tool> <folder>" line each
#   tools/build-peers.sh --list      print the lines, build nothing
#
# Needs go, and cargo for rathole. A finished folder is never touched again; a second caller waits for the first.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/platformctl-tools"
all="frp chisel rathole vegeta toxiproxy piko"

version_of() {
    if [ "$1" = rathole ]; then
        sed -n 's/^rathole = .*version = "=\([^"]*\)".*/v\1/p' "$here/peers/rathole/Cargo.toml"
    else
        sed -n 's/^require [^ ]* \(v[^ ]*\)$/\1/p' "$here/peers/$1/go.mod"
    fi
}

# go_build TOOL DESTINATION NAME PACKAGE: one program; -buildvcs=false because our commit says nothing about theirs.
go_build() {
    (cd "$here/peers/$1" && GOFLAGS='-buildvcs=false -mod=readonly' go build -trimpath -ldflags '-s -w' -o "$2/$3" "$4")
}

build() {
    case $1 in
        frp)
            go_build frp "$2" frps github.com/fatedier/frp/cmd/frps
            go_build frp "$2" frpc github.com/fatedier/frp/cmd/frpc ;;
        chisel) go_build chisel "$2" chisel github.com/jpillora/chisel ;;
        vegeta) go_build vegeta "$2" vegeta github.com/tsenart/vegeta/v12 ;;
        toxiproxy) go_build toxiproxy "$2" toxiproxy-server github.com/Shopify/toxiproxy/v2/cmd/server ;;
        piko) go_build piko "$2" piko github.com/andydunstall/piko ;;
        rathole)
            CARGO_TARGET_DIR="$2/target" cargo build --quiet --release --locked --manifest-path "$here/peers/rathole/Cargo.toml"
            mv "$2/target/release/rathole" "$2/rathole"
            rm -rf "$2/target" ;;
    esac
}

listing=false
if [ "${1:-}" = --list ]; then
    listing=true
    shift
fi
[ $# -gt 0 ] || set -- $all

mkdir -p "$cache"
for tool in "$@"; do
    case " $all " in
        *" $tool "*) ;;
        *) echo "build-peers: there is no tool $tool here; choose from: $all" >&2; exit 2 ;;
    esac
    version=$(version_of "$tool")
    [ -n "$version" ] || { echo "build-peers: no pinned version found in tools/peers/$tool" >&2; exit 1; }
    folder="$cache/$tool-$version"
    if [ "$listing" = false ] && [ ! -d "$folder" ]; then
        (
            flock 9
            [ ! -d "$folder" ] || exit 0
            echo "building $tool $version" >&2
            partial=$(mktemp -d "$cache/.$tool.XXXXXX")
            trap 'rm -rf "$partial"' EXIT
            chmod 755 "$partial"
            build "$tool" "$partial"
            mv "$partial" "$folder"
        ) 9>"$cache/.$tool.lock"
    fi
    echo "$tool $folder"
done
