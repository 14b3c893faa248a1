#!/bin/sh
# Install what the integration tests talk to and this machine lacks. Says what is missing and why it could not be installed;
# the tests that need it then fail, naming it: nothing is skipped silently.
set -eu

missing=''
need() { # need COMMAND PACKAGE
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need nginx nginx-light
need redis-server redis-server
need ip iproute2
need nft nftables
need iptables iptables
need curl curl
need wrk wrk
need openssl openssl
need chromium chromium
need chromedriver chromium-driver

[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "test-deps: missing:$missing. This is no Debian or Ubuntu machine: install them with its own package tool." >&2
    exit 1
fi
as_root=''
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        echo "test-deps: missing:$missing. Run: sudo apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    as_root='sudo -n'
fi
echo "test-deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# A fresh nginx or redis package starts a service on a fixed port; the tests start their own, on free ports.
policy=/usr/sbin/policy-rc.d
made_policy=''
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
    made_policy=yes
fi
trap '[ -z "$made_policy" ] || $as_root rm -f "$policy"' EXIT INT TERM
# shellcheck disable=SC2086
if ! $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; then
    $as_root apt-get update -qq
    $as_root apt-get install -y -qq --no-install-recommends $missing
fi
