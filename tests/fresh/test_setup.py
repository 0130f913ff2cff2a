"""The set-up of README's two commands on a pristine Debian: what they install is all that builds and tests need."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from aisandbox.builder import host
from tests.runner import programs
from tests.support import fresh, proxy
from tests.support.checkout import copy_checkout
from tests.support.fresh import Fresh

pytestmark = pytest.mark.timeout(1500)
STRANGE = "/home/newcomer/Müllers Würfel/KI sandbox"
"""Where somebody has unpacked the tarball."""
VENV = ".venv/lib/python3.11/site-packages"
HOLD = 'import fcntl, time; lock = open("/var/lib/dpkg/lock-frontend", "w"); fcntl.lockf(lock, 2); time.sleep(6)'
"""Another installation of packages, as `apt` sees it."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as a commit would hold it."""
    folder = tmp_path_factory.mktemp("source") / "aisandbox"
    copy_checkout(folder)
    git = ["git", "-C", str(folder), "-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=Test"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    """Debian with git, make and sudo."""
    folder = tmp_path_factory.mktemp("fresh")
    machine = Fresh(folder, fresh.lower(), host.read())
    machine.prepare()
    yield machine
    shutil.rmtree(folder)


def over(pristine: Fresh, folder: Path) -> Fresh:
    """Another machine with the same past."""
    for name in ("root", "overlay", "merged"):
        (folder / name).mkdir()
    return replace(pristine, folder=folder, lower=f"{pristine.folder / 'root'}:{pristine.lower}")


def exists(root: Path, pattern: str) -> bool:
    return any(root.glob(pattern))


def has_every_program(machine: Fresh, user: str = "root") -> None:
    names = " ".join(sorted(programs.listed()))
    search = "export PATH=$PATH:/usr/sbin:/sbin"
    missing = machine.output(
        f'{search}; for name in {names}; do command -v "$name" >/dev/null || echo "$name"; done', user
    )
    assert missing.split() == []


def test_root_sets_up_a_clone_whatever_interrupted_it(pristine: Fresh, source: Path, tmp_path: Path) -> None:
    machine = over(pristine, tmp_path)
    shutil.copytree(source, tmp_path / "root" / "srv" / "source")
    machine.output("git -c safe.directory='*' clone --quiet /srv/source /root/aisandbox")
    place, command = tmp_path / "root" / "root" / "aisandbox", "cd /root/aisandbox && make dev"
    for started in ("var/lib/apt/lists/lock", "var/lib/dpkg/info/qemu-utils.list", "etc/alternatives/iptables"):
        machine.cut_short("cd /root/aisandbox && make builder", partial(exists, tmp_path / "root", started))
    machine.cut_short(command, (place / ".venv/bin/python").exists)
    assert not (place / VENV / "uv").exists()
    machine.cut_short(command, (place / VENV / "ansible").exists)
    machine.output(command)
    machine.output("apt-get purge -qq scrot")
    waited = machine.run(f"python3 -c '{HOLD}' & sleep 1; {command}")
    assert waited.returncode == 0, waited.stderr
    assert waited.stderr.count("waiting for another installation") == 1
    has_every_program(machine)
    machine.output(
        "cd /root/aisandbox && .venv/bin/python -m aisandbox.builder validate && .venv/bin/ruff check --quiet"
    )
    again = machine.run("cd /root/aisandbox && make builder && make dev")
    assert again.returncode == 0 and "setup:" not in again.stderr, "nothing is left to do"


def test_a_user_sets_up_a_tarball_behind_a_proxy_and_the_unit_tests_pass(
    pristine: Fresh, source: Path, tmp_path: Path
) -> None:
    with proxy.running() as running:
        settings = replace(pristine.settings, proxies={"http_proxy": running.url, "https_proxy": running.url})
        machine = replace(over(pristine, tmp_path), settings=settings, has_names=False)
        machine.write_settings()
        machine.output("useradd --create-home --shell /bin/bash newcomer")
        machine.output("echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/newcomer")
        place = tmp_path / "root" / STRANGE.lstrip("/")
        shutil.copytree(source, place, ignore=shutil.ignore_patterns(".git"))
        machine.output(f"chown -R newcomer:newcomer /home/newcomer && test ! -e '{STRANGE}/.git'")
        machine.install("locales")
        machine.output("localedef -i de_DE -f UTF-8 de_DE.UTF-8")
        inside = f"umask 077; export LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8; cd '{STRANGE}'"
        machine.output(f"{inside}; make builder && make dev", "newcomer")
        assert len(running.hosts) >= 2, "packages of Debian and of Python"
        has_every_program(machine, "newcomer")
        machine.output(f"{inside}; make test-unit", "newcomer")
