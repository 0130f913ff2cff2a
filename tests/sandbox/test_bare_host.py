"""The server as a package of its own, as on a bare host."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from aisandbox.manifest import REPOSITORY


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    # Setuptools writes beside what it builds.
    shutil.copytree(REPOSITORY / "sandbox_api", source / "sandbox_api", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "locks").mkdir()
    shutil.copy(REPOSITORY / "locks" / "sandbox.in", source / "locks")
    shutil.copy(REPOSITORY / "pyproject.toml", source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("sandbox_api-*.whl")
    with zipfile.ZipFile(wheel) as files:
        packed = set(files.namelist())
        entry = next(files.read(name).decode() for name in packed if name.endswith("entry_points.txt"))
    kept = {str(file.relative_to(source)) for file in (source / "sandbox_api").rglob("*") if file.is_file()}
    assert kept <= packed
    assert not [name for name in packed if not name.startswith(("sandbox_api/", "sandbox_api-"))]
    assert "sandbox-api = sandbox_api.__main__:main" in entry
