#!/bin/sh
# Lets the ports that the SSH server listens on through the firewall, so that an owner who moves it is not shut out. Runs
# before it starts and when it reads its settings anew. Whatever goes wrong here, the server starts.

rules=$1
ports=$(/usr/sbin/sshd -T | sed -n 's/^listenaddress .*:\([0-9]\{1,5\}\)$/\1/p' | sort -un | paste -sd,)
[ "$ports" ] || exit 0
wanted="# Written when the SSH server starts: the ports on which it listens.
table inet aisandbox {
    chain guarded {
        tcp dport { $ports } accept
    }
}"
[ "$wanted" = "$(cat "$rules" 2>/dev/null)" ] && exit 0
umask 077
echo "$wanted" >"$rules"
# An owner may have switched the firewall off.
! systemctl --quiet is-active nftables || exec nft --file /etc/nftables.conf
