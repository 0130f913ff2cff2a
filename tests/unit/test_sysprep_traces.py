"""One loop finds what must not be in an image; a root file system and a sealed machine both use it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import jinja2

from aisandbox.builder import roles


def rendered(template: str, patterns: list[str]) -> str:
    """The template as Ansible's module renders it."""
    environment = jinja2.Environment(  # noqa: S701 - shell, from our own files
        loader=jinja2.FileSystemLoader(roles.ROLES / "sysprep" / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(sysprep_remove=patterns)


def test_it_finds_what_is_there_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "with blank").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    script = rendered("traces.j2", [f"{tmp_path}/*", f"{tmp_path}/.[!.]*", f"{tmp_path}/absent"])
    found = subprocess.run(["/bin/sh", "-euc", script], capture_output=True, text=True, check=True).stdout
    assert set(found.splitlines()) == {str(tmp_path / name) for name in ("with blank", ".hidden", "dangling")}


def test_what_seals_a_machine_is_shell_and_removes_it(tmp_path: Path) -> None:
    (tmp_path / "with blank").touch()
    script = rendered("seal.j2", [f"{tmp_path}/*"])
    subprocess.run(["/bin/sh", "-n", "-c", script], check=True)
    start = script.index("# What is mounted cannot go")
    subprocess.run(["/bin/sh", "-euc", script[start : script.index("cp /usr/share")]], check=True)
    assert list(tmp_path.iterdir()) == []


def test_no_other_file_of_the_role_has_the_loop() -> None:
    named = [path for path in (roles.ROLES / "sysprep").glob("t*/*") if "sysprep_remove" in path.read_text()]
    assert [path.name for path in named] == ["traces.j2"]
