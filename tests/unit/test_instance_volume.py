"""The data volume, with real block devices: loop devices, mounted in mount namespaces that end with each test."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aisandbox.instance.choose import configure
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.keep import volume
from aisandbox.instance.places import Places
from aisandbox.instance.run.rendering import fill
from aisandbox.manifest import REPOSITORY
from tests.support import appliance
from tests.support.appliance import MANIFEST

Attach = Callable[..., Path]
ACCOUNTS = {"vllm": 970, "open-webui": 971, "sandbox": 972}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = appliance.make(tmp_path / "root")
    made.data.mkdir(parents=True)
    return made


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Attach a disk, prepared by this command (its last argument is the disk), and return its device."""
    devices: list[str] = []

    def make(*prepare: str) -> Path:
        image = tmp_path / f"disk{len(devices)}"
        with image.open("wb") as disk:
            disk.truncate(32 << 20)
        if prepare:
            subprocess.run([*prepare, image], check=True, capture_output=True)
        attached = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        devices.append(attached.stdout.strip())
        return Path(devices[-1])

    yield make
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def disk(attach: Attach) -> Path:
    return attach("mkfs.ext4", "-q", "-F")


def boot(places: Places, *script: str) -> str:
    """Run these shell commands in a mount namespace, as one boot; `aisandbox` works on the places."""
    command = shlex.join([sys.executable, "-m", "aisandbox.instance", "--root", str(places.root)])
    lines = ["set -eu", f'aisandbox() {{ {command} "$@"; }}', *script]
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]
    done = subprocess.run(apart, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


FIRST_BOOT = ("aisandbox mount-volume", "aisandbox configure --boot")


def early(places: Places) -> str:
    """The command of aisandbox-data.service for these places, as systemd hands it to the shell."""
    return f"{commands(places, 'aisandbox-data.service')[0]} 2>/dev/null"


def kept_back(places: Places) -> str:
    """The last command of aisandbox-volume.service; never on this host's own disk."""
    return f"mountpoint --quiet {places.data}; {commands(places, 'aisandbox-volume.service')[-1]}"


def commands(places: Places, unit: str) -> list[str]:
    paths = MANIFEST.paths.model_copy(update={"etc": places.etc, "data": places.data})
    template = (REPOSITORY / "templates" / "systemd" / f"{unit}.j2").read_text()
    variables = {
        "manifest": MANIFEST.model_copy(update={"paths": paths}),
        "service_accounts": [{"name": name, "id": number} for name, number in ACCOUNTS.items()],
    }
    return re.findall("^ExecStart=(.*)$", fill(template, variables).replace("\\\n", " "), re.MULTILINE)


def where(places: Places) -> str:
    """Shell command that prints the device of the data directory."""
    return f"findmnt --noheadings --output SOURCE,OPTIONS --target {places.data}"


def problem(places: Places) -> str:
    """What `configure` says of the volume."""
    resolved = Deployment.load(places.resolved)
    assert resolved
    return " ".join(f"{found.reason} {found.fix}" for found in resolved.problems if found.option == "data_volume")


def test_data_goes_to_the_chosen_volume_on_every_boot(places: Places, disk: Path) -> None:
    appliance.options(places, f"data_volume: {disk}\n")
    first = boot(places, early(places), *FIRST_BOOT, where(places), f"cat {places.secrets}/admin_password")
    assert first.startswith(f"{disk} ") and "nosuid,nodev" in first
    assert problem(places) == ""
    assert list(places.data.iterdir()) == []  # nothing of it on the root disk
    second = boot(places, early(places), where(places), *FIRST_BOOT, f"cat {places.secrets}/admin_password")
    assert second.split() == first.split()


def test_a_full_disk_has_room_for_the_chats_database(places: Places, disk: Path) -> None:
    """Whoever fills it: the sandbox, or a model that is fetched."""
    appliance.options(places, f"data_volume: {disk}\n")
    keep_back = kept_back(places)

    def write(name: str, size: str) -> str:
        user = ACCOUNTS[name]
        place = f"{places.data}/of-all/{name}"
        return f"setpriv --reuid={user} --regid={user} --clear-groups head -c {size} /dev/zero > {place} || echo {name}"

    chat = write("open-webui", "200K")
    told = boot(
        places, *FIRST_BOOT, keep_back, f"mkdir -m 1777 {places.data}/of-all",
        *(f"touch {places.data}/of-all/{name}" for name in ACCOUNTS),
        write("sandbox", "100M"), write("vllm", "200K"), chat, where(places),
    )  # fmt: skip
    assert told.split()[:2] == ["sandbox", "vllm"]
    assert told.split()[2] == str(disk) and "nosuid,nodev" in told


def test_other_file_systems_are_left_as_they_are(places: Places) -> None:
    told = boot(places, f"mount -t tmpfs none {places.data}", kept_back(places), where(places))
    assert told.split()[0] == "none" and "resuid" not in told


def test_mounting_twice_changes_nothing(places: Places, disk: Path) -> None:
    appliance.options(places, f"data_volume: {disk}\n")
    assert (
        boot(places, *FIRST_BOOT, "aisandbox mount-volume", "grep --count /var/lib/aisandbox /proc/self/mountinfo")
        == "1\n"
    )


def test_a_volume_no_longer_chosen_is_left_out_from_the_next_boot_on(places: Places, disk: Path) -> None:
    appliance.options(places, f"data_volume: {disk}\n")
    boot(places, *FIRST_BOOT)
    assert str(disk) in boot(places, early(places), "aisandbox configure --unset data_volume", where(places))
    assert str(disk) not in boot(places, early(places), *FIRST_BOOT, where(places))


def test_a_volume_that_is_gone_is_said_and_the_root_disk_serves(places: Places, disk: Path) -> None:
    appliance.options(places, f"data_volume: {disk}\n")
    boot(places, *FIRST_BOOT)
    appliance.options(places, "data_volume: /dev/disk/by-id/gone\n")
    boot(places, early(places), *FIRST_BOOT)
    assert "does not exist" in problem(places) and "lsblk" in problem(places)
    assert configure.secrets_of(places)


def test_data_on_the_root_disk_is_not_hidden(places: Places, disk: Path) -> None:
    boot(places, "aisandbox configure --boot")
    before = configure.secrets_of(places)
    appliance.options(places, f"data_volume: {disk}\n")
    assert str(disk) not in boot(places, *FIRST_BOOT, where(places)).splitlines()[-1]
    assert "holds data already" in problem(places)
    assert configure.secrets_of(places) == before
    # The advice, but for the reboot, and with a folder of the test's own in place of /mnt.
    copy = re.search("sudo mount.*(?= && sudo reboot)", problem(places))
    assert copy
    here = places.root / "mnt"
    here.mkdir()
    boot(places, 'sudo() { "$@"; }', copy[0].replace("/mnt", str(here)))
    moved = boot(places, *FIRST_BOOT, where(places), f"cat {places.secrets}/webui_secret_key")
    assert moved.split()[0] == str(disk)
    assert moved.split()[-1] == before["webui_secret_key"]
    assert problem(places) == ""


def test_a_volume_with_data_wins_over_a_root_disk_with_some(places: Places, disk: Path) -> None:
    appliance.options(places, f"data_volume: {disk}\n")
    on_volume = boot(places, *FIRST_BOOT, f"cat {places.secrets}/admin_password")
    (places.etc / "data-volume").unlink()
    boot(places, "aisandbox configure --unset data_volume")
    appliance.options(places, f"data_volume: {disk}\n")
    assert boot(places, *FIRST_BOOT, f"cat {places.secrets}/admin_password") == on_volume


def test_an_empty_disk_is_never_formatted(places: Places, attach: Attach) -> None:
    disk = attach()
    appliance.options(places, f"data_volume: {disk}\n")
    boot(places, *FIRST_BOOT)
    assert "holds no file system" in problem(places) and f"mkfs.ext4 {disk}" in problem(places)
    assert not any(disk.read_bytes())


@pytest.mark.parametrize(
    ("prepare", "reason", "fix"),
    [
        (("mkswap",), "holds swap", "erases"),
        (("mkfs.ext2", "-q", "-F"), "holds ext2", "erases"),
        (("sh", "-c", 'echo ", +" | sfdisk --quiet "$0"'), "partitions", "lsblk"),
    ],
)
def test_what_else_a_disk_holds_is_named(
    places: Places, attach: Attach, prepare: tuple[str, ...], reason: str, fix: str
) -> None:
    disk = attach(*prepare)
    assert not volume.mount(places, str(disk))
    told = volume.problem(places, str(disk))
    assert told and reason in told.reason and fix in told.fix


def test_a_damaged_file_system_is_said_with_mounts_own_words(places: Places, disk: Path) -> None:
    with disk.open("r+b") as device:
        device.seek(4096)
        device.write(os.urandom(4 << 20))
        os.fsync(device.fileno())
    appliance.options(places, f"data_volume: {disk}\n")
    boot(places, *FIRST_BOOT)
    assert "cannot be mounted (mount:" in problem(places) and "fsck" in problem(places)


def test_a_disk_in_use_elsewhere_stays_there(places: Places, disk: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    appliance.options(places, f"data_volume: {disk}\n")
    boot(places, f"mount {disk} {elsewhere}", *FIRST_BOOT)
    assert f"is mounted on {elsewhere} already" in problem(places)


def test_another_volume_on_the_data_directory_stays_there(places: Places, disk: Path, attach: Attach) -> None:
    labelled = attach("mkfs.ext4", "-q", "-F")
    appliance.options(places, f"data_volume: {disk}\n")
    assert str(labelled) in boot(places, f"mount {labelled} {places.data}", *FIRST_BOOT, where(places))
    assert "another volume is mounted" in problem(places)


def test_a_file_is_no_disk(places: Places, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert not volume.mount(places, str(file))
    told = volume.problem(places, str(file))
    assert told and "is no block device" in told.reason


def test_a_change_says_how_it_takes_effect(places: Places, disk: Path) -> None:
    told = volume.problem(places, str(disk))
    assert told and volume.RETRY in told.fix


def test_names_of_devices() -> None:
    assert volume.device("/dev/sdb") == Path("/dev/sdb")
    assert volume.device("LABEL=data") == Path("/dev/disk/by-label/data")
    assert volume.device("UUID=1234-abcd") == Path("/dev/disk/by-uuid/1234-abcd")
