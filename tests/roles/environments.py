"""What holds for every Python environment of the image. Used by the tests of the roles that make them."""

from __future__ import annotations

import json
import re

from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY

ENVIRONMENTS = f"{manifest.load().paths.opt}/envs"
# Its own: an environment may also show Debian's packages.
LISTING = """
import importlib.metadata, json, sysconfig
found = importlib.metadata.distributions(path=[sysconfig.get_path('purelib')])
print(json.dumps([[package.name, package.version] for package in found]))
"""


def check(host: Host, name: str, lock: str, modules: list[str]) -> None:
    """Versions are exactly those of the lock, modules import, byte code is there, and only root can change it."""
    root = f"{ENVIRONMENTS}/{name}"
    python = f"{root}/bin/python"
    installed = json.loads(host.check_output(f'{python} -c "{LISTING}"'))
    assert {_normal(package): version for package, version in installed} == _locked(lock)
    for module in modules:
        imported = host.run(f"{python} -c 'import {module}'")
        assert imported.succeeded, imported.stderr
    assert host.check_output(f"find {root} \\! -user root -o -perm /022 \\! -type l") == ""
    assert host.check_output(f"find {root} -name '*.cpython-*.pyc' -print -quit") != ""
    assert host.check_output(f"readlink --canonicalize {python}") == "/usr/bin/python3.11"


def _locked(name: str) -> dict[str, str]:
    text = (REPOSITORY / "locks" / f"{name}.txt").read_text()
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^ \\;]+)", text, re.MULTILINE)
    return {_normal(package): version for package, version in pins}


def _normal(package: str) -> str:
    return re.sub(r"[-._]+", "-", package).lower()
