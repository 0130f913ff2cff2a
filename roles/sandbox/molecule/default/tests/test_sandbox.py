"""The sandbox's server: it starts from its own environment, at once, and leaks nothing of it."""

from __future__ import annotations

from testinfra.host import Host

from aisandbox import manifest

OPT = manifest.load().paths.opt
SERVE = """
set -eu
cd "$(mktemp -d)" && chmod 777 .
export HOME=$PWD SANDBOX_ROOT=$PWD SANDBOX_PORT=18080 SANDBOX_PYTHON=%s/envs/workbench/bin/python
setpriv --reuid 65534 --regid 65534 --clear-groups sandbox-api >log 2>&1 &
curl --silent --fail --retry 50 --retry-delay 0 --retry-connrefused http://127.0.0.1:18080/health
curl --silent --fail --json '{"command": "python -c \\"import sys; print(sys.path)\\""}' http://127.0.0.1:18080/v1/shell/exec
kill $!
"""


def test_the_server_answers(host: Host) -> None:
    served = host.run(SERVE % OPT)
    assert served.succeeded, served.stdout + served.stderr
    assert "alive" in served.stdout


def test_commands_do_not_see_the_servers_code(host: Host) -> None:
    assert f"{OPT}/lib" not in host.run(SERVE % OPT).stdout


def test_byte_code_is_there(host: Host) -> None:
    sources = host.check_output(f"find {OPT}/lib/sandbox_api -name '*.py' -printf x | wc --chars")
    compiled = host.check_output(f"find {OPT}/lib/sandbox_api -name '*.pyc' -printf x | wc --chars")
    assert sources == compiled
    assert host.check_output(f"find {OPT}/lib/sandbox_api \\! -user root -o -perm /022") == ""
