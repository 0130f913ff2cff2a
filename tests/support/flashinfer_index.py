"""A stand-in for FlashInfer's package index: its layout (PEP 503, with digests), real wheels, next to nothing in them.

`flashinfer-cubin` lies at the root, `flashinfer-jit-cache` and its providers, one for each GPU generation, in a folder
by CUDA's version. What the packages say of themselves is what flashinfer-python asks of them (flashinfer/jit/env.py).
As a program: `flashinfer_index.py FOLDER VERSION LABEL`.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

CUBIN = """
from pathlib import Path

__version__ = "{version}"


def get_cubin_dir():
    return str(Path(__file__).parent / "cubins")
"""
SHIM = """
import importlib

__version__ = "{version}"


def get_jit_cache_providers():
    return tuple(importlib.import_module(name).PROVIDER for name in {providers})
"""
PROVIDER = """
from pathlib import Path
from types import SimpleNamespace

PROVIDER = SimpleNamespace(
    provider_id="{tag}", distribution="flashinfer-jit-cache-{tag}", version="{version}",
    jit_cache_dir=Path(__file__).parent, cuda_architectures={{"{tag}"}}, modules=set(),
)
"""
TAGS = ("sm80", "sm90a")


def build(root: Path, version: str, label: str) -> Path:
    """Make the index for one version and one label of CUDA, such as cu130; returns its root."""
    _add(root, "flashinfer-cubin", version, "py3-none-any", CUBIN.format(version=version), [])
    local = f"{version}+{label}"
    modules = tuple(f"flashinfer_jit_cache_{tag}" for tag in TAGS)
    requires = [f"flashinfer-jit-cache-{tag}=={local}" for tag in TAGS]
    platform = "cp39-abi3-manylinux_2_28_x86_64"
    shim = SHIM.format(version=local, providers=modules)
    _add(root / label, "flashinfer-jit-cache", local, platform, shim, requires)
    for tag in TAGS:
        text = PROVIDER.format(tag=tag, version=local)
        _add(root / label, f"flashinfer-jit-cache-{tag}", local, platform, text, [])
    _lock(root)
    return root


def _lock(root: Path) -> None:
    """Write lock.txt, as `make lock ONLY=flashinfer-cuda` has it, and wrong.txt with other digests."""
    lines = []
    for wheel in sorted(root.rglob("*.whl")):
        name, version, _ = wheel.name.split("-", 2)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        lines.append(f"{name.replace('_', '-')}=={version} \\\n    --hash=sha256:{digest}\n")
    (root / "lock.txt").write_text("".join(lines))
    (root / "wrong.txt").write_text("".join(line[:-9] + "00000000\n" for line in lines))


def main() -> None:
    build(Path(sys.argv[1]), *sys.argv[2:4])


def _add(index: Path, name: str, version: str, tags: str, code: str, requires: list[str]) -> None:
    """One wheel with one package, and its page."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{module}/__init__.py": code.lstrip(),
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {line}\n" for line in requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tags}\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    folder = index / name
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{module}-{version}-{tags}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    # As on the real one: a + of the version is quoted in the address.
    address = f"{wheel.name.replace('+', '%2B')}#sha256={digest}"
    (folder / "index.html").write_text(f'<!DOCTYPE html>\n<a href="{address}">{wheel.name}</a><br>\n')


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
