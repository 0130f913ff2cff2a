"""The Python environments of the sandbox, Node.js beside Python, and the libraries of its pages."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY
from tests.roles import environments

OPT = manifest.load().paths.opt
BIN = f"{OPT}/envs/workbench/bin"


def test_the_servers_environment_is_the_locked_one(host: Host) -> None:
    environments.check(host, "sandbox", "sandbox", ["fastapi", "uvicorn", "playwright", "mcp", "zmq"])


def test_the_users_environment_is_the_locked_one(host: Host) -> None:
    environments.check(
        host, "workbench", "workbench", ["ipykernel", "jupyterlab", "numpy", "pandas", "matplotlib", "pip"]
    )


def test_users_can_install_for_themselves(host: Host) -> None:
    """pip refuses `--user` in an environment that does not see what it installs."""
    seen = host.check_output(f"HOME=/tmp/home {BIN}/python -c 'import site; print(site.ENABLE_USER_SITE)'")
    assert seen == "True"


@pytest.mark.parametrize("program", ["node", "npm", "npx"])
def test_node_stands_beside_python(host: Host, program: str) -> None:
    ran = host.run(f"PATH={BIN}:/usr/bin:/bin {program} --version")
    assert ran.succeeded, ran.stderr


def test_the_pages_libraries_are_the_locked_ones(host: Host) -> None:
    wanted = json.loads((REPOSITORY / "locks" / "web" / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        package = json.loads(host.file(f"{OPT}/web/node_modules/{name}/package.json").content_string)
        assert package["version"] == version
    assert host.check_output(f"find {OPT}/web \\! -user root -o -perm /022 \\! -type l") == ""
