"""Bakes the image: missing layers only, independent ones side by side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder import ansible_output, container, host, kernels, packer_client
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import TOP, Layer, Store, cache_directory, load
from aisandbox.builder.progress import Phases

NEEDED_GIB = {"cpu": 12, "cuda": 40}
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "unshare": "util-linux", "packer": "packer"}
MINIMUM_ANSIBLE = (2, 16)


def preflight(flavour: str) -> None:
    """Check what a bake needs before it spends a minute.

    Raises:
        BuildError: not root, a tool is missing or too old, or the disk is too full.
    """
    if os.geteuid() != 0:
        raise BuildError(
            "baking needs root (it mounts overlays and starts containers)", "run it through sudo: sudo make up"
        )
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            raise BuildError(f"{tool} is not installed", f"scripts/setup.sh builder   (or: apt-get install {package})")
    packer_client.version()
    ansible = Path(sys.executable).with_name("ansible-playbook")
    if not ansible.exists():
        raise BuildError(f"Ansible is not installed in {ansible.parent.parent}", "scripts/setup.sh builder")
    found = subprocess.run([ansible, "--version"], capture_output=True, text=True, check=False).stdout
    version = found.split("core ", 1)[-1].split("]", 1)[0]
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < MINIMUM_ANSIBLE:
        wanted = ".".join(map(str, MINIMUM_ANSIBLE))
        raise BuildError(f"Ansible core {version} is too old; {wanted} or later is needed", "scripts/setup.sh builder")
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free / 2**30
    if free < NEEDED_GIB[flavour]:
        raise BuildError(
            f"{cache} has {free:.1f} GiB free; a {flavour} bake needs {NEEDED_GIB[flavour]} GiB",
            "make clean-cache, or set AISANDBOX_CACHE to a folder on a larger disk",
        )


def bake(flavour: str, phases: Phases, until: str = TOP) -> Layer:
    """Bake every missing layer below and including `until`; returns that layer.

    Raises:
        BuildError: a layer could not be baked. The others that were under way are finished and kept.
    """
    layers = load(flavour)
    store = Store()
    top = layers[until]
    missing = [layer for layer in top.stack if not store.has(layer)]
    for layer in top.stack:
        if layer not in missing:
            store.used(layer)
    if not missing:
        phases.note("bake", f"nothing changed, {top.id} is there")
        _warn(top, store, phases)
        return top
    preflight(flavour)
    waiting, running = list(missing), dict[Future[None], Layer]()
    failure: BaseException | None = None
    with ThreadPoolExecutor() as pool:
        # An interrupt from the terminal reaches the children too, and their namespaces go with them.
        while running or (waiting and not failure):
            if not failure:
                for layer in startable(waiting, list(running.values())):
                    waiting.remove(layer)
                    running[pool.submit(_bake_layer, layer, store, phases)] = layer
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                failure = failure or future.exception()
                del running[future]
    if failure:
        raise failure
    store.prune(keep={layer.id for layer in top.stack})
    _warn(top, store, phases)
    return top


def _warn(top: Layer, store: Store, phases: Phases) -> None:
    """Say what the image lacks that a bake goes on without."""
    for layer in top.stack:
        if layer.name == "vllm" and layer.flavour == "cuda" and (text := kernels.missing(store.rootfs(layer))):
            phases.note("WARNING", text)


def startable(waiting: Sequence[Layer], running: Sequence[Layer], cores: int | None = os.cpu_count()) -> list[Layer]:
    """The layers that start now: as many as there are cores, those first on which the longest work waits."""
    unfinished = {layer.name for layer in (*waiting, *running)}

    def work(layer: Layer) -> float:
        return layer.seconds + max((work(other) for other in waiting if layer in other.parents), default=0)

    free = [layer for layer in waiting if not unfinished.intersection(parent.name for parent in layer.parents)]
    return sorted(free, key=work, reverse=True)[: max(0, max(2, cores or 2) - len(running))]


def _bake_layer(layer: Layer, store: Store, phases: Phases) -> None:
    logs = manifest.REPOSITORY / "build" / "log"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{layer.id}.log"
    with store.lock(layer):
        if store.has(layer):
            return
        log.unlink(missing_ok=True)
        start = time.monotonic()
        with phases.phase(f"bake {layer.name}", layer.seconds, lambda: _current_task(log)), store.create(layer) as work:
            if layer.parents:
                container.run(job(layer.name, store.lower_directories(*layer.parents), layer.flavour, work, log))
                _link_packages(work / "apt", cache_directory() / "apt")
            else:
                _bootstrap(layer.packages, work / "root", log)
            if load(layer.flavour)[layer.name].key != layer.key:
                raise BuildError(f"files of layer {layer.name} were changed while it was baked", "repeat the command")
            info = {"name": layer.name, "key": layer.key, "seconds": round(time.monotonic() - start, 1)}
            (work / "layer.json").write_text(json.dumps(info))
            shutil.copy(log, work / "log")


def job(name: str, lower: str, flavour: str, work: Path, log: Path) -> container.Job:
    """A job over the layers `lower` that sees this host's package sources and caches."""
    settings = host.read()
    wheels, modules, packages = cache_directory() / "uv", cache_directory() / "npm", work / "apt"
    wheels.mkdir(exist_ok=True)
    modules.mkdir(exist_ok=True)
    # apt locks the folder that it uses: each job has its own.
    (packages / "partial").mkdir(parents=True)
    _link_packages(cache_directory() / "apt", packages)
    cache, npm_cache = "/run/aisandbox-bake/uv", "/run/aisandbox-bake/npm"
    sources = {"UV_CACHE_DIR": cache}
    return container.Job(
        layer=name,
        lower=lower,
        work=str(work),
        log=str(log),
        binds={str(wheels): cache, str(modules): npm_cache, str(packages): "/var/cache/apt/archives"},
        read_only=list(settings.paths),
        variables={
            "flavour": flavour,
            "image_bake": True,
            # As data: from its file, Ansible would read it anew for each task that names it.
            "manifest": manifest.load().model_dump(mode="json", by_alias=True),
            **settings.mirrors,
            "bake_environment": settings.proxies,
            "bake_uv_environment": {**settings.uv_environment(), **sources},
            "bake_npm_environment": {**settings.npm_environment(), "npm_config_cache": npm_cache},
            "bake_uv_environment_cpu_torch": {**settings.uv_environment(cpu_torch=True), **sources},
        },
    )


def _link_packages(source: Path, target: Path) -> None:
    """Show Debian packages of one folder in another; one that cannot be shown (another disk) is downloaded again."""
    target.mkdir(exist_ok=True)
    for package in source.glob("*.deb"):
        with suppress(OSError):
            os.link(package, target / package.name)


def _bootstrap(packages: Sequence[str], root: Path, log: Path) -> None:
    """Debian's minimal system: no init, which a container has no use for and the layer `machine` brings."""
    release = manifest.load().os.release
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", release, str(root)]
    with log.open("ab") as output:
        # mmdebstrap does not read this host's settings of apt.
        environment = {**os.environ, **host.read().proxies}
        result = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    if result.returncode:
        reason = next(
            (line for line in log.read_text(errors="replace").splitlines() if line.startswith("E:")), "no reason given"
        )
        raise BuildError(
            f"Debian could not be bootstrapped: {reason}",
            "check that the Debian mirror is reachable (curl -I http://deb.debian.org/debian/), then repeat",
        )


def _current_task(log: Path) -> str:
    """The task that Ansible is at, from the end of the log."""
    tail = ansible_output.tail(log)
    if "TASK [" in tail:
        return tail.rsplit("TASK [", 1)[1].split("]", 1)[0]
    return (tail.splitlines() or [""])[-1]
