"""The data volume that the user named: checked, and mounted on the data directory. It is never formatted.

It is mounted in two steps, because the choice is known only once the network is up: the first boot's mount is made by
`aisandbox-volume.service` before anything uses the data directory; later boots repeat it early (`kept`).
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from aisandbox.instance import files, records
from aisandbox.instance.places import Places
from aisandbox.instance.problem import SET, Problem

FILE_SYSTEMS = ("ext4", "xfs")
OPTIONS = "nosuid,nodev"
PATIENCE_S = 10
"""Clouds may attach a volume while the machine starts already."""
MOUNT_TIMEOUT_S = 300
"""A journal that must be replayed takes its time."""
RETRY = "sudo systemctl restart aisandbox-volume"


def device(named: str) -> Path:
    """The block device for a path, `LABEL=` or `UUID=`."""
    tag, equals, value = named.partition("=")
    return Path("/dev/disk", f"by-{tag.lower()}", value) if equals else Path(named)


def mounted(places: Places, named: str) -> bool:
    """Whether the data directory lies on that device."""
    try:
        return places.data.stat().st_dev == device(named).stat().st_rdev
    except OSError:
        return False


def kept(places: Places, named: str | None) -> str:
    """What the next boot is to mount early: the device, once it was found to be good; else nothing."""
    return str(device(named)) if named and mounted(places, named) else ""


def problem(places: Places, named: str | None) -> Problem | None:
    """Why the chosen volume is not in use."""
    if named is None or mounted(places, named):
        return None
    last = files.read_json(places.volume)
    if last and last.get("value") == named:
        found: Problem = records.decode(Problem, last)
        return found
    return _problem(named, "is not mounted yet", f"Mount it, and restart what uses it: {RETRY}")


def mount(places: Places, named: str | None) -> bool:
    """Mount the chosen volume where that is possible and hides nothing; `problem` tells what came of it.

    Returns:
        Whether the data directory has moved.
    """
    if named is None or mounted(places, named):
        files.remove(places.volume)
        return False
    fault = _mount(places, named)
    if fault:
        files.write_json(places.volume, asdict(fault))
    else:
        files.remove(places.volume)
    return fault is None


def _mount(places: Places, named: str) -> Problem | None:
    found = device(named)
    deadline = time.monotonic() + PATIENCE_S
    while not found.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    fault = _unusable(places, named, found)
    if fault:
        return fault
    try:
        if _holds_data(places.data) and not _volume_holds_data(places, found):
            copy = f"sudo mount {found} /mnt && sudo cp --archive {places.data}/. /mnt/ && sudo umount /mnt"
            return _problem(
                named,
                f"is empty, and {places.data} holds data already, which the volume would hide; so it is not mounted",
                f"Copy the data, then start from the volume: {copy} && sudo reboot",
            )
        places.data.mkdir(parents=True, exist_ok=True)
        _run("mount", "-o", OPTIONS, str(found), str(places.data))
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        return _problem(
            named,
            f"cannot be mounted ({said[0] if said else 'no reason given'})",
            f"Check its file system: sudo fsck {found} . Then mount it: {RETRY}",
        )
    return None


def _unusable(places: Places, named: str, found: Path) -> Problem | None:
    """What is wrong with the device, as far as that is seen without mounting it."""
    choose = f"Choose another: {SET} data_volume=DEVICE"
    try:
        status = found.stat()
    except OSError:
        return _problem(
            named,
            f"does not exist ({found})",
            f"Attach the volume, or see what there is: lsblk --fs . Then mount it: {RETRY}",
        )
    if not stat.S_ISBLK(status.st_mode):
        return _problem(named, "is no block device", f"See which there are: lsblk --fs . {choose}")
    places_of = _mount_points(status.st_rdev)
    if places_of:
        return _problem(
            named,
            f"is mounted on {places_of[0]} already",
            f"Unmount it: sudo umount {places_of[0]} && {RETRY} . Or: {choose}",
        )
    if places.data.exists() and os.path.ismount(places.data):
        return _problem(
            named,
            f"is not used, because another volume is mounted on {places.data}",
            "Detach the other one, or: sudo aisandbox configure --unset data_volume",
        )
    kind = _signature(found)
    if kind.get("TYPE") in FILE_SYSTEMS:
        return None
    if "PTTYPE" in kind:
        return _problem(named, "is a disk with partitions", f"Name the partition: lsblk --fs {found} . {choose}")
    has = f"holds {kind['TYPE']}" if "TYPE" in kind else "holds no file system"
    return _problem(
        named,
        f"{has}, not {' or '.join(FILE_SYSTEMS)}, and is never formatted here",
        f"If nothing on it is needed, make one, which erases it: sudo mkfs.ext4 {found} && {RETRY}",
    )


def _problem(named: str, reason: str, fix: str) -> Problem:
    return Problem(option="data_volume", value=named, reason=reason, fix=fix)


def _holds_data(data: Path) -> bool:
    """Whether an instance has lived there: its secrets are made before all else."""
    try:
        return any((data / "secrets").iterdir())
    except FileNotFoundError:
        return False


def _volume_holds_data(places: Places, found: Path) -> bool:
    places.run.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.run) as look:
        _run("mount", "-o", f"ro,noexec,{OPTIONS}", str(found), look)
        try:
            return _holds_data(Path(look))
        finally:
            _run("umount", look)


def _mount_points(number: int) -> list[str]:
    """Where the device with that number is mounted."""
    wanted = f"{os.major(number)}:{os.minor(number)}"
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [line[4] for line in lines if line[2] == wanted]


def _signature(found: Path) -> dict[str, str]:
    """What `blkid` reads on the device itself, such as TYPE and PTTYPE."""
    told = _run("blkid", "--probe", "--output", "export", str(found), check=False)
    return dict(line.split("=", 1) for line in told.splitlines() if "=" in line)


def _run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOUNT_TIMEOUT_S, check=check)
    return done.stdout
