#!/usr/bin/env bash
# Installs the Debian packages of the test bed of a fleet (tests/fleet) that are missing, and starts none of their services.
# The first line that it prints names all of them.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(iproute2 nftables haproxy redis-server datefudge util-linux postgresql)
echo "the test bed of a fleet needs the Debian packages ${packages[*]}"
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; there is no apt-get to install them with" >&2
    exit 0
fi
echo "installing ${missing[*]}"
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
$sudo apt-get update -qq
# PostgreSQL's own cluster is not wanted, and no server that starts by itself: each test starts its own.
$sudo mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
made=
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod +x /usr/sbin/policy-rc.d
    made=1
fi
trap '[ -z "$made" ] || $sudo rm -f /usr/sbin/policy-rc.d' EXIT
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${missing[@]}"
