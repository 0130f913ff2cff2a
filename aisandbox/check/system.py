"""The operating system, its packages and its services."""

from __future__ import annotations

import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aisandbox.check.keys import SshSetting, ssh_settings
from aisandbox.check.model import Finding, NotCheckedError, Subject, check, entries

RELEASES = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}
"""Those that DigitalOcean takes and that still get security updates."""
UNITS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
SHELLS = {"sh", "dash", "bash"}
OLDEST = {"libssl3": "0.9.8", "libssl3t64": "0.9.8", "python3": "2.6"}
MODULES = ("nvidia-open-kernel-dkms", "nvidia-kernel-open-dkms", "nvidia-kernel-dkms")
DRIVER = ("nvidia-driver-cuda", "libcuda1", "firmware-nvidia-gsp", "nvidia-fabricmanager")
"""What must be of the modules' version."""
SCRIPTS = ("/etc/update-motd.d/*", "/var/lib/cloud/scripts/per-*/*")
BOTH = ("image", "instance")
SSHD = "/etc/ssh/sshd_config"


@check(
    "The release is one that platforms take",
    why="DigitalOcean's script fails on others, and releases without security updates stay vulnerable.",
    fix="bake from a supported release",
    sources=("DigitalOcean 2", "DigitalOcean 3"),
    stages=BOTH,
)
def operating_system(subject: Subject) -> Iterator[Finding]:
    lines = (subject.tree.text("/etc/os-release") or "").splitlines()
    facts = {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}
    if facts.get("VERSION_ID") not in RELEASES.get(facts.get("ID", ""), ()):
        yield Finding("/etc/os-release", f"{facts.get('ID', 'unknown')} {facts.get('VERSION_ID', '')}".strip())


@check(
    "64 bits",
    why="Azure and AWS take no others.",
    fix="bake from an amd64 or arm64 image",
    sources=("Azure 9", "AWS"),
)
def architecture(subject: Subject) -> Iterator[Finding]:
    for path in ("/usr/bin/dash", "/usr/bin/python3"):
        head = (subject.tree.read(path) or b"")[:5]
        if head[:4] == b"\x7fELF" and head[4] != 2:
            yield Finding(path, "is a program of 32 bits")
        elif head[:4] != b"\x7fELF":
            yield Finding(path, "is no program")


@check(
    "cloud-init is there, and on",
    why="It brings the deployer's keys and choice; without it nobody can log in.",
    fix="apt-get install cloud-init; rm /etc/cloud/cloud-init.disabled",
    sources=("DigitalOcean 4", "Vultr"),
)
def cloud_init(subject: Subject) -> Iterator[Finding]:
    if not subject.tree.find("/usr/bin/cloud-init"):
        yield Finding("/usr/bin/cloud-init", "missing")
    elif not any(subject.tree.glob("/etc/systemd/system/cloud-init.target.wants/cloud-final.service")):
        yield Finding("/etc/systemd/system/cloud-init.target.wants", "its last stage is not enabled")
    yield from entries(subject.tree.glob("/etc/cloud/cloud-init.disabled"))
    for entry in subject.tree.glob("/etc/cloud/cloud.cfg", "/etc/cloud/cloud.cfg.d/*"):
        if re.search(r"(?m)^manual_cache_clean:\s*(true|yes|on)", subject.tree.text(entry.path) or "", re.IGNORECASE):
            yield Finding(entry.path, "manual_cache_clean keeps the builder's instance")


@check(
    "A firewall starts with the machine",
    why="What listens by mistake must not be reached.",
    fix="systemctl enable nftables, with rules that drop what comes in",
    sources=("DigitalOcean 5",),
)
def firewall(subject: Subject) -> Iterator[Finding]:
    units = ("nftables.service", "ufw.service", "firewalld.service", "netfilter-persistent.service")
    enabled = [unit for unit in units if any(subject.tree.glob(f"/etc/systemd/system/*.wants/{unit}"))]
    if not enabled:
        yield Finding("/etc/systemd/system", "no firewall is enabled")
    if enabled[:1] == ["nftables.service"]:
        rules = subject.tree.text("/etc/nftables.conf") or ""
        if not re.search(r"hook\s+input\b[^}]*policy\s+drop", rules):
            yield Finding("/etc/nftables.conf", "does not drop what comes in")


@check(
    "No security update is pending",
    why="Every platform refuses, or at least rescans, images with known holes.",
    fix="make clean-cache, then bake again; on a machine: apt-get update && apt-get upgrade",
    sources=("DigitalOcean 6", "AWS", "Azure"),
    stages=BOTH,
)
def security_updates(subject: Subject) -> Iterator[Finding]:
    if not subject.settings.online:
        raise NotCheckedError("package mirrors were not to be asked (--offline)")
    # The lists go to a folder of our own; nothing of the checked system is run or changed.
    with tempfile.TemporaryDirectory(prefix="aisandbox-check-") as name:
        folder = Path(name)
        sources = _sources(subject, folder)
        for part in ("lists/partial", "cache/archives/partial", "etc/preferences.d", "parts", "apt.conf.d"):
            (folder / part).mkdir(parents=True)
        (folder / "status").write_text(subject.tree.text("/var/lib/dpkg/status") or "")
        settings = {
            "Dir::State": folder, "Dir::State::lists": folder / "lists", "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache", "Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": folder / "parts",
            "Dir::Etc::preferences": folder / "none", "Dir::Etc::preferencesparts": folder / "etc" / "preferences.d",
            "Dir::Etc::trusted": folder / "none", "Dir::Etc::trustedparts": _keyrings(subject),
            "APT::Architecture": _architecture(subject), "Acquire::Languages": "none", "Acquire::http::Timeout": 20,
            "Acquire::https::Timeout": 20, "Acquire::Retries": 1, "APT::Sandbox::User": "root",
            "Dir::Etc::main": "/etc/apt/apt.conf",
        }  # fmt: skip
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        told = subject.run(["apt-get", "-q", *options, "update"], 180)
        broken = [line for line in told.splitlines() if line.startswith(("E:", "W:", "Err:"))]
        if broken:
            raise NotCheckedError(f"the package mirrors could not be asked: {broken[0][:200]}")
        told = subject.run(["apt-get", "-q", *options, "--just-print", "--with-new-pkgs", "upgrade"], 60)
    # Inst NAME [OLD] (NEW ORIGIN:RELEASE/SUITE [ARCH])
    for match in re.finditer(r"(?m)^Inst (\S+)(?: \[(\S+)\])? \((\S+) ([^)]*)\)", told):
        if "ecurity" in match[4]:
            yield Finding("/var/lib/dpkg/status", f"{match[1]} {match[2] or ''} -> {match[3]}")


def _sources(subject: Subject, folder: Path) -> Path:
    """The system's package sources, in one file; only those that are fetched from a server."""
    lines = []
    for entry in subject.tree.glob("/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list"):
        for line in subject.tree.lines(entry.path):
            if match := re.match(r"deb (?:\[[^]]*\] )?(https?://[\w.:/~+-]+ [\w./ -]+)$", line):
                lines.append(f"deb {match[1]}")
    if not lines:
        raise NotCheckedError("it names no package sources that can be asked")
    path = folder / "sources.list"
    path.write_text("\n".join(lines) + "\n")
    return path


def _keyrings(subject: Subject) -> Path:
    """Keys of the distribution: this host's where it has some, since what is checked may have been tampered with."""
    ours = Path("/etc/apt/trusted.gpg.d")
    if any(ours.glob("*.asc")) or any(ours.glob("*.gpg")):
        return ours
    return subject.tree.find("/etc/apt/trusted.gpg.d") or ours


def _architecture(subject: Subject) -> str:
    return subject.packages.get("dpkg", {}).get("Architecture", "amd64")


@check(
    "Packages are installed as a whole",
    why="Half of a package is a service that fails on the first boot; apt refuses to work until it is mended.",
    fix="dpkg --configure --pending; apt-get --fix-broken install",
    sources=("stricter than the vendors",),
    stages=BOTH,
)
def package_state(subject: Subject) -> Iterator[Finding]:
    if not subject.packages:
        yield Finding("/var/lib/dpkg/status", "cannot be read, or names no package")
    for name, record in subject.packages.items():
        status = record.get("Status", "")
        if status.split()[1:] not in (["ok", "installed"], ["ok", "config-files"], ["ok", "not-installed"]):
            yield Finding("/var/lib/dpkg/status", f"{name}: {status or 'no status'}")
    yield from entries(subject.tree.glob("/var/lib/dpkg/updates/[0-9]*"), "an unfinished change of packages")


@check(
    "Every package has its licence",
    why="Licences ask that their text goes along with the program; what makes an image small must not drop it.",
    fix="apt-get install --reinstall the package",
    sources=("Google 001",),
)
def licences(subject: Subject) -> Iterator[Finding]:
    for name, record in subject.packages.items():
        if record.get("Status", "").endswith(" installed") and not subject.tree.find(
            f"/usr/share/doc/{name}/copyright"
        ):
            yield Finding(f"/usr/share/doc/{name}/copyright", "missing")


@check(
    "OpenSSL and Python are not ancient",
    why="Azure asks for OpenSSL 0.9.8 and Python 2.6 or later.",
    fix="apt-get install python3 openssl",
    sources=("Azure 6", "Azure 7"),
)
def runtimes(subject: Subject) -> Iterator[Finding]:
    for names in (("libssl3", "libssl3t64"), ("python3",)):
        versions = [(name, version) for name in names if (version := subject.installed(name))]
        if not versions:
            yield Finding("/var/lib/dpkg/status", f"{names[0]} is not installed")
        for name, version in versions:
            if numbers(version) < numbers(OLDEST[name]):
                yield Finding("/var/lib/dpkg/status", f"{name} {version} is older than {OLDEST[name]}")


@check(
    "The kernel can start",
    why="Without its initial RAM disk or its modules it boots into nothing; an upgrade can leave such a one.",
    fix="update-initramfs -c -k VERSION; apt-get purge the kernel that is not whole",
    sources=("GPU: compute-gpu-installation#18",),
)
def kernels(subject: Subject) -> Iterator[Finding]:
    found = [entry.path.rpartition("/vmlinuz-")[2] for entry in subject.tree.glob("/boot/vmlinuz-*")]
    if not found:
        yield Finding("/boot", "has no kernel")
    for version in found:
        if not subject.tree.find(f"/boot/initrd.img-{version}"):
            yield Finding(f"/boot/initrd.img-{version}", "missing")
        if not subject.tree.find(f"/lib/modules/{version}/modules.dep"):
            yield Finding(f"/lib/modules/{version}/modules.dep", "missing")


@check(
    "NVIDIA's module is built for every kernel",
    why="Else the driver is compiled at boot, which takes minutes, or there is none.",
    fix="dkms autoinstall -k VERSION",
    sources=("GPU: AgentBaker#8661", "GPU: nvidia-docker#804"),
)
def gpu_modules(subject: Subject) -> Iterator[Finding]:
    if not any(subject.installed(name) for name in MODULES):
        return
    for kernel in subject.tree.glob("/boot/vmlinuz-*"):
        folder = f"/lib/modules/{kernel.path.rpartition('/vmlinuz-')[2]}/updates/dkms"
        if not any(subject.tree.glob(f"{folder}/nvidia.ko*", f"{folder}/nvidia-current.ko*")):
            yield Finding(folder, "has no nvidia module")


@check(
    "Parts of NVIDIA's driver have one version",
    why="Modules, libraries, firmware and fabric manager of different versions refuse each other: CUDA does not start.",
    fix="apt-get install each as NAME=VERSION in the version of the modules; apt-mark hold them",
    sources=("GPU: gpu-operator#544", "GPU: azhpc-images#86"),
    stages=BOTH,
)
def gpu_versions(subject: Subject) -> Iterator[Finding]:
    found = {name: version for name in (*MODULES, *DRIVER) if (version := subject.installed(name))}
    if len({numbers(version) for version in found.values()}) > 1:
        yield Finding("/var/lib/dpkg/status", ", ".join(f"{name} {version}" for name, version in found.items()))


@check(
    "dkms does not start with the machine",
    why="On Debian 13 it makes an ordering cycle with cloud-init, and it costs every boot seconds.",
    fix="systemctl disable dkms",
    sources=("GPU: cloud-init#6487", "GPU: AgentBaker#8647"),
)
def dkms_service(subject: Subject) -> Iterator[Finding]:
    yield from entries(subject.tree.glob("/etc/systemd/system/*.wants/dkms.service"))


@check(
    "Units have no ordering cycle",
    why="systemd leaves out one of the units, be it cloud-init, and says so in the journal only.",
    fix="systemd-analyze verify default.target; never order after cloud-final inside multi-user.target",
    sources=("cloud-init#2728", "Home Assistant OS"),
    stages=BOTH,
)
def unit_cycles(subject: Subject) -> Iterator[Finding]:
    root = [] if subject.settings.live else [f"--root={subject.tree.root}"]
    if not any(subject.tree.find(f"{folder}/multi-user.target") for folder in UNITS):
        raise NotCheckedError("it has no systemd")
    told = subject.run(["systemd-analyze", "verify", "--man=no", *root, "multi-user.target"])
    for line in told.splitlines():
        if "ordering cycle" in line or "Job " in line and "deleted" in line:
            yield Finding("/etc/systemd/system", line.strip())


@check(
    "Every unit that is enabled is there",
    why="A link to a unit that is gone is a service that does not start, without a word.",
    fix="systemctl disable it, or install what brings it",
    sources=("Google 000",),
)
def enabled_units(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.glob("/etc/systemd/system/*.wants/*", "/etc/systemd/system/*.requires/*"):
        name = entry.path.rpartition("/")[2]
        template = re.sub(r"@[^.]*\.", "@.", name)
        if not any(subject.tree.find(f"{folder}/{unit}") for folder in UNITS for unit in (name, template)):
            yield Finding(entry.path)


@check(
    "Nothing is upgraded behind the owner's back",
    why="A driver that is upgraded under a running model ends it; apt at the first boot holds the package lock.",
    fix="systemctl mask apt-daily.timer apt-daily-upgrade.timer",
    sources=("image-builder", "GPU: shine-cluster#50"),
    severity="warning",
)
def package_timers(subject: Subject) -> Iterator[Finding]:
    for name in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        mask = subject.tree.entry(f"/etc/systemd/system/{name}")
        masked = bool(mask and mask.is_link and subject.tree.find(mask.path) in (None, subject.tree.root / "dev/null"))
        if subject.tree.find(f"/usr/lib/systemd/system/{name}") and not masked:
            yield Finding(f"/usr/lib/systemd/system/{name}", "is not masked")


@check(
    "SSH takes keys only",
    why="Passwords are guessed all day long; AWS refuses images that let them in.",
    fix=f"PasswordAuthentication no, KbdInteractiveAuthentication no and PermitEmptyPasswords no in {SSHD}.d/",
    sources=("AWS", "Akamai"),
    stages=BOTH,
)
def ssh_passwords(subject: Subject) -> Iterator[Finding]:
    wanted = {"passwordauthentication": "yes", "kbdinteractiveauthentication": "yes", "permitemptypasswords": "no"}
    for name, default in wanted.items():
        yield from _ssh_not(subject, name, default, "no")


@check(
    "Root cannot log in over SSH",
    why="AWS refuses it. Who logs in is known by an account of their own, and becomes root by sudo.",
    fix=f"PermitRootLogin no in {SSHD}.d/",
    sources=("AWS",),
    stages=BOTH,
)
def ssh_root(subject: Subject) -> Iterator[Finding]:
    yield from _ssh_not(subject, "permitrootlogin", "prohibit-password", "no")


@check(
    "SSH keeps idle connections alive",
    why="Azure's load balancers drop what is silent for four minutes, and its test wants 30 to 235 seconds.",
    fix=f"ClientAliveInterval 180 in {SSHD}.d/",
    sources=("Azure 8",),
)
def ssh_keepalive(subject: Subject) -> Iterator[Finding]:
    for path, value, whom in _ssh(subject, "clientaliveinterval", "0"):
        if not value.isdigit() or not 30 <= int(value) <= 235:
            yield Finding(path, f"clientaliveinterval is {value}{whom}")


@check(
    "SSH starts with the machine, at port 22",
    why="AWS asks for port 22, and it is the only way to an instance whose chat does not come up.",
    fix="systemctl enable ssh",
    sources=("AWS",),
)
def ssh_service(subject: Subject) -> Iterator[Finding]:
    units = ("multi-user.target.wants/ssh.service", "sockets.target.wants/ssh.socket")
    if not any(subject.tree.glob(*(f"/etc/systemd/system/{unit}" for unit in units))):
        yield Finding("/etc/systemd/system", "ssh is not enabled")
    ports = {setting.value: setting.path for setting in ssh_settings(subject) if setting.name == "port"}
    if ports and "22" not in ports:
        yield from (Finding(path, f"port is {value}") for value, path in ports.items())


@check(
    "The owner of an instance can become root",
    why="AWS asks that the operating system can be administered.",
    fix="apt-get install sudo; give cloud-init's default user sudo",
    sources=("AWS",),
)
def administration(subject: Subject) -> Iterator[Finding]:
    entry = subject.tree.entry("/usr/bin/sudo")
    if not entry or not entry.mode & stat.S_ISUID:
        yield Finding("/usr/bin/sudo", "missing, or without its rights")
    config = subject.tree.text("/etc/cloud/cloud.cfg") or ""
    if not re.search(r"default_user:(?s:.*?)\bsudo:", config):
        yield Finding("/etc/cloud/cloud.cfg", "the default user gets no sudo")


@check(
    "Scripts can be run, and read by their shell",
    why="cloud-init and the login message skip a script that is not executable without a word.",
    fix="chmod +x; sh -n FILE shows the mistake",
    sources=("Google 002", "Google 105", "DigitalOcean: marketplace-partners#81"),
)
def scripts(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.glob(*SCRIPTS):
        if entry.is_file and not entry.mode & 0o111:
            yield Finding(entry.path, "is not executable")
    for entry in subject.tree.glob("/usr/local/bin/*", "/usr/local/sbin/*", *SCRIPTS):
        head = (subject.tree.read(entry.path, 2**20) or b"").split(b"\n", 1)[0].decode(errors="replace")
        words = head.removeprefix("#!").split()
        shell = words[0].rpartition("/")[2] if head.startswith("#!") and words else ""
        found = subject.tree.find(entry.path)
        if shell in SHELLS and found and (told := subject.run([shell, "-n", str(found)], 10)):
            yield Finding(entry.path, told.strip().splitlines()[-1].replace(str(found), "")[:200])


@check(
    "The product is whole",
    why="What makes the first boot must be there and on; nothing is downloaded later but the model.",
    fix="bake the layer again",
    sources=("Google 000", "Google 200"),
)
def product(subject: Subject) -> Iterator[Finding]:
    opt = subject.settings.opt
    for path in (
        f"{opt}/release.json",
        f"{opt}/lib/marketplace.yaml",
        f"{opt}/lib/aisandbox",
        "/usr/local/bin/aisandbox",
    ):
        if not subject.tree.find(path):
            yield Finding(path, "missing")
    for unit in ("aisandbox-configure.service", "aisandbox-model.service", "vllm.service", "open-webui.service"):
        if not any(subject.tree.glob(f"/etc/systemd/system/multi-user.target.wants/{unit}")):
            yield Finding("/etc/systemd/system/multi-user.target.wants", f"{unit} is not enabled")


@check(
    "No data of a user",
    why="Chats, models, secrets and rendered settings are made at the first boot; the builder's would be everybody's.",
    fix="rm -r what is in the folder of the data",
    sources=("AWS", "stricter than the vendors"),
)
def user_data(subject: Subject) -> Iterator[Finding]:
    data, etc = subject.settings.data, subject.settings.etc
    yield from entries(subject.tree.files(data))
    yield from entries(subject.tree.glob(f"{etc}/*.env", f"{etc}/*.yaml", f"{etc}/*.json", f"{etc}/secrets/*"))


@check(
    "One file system, of a kind that platforms take",
    why="Azure takes one root partition, AWS a few kinds; the first boot grows no other than the root.",
    fix="put everything on one root partition with ext4 or XFS",
    sources=("Azure 5", "AWS"),
)
def partitions(subject: Subject) -> Iterator[Finding]:
    rows = [line.split() for line in subject.tree.lines("/etc/fstab")]
    mounts = [row for row in rows if len(row) > 2 and row[2] not in ("swap", "tmpfs", "proc", "sysfs", "devpts")]
    if not mounts:
        raise NotCheckedError("a root file system alone has no partitions; check the disk image")
    for device, place, kind in (row[:3] for row in mounts):
        if place not in ("/", "/boot/efi", "/boot"):
            yield Finding("/etc/fstab", f"mounts {device} on {place}")
        elif kind not in ("ext2", "ext3", "ext4", "xfs", "vfat", "auto"):
            yield Finding("/etc/fstab", f"{place} is {kind}")


def numbers(version: str) -> tuple[int, ...]:
    """A Debian version's numbers, without epoch and revision."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split(":")[-1].split("-")[0])[:4])


def _ssh_not(subject: Subject, name: str, default: str, wanted: str) -> Iterator[Finding]:
    """Where a setting of the SSH server has another value than the wanted one, for everybody or for some."""
    for path, value, whom in _ssh(subject, name, default):
        if value != wanted:
            yield Finding(path, f"{name} is {value}{whom}")


def _ssh(subject: Subject, name: str, default: str) -> Iterator[tuple[str, str, str]]:
    """Where a setting of the SSH server is made, its value in small letters, and for whom: all that can be in force."""
    settings = [setting for setting in ssh_settings(subject) if setting.name == name]
    everybody = next((setting for setting in settings if not setting.condition), SshSetting(SSHD, name, default))
    for setting in (everybody, *(setting for setting in settings if setting.condition)):
        whom = f" for {setting.condition}" if setting.condition else ""
        yield setting.path, setting.value.lower(), whom
