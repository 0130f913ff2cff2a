"""Our Python on the target: the files named, nothing of the builder's, readable to all and writable to root."""

from __future__ import annotations

from testinfra.host import Host

from aisandbox import manifest
from aisandbox.manifest import REPOSITORY

LIBRARY = f"{manifest.load().paths.opt}/lib"


def test_exactly_the_named_files_arrive(host: Host) -> None:
    files = host.check_output(f"cd {LIBRARY} && find . -type f -printf '%P\\n'").split()
    modules = [path.relative_to(REPOSITORY) for path in (REPOSITORY / "aisandbox" / "instance").rglob("*")]
    expected = {str(path) for path in modules if "__pycache__" not in path.parts and (REPOSITORY / path).is_file()}
    assert set(files) == expected | {"aisandbox/__init__.py", "aisandbox/manifest.py", "marketplace.yaml"}


def test_they_belong_to_root_and_only_root_writes_them(host: Host) -> None:
    assert host.check_output(f"find {LIBRARY} \\! -user root -o \\! -group root -o -perm /022") == ""
    assert host.check_output(f"find {LIBRARY} -type f \\! -perm -444") == ""


def test_they_are_python_of_the_image(host: Host) -> None:
    compiled = host.run(f"cp -r {LIBRARY} /tmp/lib && python3 -m compileall -q /tmp/lib")
    assert compiled.succeeded, compiled.stdout
