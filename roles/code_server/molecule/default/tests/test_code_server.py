"""VS Code in the browser: the locked version, and a server that answers."""

from __future__ import annotations

import json

from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY

HOME = f"{manifest.load().paths.opt}/code-server"

# Starts it as a user on a unix socket in a folder of its own, asks for its health, its page and a search of a file.
SERVE = f"""
set -eu
cd "$(mktemp -d)" && chmod 777 .
export HOME=$PWD
places="--user-data-dir d --extensions-dir e"
setpriv --reuid 65534 --regid 65534 --clear-groups code-server --auth none --socket s $places . >log 2>&1 &
for _ in $(seq 100); do [ ! -S s ] || break; sleep 0.1; done
curl --silent --fail --retry 5 --retry-connrefused --unix-socket s http://x/healthz >/dev/null
curl --silent --fail --location --unix-socket s http://x/ | grep --only-matching --max-count=1 code-server
kill $!
{HOME}/node_modules/code-server/lib/vscode/node_modules/@vscode/ripgrep-universal/bin/linux-x64/rg --version | head -1
"""


def test_the_version_is_the_locked_one(host: Host) -> None:
    wanted = json.loads((REPOSITORY / "locks" / "code-server" / "package.json").read_text())["dependencies"][
        "code-server"
    ]
    assert host.check_output("HOME=/tmp code-server --version | tail -1").startswith(f"{wanted} ")


def test_the_lock_names_no_host() -> None:
    lock = json.loads((REPOSITORY / "locks" / "code-server" / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
    assert [name for name, entry in packages.items() if "integrity" not in entry and not entry.get("inBundle")] == []


def test_it_serves_its_page(host: Host) -> None:
    served = host.run(SERVE)
    assert served.succeeded, served.stdout + served.stderr
    assert "code-server" in served.stdout
    assert "ripgrep" in served.stdout


def test_only_root_can_change_it(host: Host) -> None:
    assert host.check_output(f"find {HOME} \\! -type l \\( \\! -user root -o -perm /022 \\) -print -quit") == ""
