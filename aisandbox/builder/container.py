"""Bakes one layer inside private namespaces. Run as: `unshare … python -m aisandbox.builder.container JOB.json`.

The overlay mount and every process live in a mount and a PID namespace of their own: when the process that owns them
goes, however it goes, the kernel unmounts and kills all of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from aisandbox.builder import ansible_output, packer_client
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import TOP
from aisandbox.manifest import REPOSITORY

OVERLAY_OPTIONS = "index=off,redirect_dir=off,metacopy=off"
"""Layers are stacked in orders that the kernel has not seen when it wrote them: no shortcuts across layers."""
UNREACHABLE = re.compile(
    r"error sending request|Failed to fetch|dns error|Could not resolve|Could not connect|timed out"
)
NSENTER = REPOSITORY / "ansible" / "enter-container"


@dataclass(frozen=True)
class Job:
    """What to bake where. Paths are strings, so that a job travels as JSON."""

    layer: str
    lower: str
    work: str
    """Directory that gets `root/` (the overlay's upper directory), `overlay/` and `merged/`."""
    log: str
    binds: dict[str, str]
    """Host path to container path, writable; for caches."""
    read_only: list[str]
    variables: dict[str, object]


def enter_namespaces() -> list[str]:
    """Command prefix that gives a command mount and PID namespaces which die with it."""
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]


def environment() -> dict[str, str]:
    """What Packer, Ansible and our modules find their way by."""
    # The venv's bin holds ansible-playbook and uv.
    search = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    ours = {"PATH": search, "AISANDBOX_REPO": str(REPOSITORY), "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **ours, "PACKER_NO_COLOR": "1", "CHECKPOINT_DISABLE": "1"}


def run(job: Job) -> None:
    """Bake the layer of `job` in new namespaces.

    Raises:
        BuildError: provisioning failed; the message names the failed task.
    """
    path = Path(job.work) / "job.json"
    path.write_text(json.dumps(asdict(job)))
    command = [*enter_namespaces(), sys.executable, "-m", "aisandbox.builder.container", str(path)]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)
    path.unlink(missing_ok=True)
    if result.returncode:
        raise _failure(Path(job.log), result.stderr)


def _failure(log: Path, stderr: str) -> BuildError:
    """What a failed bake says to the person: Ansible's own words for the failed task, else our last ones."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    reason = ansible_output.failure(lines) or (stderr.strip().splitlines() or lines or ["no output"])[-1]
    if UNREACHABLE.search(reason):
        return BuildError(
            f"a package registry could not be reached. {reason}",
            "check the network and pip's settings (.venv/bin/pip config list), then repeat: what is baked stays",
        )
    return BuildError(reason, f"less {log}")


@contextmanager
def open_rootfs(job: Job) -> Iterator[Path]:
    """The job's layers and its own upper directory as one root file system, held open by a container.

    Call it inside `enter_namespaces()`. Yields an Ansible inventory whose host `image` is that root file system.
    """
    work = Path(job.work)
    merged, overlay = work / "merged", work / "overlay"
    for directory in (merged, overlay):
        directory.mkdir(exist_ok=True)
    options = f"lowerdir={job.lower},upperdir={work / 'root'},workdir={overlay},{OVERLAY_OPTIONS}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    inventory = work / "inventory.json"
    host = {
        "ansible_connection": "community.general.chroot",
        "ansible_host": str(merged),
        "ansible_chroot_exe": str(NSENTER),
    }
    inventory.write_text(json.dumps({"image": {"hosts": {"rootfs": host}}}))
    with _container(job, merged) as pid:
        os.environ["AISANDBOX_CONTAINER_PID"] = str(pid)
        yield inventory
    for path in job.read_only:
        remove_mountpoint(merged, Path(path))
    subprocess.run(["umount", str(merged)], check=True)
    inventory.unlink()


def remove_mountpoint(root: Path, path: Path) -> None:
    """Remove what systemd-nspawn made to mount `path` on: an empty file or empty directories of the builder."""
    point = root / path.relative_to("/")
    if point.is_file() and point.stat().st_size == 0:
        point.unlink()
    for directory in (point, *point.parents):
        if directory == root or not directory.is_dir() or any(directory.iterdir()):
            break
        directory.rmdir()


@contextmanager
def _container(job: Job, root: Path) -> Iterator[int]:
    """A `systemd-nspawn` container over `root` that only sleeps; yields the PID of its init."""
    binds = [f"--bind={host}:{inside}" for host, inside in job.binds.items()]
    binds += [f"--bind-ro={path}" for path in job.read_only]
    # Where systemd-resolved, as soon as the base layer has installed it, makes /etc/resolv.conf lead.
    binds += ["--bind-ro=/etc/resolv.conf:/run/systemd/resolve/stub-resolv.conf"]
    command = [
        "systemd-nspawn", "--quiet", f"--directory={root}", f"--machine=bake-{job.layer}",
        "--register=no", "--keep-unit", "--as-pid2",
        "--resolv-conf=replace-host", "--timezone=off", "--console=pipe", "--suppress-sync=yes", *binds,
        "/bin/sh", "-c", "echo ready; exec sleep infinity",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    try:
        output = ""
        for line in process.stdout:
            if line.strip() == "ready":
                break
            output += line
        else:
            raise BuildError(f"systemd-nspawn could not open the root file system: {output.strip()}", f"less {job.log}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield int(children[0])
    finally:
        process.kill()
        process.wait()


def _bake(job: Job) -> None:
    variables = Path(job.work) / "vars.json"
    variables.write_text(json.dumps(job.variables))
    with open_rootfs(job) as inventory:
        packer_client.build(
            REPOSITORY / "packer" / "local.pkr.hcl",
            {"layer": job.layer, "inventory": str(inventory), "vars_file": str(variables)},
            Path(job.log),
        )
    variables.unlink()
    if job.layer == TOP:
        _check(job)


def _check(job: Job) -> None:
    """Refuse an image that could not be handed out. The report goes to the log.

    Raises:
        BuildError: what the check found.
    """
    from aisandbox.builder import checking  # it enters our namespaces, too

    work = Path(job.work)
    report = checking.check_layer(f"{work / 'root'}:{job.lower}", work / "merged")
    with Path(job.log).open("a") as log:
        log.write(f"{report.text(width=120)}\n")
    if report.failed:
        raise BuildError(checking.summary(report), f"less {job.log}")


def main() -> None:
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    start = time.monotonic()
    try:
        _bake(job)
    except BuildError as error:
        sys.exit(f"{error} (after {time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
