#!/usr/bin/env bash
# Makes Debian packages available: to the machine if we may, else unpacked below a folder of our own.
#
#   debian.sh PREFIX FILE=PACKAGE …
#
# FILE, a path without its leading slash, shows that PACKAGE is there, on the machine or below PREFIX;
# a `*` in it stands for the machine's multi-arch triplet. SETUP_NO_ROOT=1 unpacks even for root.
set -euo pipefail

prefix=$1
shift

present() { # does any file match the pattern, on the machine or below the prefix?
    compgen -G "/$1" >/dev/null || compgen -G "$prefix/$1" >/dev/null
}

missing=()
for pair in "$@"; do
    present "${pair%%=*}" || missing+=("${pair#*=}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "setup: this machine has no apt-get. Install what these Debian packages hold, then try again:" \
        "${missing[*]}" >&2
    exit 1
fi

if [ "$(id -u)" -eq 0 ] && [ -z "${SETUP_NO_ROOT:-}" ]; then
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get install -y -qq --no-install-recommends "${missing[@]}")
    # The machine's package lists may be absent or old: then fetch them and try once more.
    "${install[@]}" >/dev/null 2>&1 || { apt-get update -qq && "${install[@]}" >/dev/null; }
    exit 0
fi

echo "setup: unpacking ${missing[*]} into $prefix"
mkdir -p "$prefix" && prefix=$(cd "$prefix" && pwd)
work=$prefix/.apt
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
apt=(-qq -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
apt-get "${apt[@]}" update
(cd "$work/debs" && apt-get "${apt[@]}" download "${missing[@]}")
for package in "$work"/debs/*.deb; do
    dpkg -x "$package" "$prefix"
done
rm -rf "$work"
