#!/bin/sh
# Run as root on an existing host: prints as JSON what site.yml must know of it. `before` is what the host was like when
# it was looked at first, which /etc/aisandbox/host.json keeps.
set -eu
record=/etc/aisandbox/host.json

whether() { if "$@" >/dev/null 2>&1; then echo true; else echo false; fi; }

has_gpu() {
    for device in /sys/bus/pci/devices/*; do
        [ "$(cat "$device/vendor" 2>/dev/null)" = 0x10de ] || continue
        case "$(cat "$device/class")" in 0x03*) return 0 ;; esac
    done
    return 1
}

if [ ! -e "$record" ]; then
    mkdir -p "$(dirname "$record")"
    servers=$(sed -n 's/^nameserver  *\([^ ]*\).*/\1/p' /etc/resolv.conf | grep -v '^127\.' | tr '\n' ' ' || true)
    printf '{"networkd": %s, "resolved": %s, "cloud_init": %s, "nameservers": "%s"}\n' \
        "$(whether systemctl is-active systemd-networkd)" "$(whether systemctl is-active systemd-resolved)" \
        "$(whether test -e /var/lib/cloud/instance)" "${servers% }" >"$record.new"
    mv "$record.new" "$record"
fi
mkdir -p /run/sshd
# Tells whether the playbook has changed what runs. After an upgrade the folders are links (-H).
installed=$(find -H /opt/aisandbox/lib /opt/aisandbox/templates /etc/systemd/system/*.service -type f ! -name '*.pyc' \
    -exec sha256sum {} + 2>/dev/null | sort | sha256sum | cut -c1-64)
printf '{"login": "%s", "ssh_ports": [%s], "gpu": %s, "installed": "%s", "before": %s}\n' \
    "${SUDO_USER:-$(id -un)}" "$(/usr/sbin/sshd -T | sed -n 's/^port //p' | paste -s -d ,)" "$(whether has_gpu)" "$installed" "$(cat "$record")"
