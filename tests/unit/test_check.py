"""The image check: nothing to find in a clean root file system, and each check finds its own fault and no other."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from aisandbox import manifest
from aisandbox.builder import checking
from aisandbox.check import CHECKS, Check, Finding, Report, Settings, Waiver, run
from aisandbox.check.report import today
from aisandbox.manifest import REPOSITORY
from tests.support.clean_root import ELF, KERNEL, TCP, Root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files can be planted by root only")

# Target `azure` asks for most; mirrors are asked in test_check_updates.py.
IMAGE = Settings(target="azure", online=False)
INSTANCE = IMAGE.but(stage="instance", live=True)
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
Plant = Callable[[Root], object]

FAULTS: dict[str, Plant | tuple[Plant, ...]] = {
    "root-password": lambda root: root.write("etc/shadow", _shadow(root).replace("root:!", "root:$y$j9T$hash")),
    "user-passwords": (
        lambda root: root.write("etc/shadow", _shadow(root).replace("agent:!*", "agent:$6$salt$hash")),
        lambda root: root.append("etc/gshadow", "agent:$6$salt$hash::"),
    ),
    "empty-passwords": (
        lambda root: root.write("etc/passwd", _passwd(root).replace("agent:x", "agent:$1$hash")),
        lambda root: root.write("etc/passwd", _passwd(root).replace("agent:x", "agent:")),
    ),
    "root-accounts": lambda root: root.append("etc/passwd", "toor:x:0:0::/root:/usr/sbin/nologin"),
    "leftover-users": (
        lambda root: root.append("etc/passwd", "bob:x:1000:0::/srv/bob:/bin/bash"),
        lambda root: (root.folder / "home/bob").mkdir(),
    ),
    "login-shells": lambda root: root.append("etc/passwd", "nova:x:102:0::/var/lib/nova:/bin/bash"),
    "sudoers": (
        lambda root: root.write("etc/sudoers.d/90-cloud-init-users", "debian ALL=(ALL) NOPASSWD:ALL\n"),
        lambda root: root.append("etc/sudoers", "packer ALL=(ALL) NOPASSWD: ALL"),
    ),
    "account-backups": lambda root: root.write("etc/shadow-"),
    "ssh-host-keys": lambda root: root.write("etc/ssh/ssh_host_ed25519_key"),
    "root-ssh-files": (
        lambda root: root.write("root/.ssh/authorized_keys", "ssh-ed25519 AAAA builder\n"),
        lambda root: root.write("root/.ssh/known_hosts"),
    ),
    "user-ssh-files": lambda root: root.write("var/lib/agent/.ssh/authorized_keys", "ssh-ed25519 AAAA builder\n"),
    "authorized-keys": (
        lambda root: root.write("srv/keys/authorized_keys", "ssh-ed25519 AAAA builder\n"),
        lambda root: root.append("etc/ssh/sshd_config.d/10.conf", "AuthorizedKeysFile /srv/%u"),
    ),
    "private-keys": (
        lambda root: root.write("usr/share/app/server.key", KEY),
        lambda root: root.write("opt/aisandbox/store.p12", b"\x30\x82\x00"),
    ),
    "mok-keys": (
        lambda root: root.write("var/lib/shim-signed/mok/MOK.priv"),
        lambda root: root.write("var/lib/dkms/mok.key"),
        lambda root: root.write("root/MOK.der"),
    ),
    "tokens": (
        lambda root: root.write("etc/app.conf", "a = 1\ntoken = hf_" + "a" * 34 + "\n"),
        lambda root: root.write("etc/app.conf", "key AKIA" + "A" * 16 + "\n"),
        lambda root: root.write("etc/app.conf", "index = https://bob:secret@pypi.example.com/simple\n"),
        lambda root: root.write("opt/notes.txt", KEY),
    ),
    "credential-files": (
        lambda root: root.write("root/.netrc"),
        lambda root: root.write("var/lib/agent/.aws/credentials"),
        lambda root: root.write("etc/apt/auth.conf.d/mirror.conf"),
    ),
    "root-history": lambda root: root.write("root/.bash_history", ""),
    "user-history": lambda root: root.write("var/lib/agent/.python_history"),
    "root-home": (lambda root: root.write("root/notes"), lambda root: root.append("root/.bashrc", "alias x=y")),
    "logs": (
        lambda root: root.append("var/log/dpkg.log", "2026-11-22 install"),
        lambda root: root.write("var/log/journal/0123/system.journal"),
    ),
    "rotated-logs": (
        lambda root: root.write("var/log/a.log.1"),
        lambda root: root.write("var/log/x/a.log-20261122.gz"),
    ),
    "login-records": lambda root: root.write("var/log/wtmp"),
    "machine-id": (
        lambda root: root.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        lambda root: root.remove("etc/machine-id"),
        lambda root: root.write("var/lib/dbus/machine-id"),
    ),
    "random-seed": lambda root: root.write("var/lib/systemd/random-seed"),
    "cloud-init-state": (
        lambda root: root.write("var/lib/cloud/data/instance-id"),
        lambda root: root.write("var/lib/cloud/handlers/part.py"),
    ),
    "network-state": lambda root: root.write("etc/netplan/50-cloud-init.yaml"),
    "dhcp-leases": lambda root: root.write("var/lib/dhcp/dhclient.leases"),
    "host-name": (
        lambda root: root.write("etc/hostname", "packer-65a1\n"),
        lambda root: root.append("etc/hosts", "127.0.1.1 packer-65a1"),
        lambda root: root.append("etc/hosts", "10.0.0.7 localhost"),
    ),
    "resolver": lambda root: root.replace("etc/resolv.conf", "nameserver 10.0.0.2\n"),
    "temporary-files": (lambda root: root.write("tmp/.hidden"), lambda root: root.write("var/tmp/x")),
    "crash-dumps": (lambda root: root.write("var/crash/vmcore"), lambda root: root.write("core")),
    "swap": (lambda root: root.write("swapfile"), lambda root: root.append("etc/fstab", "UUID=1 none swap sw 0 0")),
    "timer-stamps": lambda root: root.write("var/lib/systemd/timers/stamp-fstrim.timer", ""),
    "package-caches": (
        lambda root: root.write("var/lib/apt/lists/deb_InRelease"),
        lambda root: root.write("var/cache/apt/archives/x.deb"),
        lambda root: root.write("var/cache/apt/pkgcache.bin"),
    ),
    "user-caches": (lambda root: root.write("root/.cache/uv/x"), lambda root: root.write("var/lib/agent/.npm/x")),
    "provisioners": (
        lambda root: root.write("usr/sbin/policy-rc.d", "#!/bin/sh\n", 0o755),
        lambda root: root.package("ansible-core"),
    ),
    "builder-settings": (
        lambda root: root.write("etc/apt/apt.conf.d/01proxy", 'Acquire::http::Proxy "http://10.0.0.1:3142";\n'),
        lambda root: root.write("etc/environment", "https_proxy=http://proxy:3128\n"),
        lambda root: root.write("etc/pip.conf"),
        lambda root: root.write("usr/local/share/ca-certificates/company.crt"),
        lambda root: root.write("etc/apt/sources.list.d/x.list", "deb [trusted=yes] file:/srv/repo ./\n"),
    ),
    "backup-files": lambda root: root.write("etc/nginx/nginx.conf.dpkg-old"),
    "source-histories": lambda root: (root.folder / "opt/aisandbox/.git").mkdir(),
    "python-origins": lambda root: root.write(
        "opt/aisandbox/envs/a/site-packages/x-1.dist-info/direct_url.json", '{"url": "file:///home/bob/x"}'
    ),
    "jobs-and-mail": lambda root: root.write("var/spool/cron/crontabs/root"),
    "vendor-agents": (
        lambda root: (root.folder / "opt/digitalocean").mkdir(),
        lambda root: root.package("droplet-agent"),
    ),
    "world-writable": (
        lambda root: root.write("usr/local/bin/tool", "#!/usr/bin/python3\n", 0o757),
        lambda root: root.mode("var/tmp", 0o777),
    ),
    "privileged-programs": (
        lambda root: root.write("usr/local/bin/door", ELF, 0o4755),
        lambda root: root.write("usr/bin/door", ELF, 0o2755),
    ),
    "capabilities": lambda root: _capable(root, "usr/bin/door"),
    "unowned-files": lambda root: root.write("srv/file", owner=(4242, 0)),
    "device-files": lambda root: os.mknod(root.folder / "srv", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
    "names": (lambda root: root.write("etc/a\nb"), lambda root: root.write("usr/share/x/ ")),
    "product-files": (
        lambda root: root.mode("opt/aisandbox/lib", 0o775),
        lambda root: root.own("opt/aisandbox/release.json", 980, 0),
    ),
    "operating-system": (
        lambda root: root.write("etc/os-release", "ID=debian\nVERSION_ID=11\n"),
        lambda root: root.remove("etc/os-release"),
    ),
    "architecture": lambda root: root.write("usr/bin/dash", b"\x7fELF\x01"),
    "cloud-init": (
        lambda root: root.remove("usr/bin/cloud-init"),
        lambda root: root.write("etc/cloud/cloud-init.disabled", ""),
        lambda root: root.remove("etc/systemd/system/cloud-init.target.wants/cloud-final.service"),
        lambda root: root.write("etc/cloud/cloud.cfg.d/99.cfg", "manual_cache_clean: true\n"),
    ),
    "firewall": (
        lambda root: root.remove("etc/systemd/system/sysinit.target.wants/nftables.service"),
        lambda root: root.write("etc/nftables.conf", "chain input { type filter hook input; policy accept; }\n"),
    ),
    "package-state": (
        lambda root: root.package("half", status="install ok half-configured"),
        lambda root: root.write("var/lib/dpkg/updates/0001"),
    ),
    "licences": lambda root: root.remove("usr/share/doc/python3/copyright"),
    "runtimes": (
        lambda root: root.write("var/lib/dpkg/status", _status(root).replace("3.0.17-1~deb12u3", "0.9.7-1")),
        lambda root: _rename_package(root, "python3", "python4"),
    ),
    "kernels": (
        lambda root: root.remove(f"boot/initrd.img-{KERNEL}"),
        lambda root: root.remove(f"usr/lib/modules/{KERNEL}/modules.dep"),
        lambda root: root.remove(f"boot/vmlinuz-{KERNEL}"),
    ),
    "gpu-modules": lambda root: root.package("nvidia-kernel-open-dkms", "580.95"),
    "gpu-versions": lambda root: _two_drivers(root),
    "dkms-service": lambda root: root.enable("dkms.service", "[Service]\nExecStart=/bin/true\n"),
    "unit-cycles": lambda root: _cycle(root),
    "enabled-units": lambda root: root.link(
        "etc/systemd/system/multi-user.target.wants/gone.service", "/usr/lib/systemd/system/gone.service"
    ),
    "package-timers": lambda root: root.remove("etc/systemd/system/apt-daily.timer"),
    "ssh-passwords": (
        lambda root: _sshd(root, "PasswordAuthentication no", "PasswordAuthentication yes"),
        lambda root: _sshd(root, "KbdInteractiveAuthentication no\n", ""),
        lambda root: root.append("etc/ssh/sshd_config.d/10.conf", "PermitEmptyPasswords yes"),
        lambda root: root.append("etc/ssh/sshd_config.d/10.conf", "Match User deploy\n  PasswordAuthentication yes"),
        lambda root: root.append("etc/ssh/sshd_config.d/10.conf", "Match all\nPasswordAuthentication = yes"),
        lambda root: _sshd_of_the_office(root),
    ),
    "ssh-root": (
        lambda root: _sshd(root, "PermitRootLogin no", "PermitRootLogin prohibit-password"),
        lambda root: root.write("etc/ssh/sshd_config.d/05.conf", "PermitRootLogin=yes\n"),
        lambda root: root.append("etc/ssh/sshd_config.d/10.conf", 'Match User "root"\n  PermitRootLogin "yes"'),
    ),
    "ssh-keepalive": lambda root: _sshd(root, "180", "600"),
    "ssh-service": (
        lambda root: root.remove("etc/systemd/system/multi-user.target.wants/ssh.service"),
        lambda root: root.append("etc/ssh/sshd_config.d/10.conf", "Port 2222"),
    ),
    "administration": (
        lambda root: root.mode("usr/bin/sudo", 0o755),
        lambda root: root.write("etc/cloud/cloud.cfg", "users: []\n"),
    ),
    "scripts": (
        lambda root: root.mode("etc/update-motd.d/50-aisandbox", 0o644),
        lambda root: root.write("usr/local/bin/broken", "#!/bin/sh\nif true; then\n", 0o755),
    ),
    "product": (
        lambda root: root.remove("opt/aisandbox/release.json"),
        lambda root: root.remove("etc/systemd/system/multi-user.target.wants/vllm.service"),
    ),
    "user-data": (
        lambda root: root.write("var/lib/aisandbox/open-webui/webui.db"),
        lambda root: root.write("etc/aisandbox/options.yaml", "model: a/b\n", 0o600),
    ),
    "partitions": (
        lambda root: root.append("etc/fstab", "LABEL=home /home ext4 defaults 0 2"),
        lambda root: root.write("etc/fstab", "LABEL=root / btrfs defaults 0 1\n"),
    ),
    "azure-agent": (
        lambda root: root.write("var/lib/dpkg/status", _status(root).replace("2.9.0.4-1", "2.2.40-1")),
        lambda root: _rename_package(root, "waagent", "other"),
    ),
    "azure-agent-updates": lambda root: root.write("etc/waagent.conf", "AutoUpdate.Enabled=n\n"),
    "azure-console": lambda root: _menu(root, "console=ttyS0,115200n8 ", ""),
    "azure-root-delay": lambda root: _menu(root, "rootdelay=300", ""),
    "failed-units": lambda root: _program(root, "systemctl", "echo 'nginx.service loaded failed failed A web server'"),
    "broken-cycles": lambda root: _program(root, "journalctl", "echo 'a.service: Found ordering cycle on b.service'"),
    "listening-ports": (
        lambda root: root.write("proc/net/tcp", TCP + "   1: 00000000:1F90 00000000:0000 0A 0 0 0\n"),
        lambda root: root.write("proc/net/tcp6", TCP + f"   1: {'0' * 32}:1F90 {'0' * 32}:0000 0A 0 0 0\n"),
        lambda root: root.write("proc/net/udp", TCP + "   1: 0202000A:14EB 00000000:0000 07 0 0 0\n"),
    ),
    "firewall-rules": lambda root: _program(root, "nft", "echo 'table inet x {}'"),
    "secret-permissions": (
        lambda root: root.mode("etc/aisandbox/open-webui.env", 0o644),
        lambda root: root.own("etc/aisandbox/open-webui.env", 980, 0),
    ),
    "own-identity": lambda root: root.remove("etc/ssh/ssh_host_ed25519_key"),
}  # fmt: skip
ELSEWHERE = {"security-updates"}
"""Planted in test_check_updates.py."""
ENGINE = {"engine-libraries", "engine-versions", "engine-kernels", "engine-compilers", "engine-tables"}
"""Planted in test_check_engine.py."""
PLANTED = [
    pytest.param(name, plant, id=f"{name}-{number}")
    for name, plants in FAULTS.items()
    for number, plant in enumerate(plants if isinstance(plants, tuple) else (plants,), 1)
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A clean root file system, and programs that tell of a machine that is well."""
    root = Root(tmp_path / "root")
    _program(root, "systemctl", "true")
    _program(root, "journalctl", "true")
    _program(root, "nft", "echo 'type filter hook input priority filter; policy drop;'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return root


def failing(report: Report) -> set[str]:
    return {result.check.id for result in report.results if result.findings}


def test_a_clean_image_passes(root: Root) -> None:
    report = run(root.folder, IMAGE)
    assert failing(report) == set(), report.text()
    assert not report.failed
    unchecked = {result.check.id for result in report.results if result.status == "not checked"}
    assert unchecked == ELSEWHERE | {check.id for check in CHECKS.values() if check.live and "image" in check.stages}


def test_a_clean_instance_passes(root: Root) -> None:
    root.start()
    report = run(root.folder, INSTANCE.but(live=True))
    assert failing(report) - {"unit-cycles"} == set(), report.text()
    assert report.counts["not checked"] == len(ELSEWHERE)


@pytest.mark.parametrize(
    "lines",
    [
        "PasswordAuthentication no # keys only",
        'PasswordAuthentication "no"\t#keys only',
        "Port 2222\nPort 22",
        "Match User deploy\n  PasswordAuthentication no\n  X11Forwarding yes",
    ],
)
def test_what_sshd_takes_as_meant_is_no_fault(root: Root, lines: str) -> None:
    root.write("etc/ssh/sshd_config.d/05.conf", f"{lines}\n")
    assert failing(run(root.folder, IMAGE)) == set()


@pytest.mark.parametrize(("name", "plant"), PLANTED)
def test_a_planted_fault_fails_its_check_and_no_other(root: Root, name: str, plant: Plant) -> None:
    check = CHECKS[name]
    if "image" not in check.stages:
        root.start()
    plant(root)
    settings = IMAGE if "image" in check.stages else INSTANCE
    report = run(root.folder, settings.but(live=check.live))
    assert failing(report) == {name}, report.text()
    assert report.failed == (check.severity == "error")
    text = report.text()
    assert check.why.split()[0] in text and f"fix: {check.fix}" in text


def test_every_check_has_a_planted_fault() -> None:
    assert FAULTS.keys() | ELSEWHERE | ENGINE == CHECKS.keys()


def test_every_check_says_why_and_what_helps() -> None:
    for check in CHECKS.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", check.id)
        assert check.title and check.why.endswith(".") and check.fix and check.sources, check.id


def test_the_lists_of_the_vendors_are_covered() -> None:
    named = {source for check in CHECKS.values() for source in check.sources}
    # DigitalOcean 1 is that root asks, which the command insists on; Google 003 to 099 and 106 to 199 do not exist.
    assert {f"DigitalOcean {number}" for number in range(2, 17)} <= named
    assert {f"Azure {number}" for number in range(1, 11)} <= named
    google = {"000", "001", "002", "100", "101", "102", "103", "104", "105", "200"}
    assert {f"Google {number}" for number in google} <= named
    assert {"AWS", "image-builder"} <= named


def test_checks_of_a_platform_are_made_for_it_alone(root: Root) -> None:
    _menu(root, "rootdelay=300", "")
    assert "azure-root-delay" not in failing(run(root.folder, IMAGE.but(target="aws")))
    assert "azure-root-delay" in failing(run(root.folder, IMAGE))


def test_secrets_are_not_shown(root: Root) -> None:
    root.write("etc/app.conf", "token = hf_" + "s" * 34 + "\n")
    report = run(root.folder, IMAGE)
    assert "sssss" not in report.text() + json.dumps(report.to_json())
    assert "/etc/app.conf: line 1: a token of Hugging Face" in report.text()


def test_names_cannot_write_to_the_terminal(root: Root) -> None:
    root.write("tmp/a\x1b[2J\nok          everything")
    (root.folder / "tmp" / os.fsdecode(b"\xff\xfe")).write_text("x")
    text = run(root.folder, IMAGE).text()
    assert "\x1b" not in text and "\nok          everything" not in text
    assert r"/tmp/a\x1b[2J\nok" in text


def test_links_do_not_lead_out_of_the_root(root: Root, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("hf_" + "a" * 34)
    root.link("etc/out.conf", "../../outside")
    root.link("var/lib/agent/.ssh", str(tmp_path))
    (root.folder / "etc/hostname").unlink()
    root.link("etc/hostname", str(tmp_path / "outside"))
    root.link("etc/loop", "loop")
    assert failing(run(root.folder, IMAGE)) == set()


def test_what_is_no_file_is_not_opened(root: Root) -> None:
    root.remove("etc/hosts")
    os.mkfifo(root.folder / "etc/hosts")
    os.mkfifo(root.folder / "etc/app.pem")
    with (root.folder / "etc/huge.conf").open("wb") as huge:
        huge.truncate(2**40)
    assert failing(run(root.folder, IMAGE)) == set()


def test_many_findings_are_all_counted(root: Root) -> None:
    for number in range(40):
        root.write(f"tmp/{number:02}")
    report = run(root.folder, IMAGE)
    assert "and 28 more" in report.text()
    assert "1 failed (40 findings)" in report.text()
    assert len(next(c for c in report.to_json()["checks"] if c["id"] == "temporary-files")["findings"]) == 40


def waived(**changes: object) -> Settings:
    facts = {"check": "temporary-files", "reason": "needed until summer", "until": today(), **changes}
    return IMAGE.but(waivers=(Waiver(**facts),))  # type: ignore[arg-type]


def test_a_waiver_is_shown(root: Root) -> None:
    root.write("tmp/x")
    report = run(root.folder, waived())
    assert not report.failed and report.counts["waived"] == 1
    assert f"/tmp/x: waived until {today()}: needed until summer" in report.text()


def test_an_expired_waiver_fails_with_its_date(root: Root) -> None:
    root.write("tmp/x")
    yesterday = today() - timedelta(days=1)
    report = run(root.folder, waived(until=yesterday))
    assert failing(report) == {"temporary-files", "waivers"} and report.failed
    assert f"expired on {yesterday}" in report.text()


def test_a_waiver_covers_the_paths_that_it_names(root: Root) -> None:
    root.write("tmp/x")
    root.write("tmp/y")
    report = run(root.folder, waived(path="/tmp/x"))
    assert failing(report) == {"temporary-files"}
    assert "- /tmp/y\n" in report.text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [({}, "is not needed"), ({"check": "nonsense"}, "there is no such check"), ({"path": "/var/*"}, "is not needed")],
)
def test_a_waiver_that_waives_nothing_fails(root: Root, changes: dict[str, object], told: str) -> None:
    report = run(root.folder, waived(**changes))
    assert failing(report) == {"waivers"} and report.failed
    assert told in report.text()


def test_a_waiver_of_another_platform_is_none(root: Root) -> None:
    root.write("tmp/x")
    assert failing(run(root.folder, waived(target="aws"))) == {"temporary-files"}


def test_a_check_that_breaks_is_no_pass(root: Root) -> None:
    def breaks(_: object) -> list[Finding]:
        raise ZeroDivisionError

    broken: Check = replace(CHECKS["logs"], look=breaks)
    report = run(root.folder, IMAGE, checks={"logs": broken})
    assert report.failed and "the check itself failed: ZeroDivisionError" in report.text()


def test_the_program_for_hosts_is_the_same_check(root: Root, tmp_path: Path) -> None:
    settings = Settings.of(manifest.load(), target="aws", online=False)
    program = checking.program(settings, "x")
    assert program == checking.program(settings, "x")
    (tmp_path / "check.pyz").write_bytes(program)
    names = zipfile.ZipFile(tmp_path / "check.pyz").namelist()
    assert "aisandbox/check/accounts.py" in names and not [name for name in names if "/build/" in name]
    isolated = ["python3", "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'check.pyz')!r});"
                "from aisandbox.check import CHECKS; print(len(CHECKS))"]  # fmt: skip
    assert int(subprocess.check_output(isolated)) == len(CHECKS)


def test_settings_and_reports_travel_as_json(root: Root) -> None:
    root.write("tmp/x")
    settings = waived(target="azure")
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    report = run(root.folder, settings)
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again.text() == report.text() and again.failed == report.failed
    broken: object
    for broken in ([], {}, {"checks": [{}]}, {"checks": 3}):
        with pytest.raises(ValueError, match="no report"):
            Report.from_json(broken)  # type: ignore[arg-type]


def test_the_check_imports_nothing_else_of_ours() -> None:
    for file in (REPOSITORY / "aisandbox/check").glob("*.py"):
        imports = re.findall(r"^(?:from|import) ([\w.]+)", file.read_text(), re.MULTILINE)
        ours = {name for name in imports if name.startswith("aisandbox")}
        assert all(name.startswith("aisandbox.check") for name in ours), file


def test_our_own_waivers_name_checks_and_platforms() -> None:
    product = manifest.load()
    for waiver in product.waivers:
        assert waiver.check in CHECKS and waiver.target in (None, *product.targets)


def _shadow(root: Root) -> str:
    return (root.folder / "etc/shadow").read_text()


def _passwd(root: Root) -> str:
    return (root.folder / "etc/passwd").read_text()


def _status(root: Root) -> str:
    return (root.folder / "var/lib/dpkg/status").read_text()


def _rename_package(root: Root, old: str, new: str) -> None:
    root.write("var/lib/dpkg/status", _status(root).replace(f"Package: {old}\n", f"Package: {new}\n"))
    root.write(f"usr/share/doc/{new}/copyright")


def _two_drivers(root: Root) -> None:
    root.package("nvidia-driver-cuda", "580.126.20-1")
    root.package("nvidia-fabricmanager", "580.95.05-1")


def _cycle(root: Root) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        unit = f"[Unit]\nAfter={other}.service\nRequires={other}.service\n[Service]\nExecStart=/bin/true\n"
        root.enable(f"{name}.service", unit)


def _sshd_of_the_office(root: Root) -> None:
    root.append("etc/ssh/sshd_config", "Match Address 192.0.2.0/24\n  Include /etc/ssh/some.conf")
    root.write("etc/ssh/some.conf", "PasswordAuthentication yes # for the office\n")


def _sshd(root: Root, old: str, new: str) -> None:
    path = "etc/ssh/sshd_config.d/10.conf"
    root.write(path, (root.folder / path).read_text().replace(old, new))


def _menu(root: Root, old: str, new: str) -> None:
    path = "boot/grub/grub.cfg"
    root.write(path, (root.folder / path).read_text().replace(old, new))


def _capable(root: Root, path: str) -> None:
    root.write(path, ELF, 0o755)
    # cap_net_raw, as setcap writes it: version 2, effective, one permitted capability.
    os.setxattr(root.folder / path, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))


def _program(root: Root, name: str, script: str) -> None:
    program = root.folder.parent / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
