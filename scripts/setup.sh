#!/bin/sh
# Sets up the host: Debian packages and the Python environment in .venv. Safe to repeat, also after an interruption;
# does nothing when up to date.
#   scripts/setup.sh [builder|container|dev]
# Lists of packages and locks are words on purpose.
# shellcheck disable=SC2086
set -eu
profile=${1:-builder}
cd "$(dirname "$0")/.."
# What is installed here runs as root, too, and as users of the tests.
umask 022

packages="packer mmdebstrap systemd-container python3-venv iptables iproute2 openssh-client ca-certificates zstd mtools dosfstools fdisk e2fsprogs qemu-utils minisign"
locks="locks/builder.txt"
if [ "$profile" != builder ]; then
    packages="$packages podman runc containernetworking-plugins"
fi
if [ "$profile" = dev ]; then
    packages="$packages qemu-system-x86 ovmf chromium shellcheck nginx-light certbot strace gnupg gcc libc6-dev curl procps dnsmasq-base tinyproxy-bin"
    packages="$packages tigervnc-standalone-server openbox novnc xdotool x11-xserver-utils xclip scrot ffmpeg ripgrep nftables espeak-ng"
    locks="$locks locks/dev.txt"
fi

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $1"; say "  fix: $2"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo -- "$@"
    else fail "needs root, and sudo is not installed" "run as root, or: su -c 'apt-get install sudo'"
    fi
}

# Debian's timers, or somebody else, may be installing: on a new cloud instance they do so for its first minutes.
apt() {
    left=600
    until errors=$(as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 LC_ALL=C apt-get -qq "$@" 2>&1 >/dev/null); do
        case $errors in
            *"Could not get lock"*) [ "$left" -gt 0 ] || { say "$errors"; return 1; } ;;
            *) say "$errors"; return 1 ;;
        esac
        [ "$left" -lt 600 ] || say "setup: waiting for another installation of packages to end"
        left=$((left - 2))
        sleep 2
    done
}

missing=""
for package in $packages; do
    dpkg-query --show --showformat '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null || fail "this is not a Debian system (no apt-get)" "use Debian 12, or install yourself:$missing"
    say "setup: installing Debian packages:$missing"
    # An interrupted installation leaves packages unpacked; apt-get refuses to go on from there. Some may still lack
    # what they need: apt-get brings it, and configures them.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 dpkg --configure -a >/dev/null 2>&1 || true
    apt update || fail "the package lists could not be fetched" "check the network and /etc/apt/sources.list, then repeat"
    apt --fix-broken install -y --no-install-recommends \
        || fail "packages of an interrupted installation could not be mended" "apt-get --fix-broken install"
    # Services of these packages (nginx) are only started by us, in our own folders and namespaces.
    apt install -y --no-install-recommends $missing \
        || fail "packages could not be installed:$missing" "apt-get install$missing"
fi

# Debian's own Python: the image's version, and there on every Debian 12. The folder counts, as programs name it.
stamps=.venv/.installed
stamp() { printf '%s/%s' "$stamps" "$({ pwd; cat locks/uv.txt "$@"; } | sha256sum | cut -c1-16)"; }
[ -e "$(stamp $locks)" ] && exit 0
say "setup: Python environment (.venv)"
# Without a stamp, an installation was interrupted: nothing of it can be trusted.
if [ -z "$(ls "$stamps" 2>/dev/null)" ] || ! .venv/bin/pip --version >/dev/null 2>&1; then
    rm -rf .venv
    /usr/bin/python3 -m venv .venv || fail "the Python environment could not be made" "see the message above, then repeat"
    mkdir "$stamps"
fi
rm -f "$stamps"/*
.venv/bin/pip install --quiet --require-hashes -r locks/uv.txt \
    || fail "uv could not be installed" "check pip's settings: .venv/bin/pip config list"
# The locks are complete, overrides included: nothing is resolved again (--no-deps).
requirements=""
for lock in $locks; do requirements="$requirements -r $lock"; done
.venv/bin/python -m aisandbox.builder.host .venv/bin/uv pip install --quiet --python .venv/bin/python \
    --no-deps --require-hashes $requirements \
    || fail "Python packages could not be installed" "see the message above, then repeat"
# The locks of a profile hold those of the profiles before it.
touch "$(stamp locks/builder.txt)" "$(stamp $locks)"
