"""Checks of our own services, and of what guards them."""

from __future__ import annotations

import http.client
import ipaddress
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from aisandbox.instance.observe.doctor.finding import Finding, Instance, failed, ok, skipped, warning
from aisandbox.instance.run import services

UNITS = (*services.SERVICES, services.STATUS, services.FIREWALL, services.CERTIFICATE)
LISTENS = "0A"
"""State of a listening socket in the kernel's table."""
NAME_SERVICES = {53, 5355}
"""systemd-resolved answers these for the machine itself."""


def configuration(instance: Instance) -> Iterator[Finding]:
    if instance.deployment is None:
        cause = str(instance.report("configure").get("message") or "")
        yield failed("The choice has not been applied.", "sudo aisandbox configure", cause)
        return
    for problem in instance.deployment.problems:
        where = " ".join(filter(None, (problem.option, problem.value)))
        yield failed(f"{where}: {problem.reason}" if where else problem.reason, problem.fix)
    if not instance.deployment.problems:
        yield ok(f"{instance.deployment.model} is chosen")


def units(_: Instance) -> Iterator[Finding]:
    found = services.units(UNITS)
    if not found:
        yield skipped("What runs the services does not answer.")
        return
    for unit in found:
        loop = services.crash_loop(unit)
        logs = f"sudo aisandbox logs {services.short(unit.name)}"
        if loop:
            yield failed(loop, f"Why: {logs}")
        elif unit.active == "failed":
            yield failed(f"{unit.name} has failed.", f"Why: {logs}", unit.result)
    yield from (
        warning(f"{name} is {state}: it does not start with the machine.", f"sudo systemctl enable --now {name}")
        for name, state in _enabled([unit.name for unit in found]).items()
        if state in ("disabled", "masked", "masked-runtime")
    )
    yield ok(f"{sum(unit.active == 'active' for unit in found)} of {len(found)} are active")


def _enabled(names: list[str]) -> dict[str, str]:
    """Whether each unit starts with the machine, in systemd's words."""
    try:
        said = subprocess.run(
            ["systemctl", "is-enabled", *names], capture_output=True, text=True, timeout=10, check=False
        ).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(names, said, strict=True)) if len(said) == len(names) else {}


def progress(instance: Instance) -> Iterator[Finding]:
    """What the services on the way to the first answer say."""
    for name in ("model", "engine"):
        report = instance.report(name)
        if report.get("state") == "failed":
            yield failed(str(report.get("message")), str(report.get("fix")))
        elif report:
            yield ok(f"{name}: {report.get('message')}")
        else:
            yield skipped(f"{name}: it has not reported yet")


def ports(instance: Instance) -> Iterator[Finding]:
    listeners = list(listening(instance.places.root / "proc" / "net"))
    here = {port for _, port in listeners}
    expected = {"chat": "nginx", "api": "nginx", "chat_upstream": "open-webui", "auxiliary_upstream": "auxiliary"}
    if instance.report("engine").get("state") == "done":
        expected["api_upstream"] = "vllm"
    if instance.access.sandbox != "off":
        expected["sandbox"] = "sandbox-api"
    if instance.access.domain:
        expected["http"] = "nginx"
    if instance.access.domain and instance.report("certificate").get("state") == "done":
        expected["https"] = "nginx"
    missing = [name for name in expected if instance.port(name) not in here]
    for name in missing:
        port = instance.manifest.ports[name]
        yield failed(f"Nothing listens on port {port.port} ({port.label}).", f"sudo aisandbox logs {expected[name]}")
    ours = {port.port for port in instance.manifest.ports.values() if port.public}
    ours |= {instance.port(name) for name in expected} | NAME_SERVICES
    strangers = sorted({port for address, port in listeners if not address.is_loopback and port not in ours})
    if strangers:
        names = ", ".join(map(str, strangers))
        text = f"Other programs listen beyond loopback, on port {names}."
        cause = "They were added to this image. The firewall keeps these ports closed unless it was changed."
        yield warning(text, "Which ones: sudo ss --listening --tcp --processes", cause)
    if not missing:
        yield ok(f"{', '.join(sorted(str(instance.port(name)) for name in expected))} listen")


def listening(folder: Path) -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """Address and port of every TCP socket that listens, by the kernel's tables `tcp` and `tcp6`."""
    for name in ("tcp", "tcp6"):
        try:
            rows = (folder / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            _, local, _, state, *_ = row.split()
            if state == LISTENS:
                address, port = local.split(":")
                # Four bytes at a time, in the machine's own order.
                words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                yield ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)), int(port, 16)


def firewall(instance: Instance) -> Iterator[Finding]:
    if instance.places.container:
        yield skipped("A container has none: what stands before it is the host's.")
        return
    if not instance.root:
        yield skipped("Only root can look at it.")
        return
    try:
        command = ["nft", "list", "table", "inet", "aisandbox"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        yield failed("nft does not answer.", "sudo apt-get install --reinstall nftables")
        return
    if said.returncode == 0 and "policy drop" in said.stdout:
        yield ok("loaded")
    else:
        cause = said.stderr.strip().partition("\n")[0]
        yield failed("Our firewall is not loaded.", f"sudo systemctl restart {services.FIREWALL}", cause)


def secrets(instance: Instance) -> Iterator[Finding]:
    places = instance.places
    folders = (places.secrets, places.hf_token.parent)
    kept = [path for folder in folders for path in ([folder, *_inside(folder)])] + [places.options]
    loose = [path for path in kept if _open_to_others(path)]
    for path in loose:
        mode = "700" if path.is_dir() else "600"
        yield failed(f"{path} can be read by others.", f"sudo chmod {mode} {path}; sudo chown root:root {path}")
    if not instance.root:
        yield skipped("Only root can look at all of them.")
    elif not loose:
        yield ok("only root can read them")


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def sandbox(instance: Instance) -> Iterator[Finding]:
    if instance.access.sandbox == "off":
        yield ok("off, as chosen")
        return
    port = instance.port("sandbox")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/openapi.json")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        cause = str(error) or type(error).__name__
        yield failed(f"The sandbox does not answer on port {port}.", "sudo aisandbox logs sandbox", cause)
        return
    finally:
        connection.close()
    # Who asks for its key is well.
    if status < http.client.INTERNAL_SERVER_ERROR:
        yield ok(f"answers on port {port}")
    else:
        yield failed(f"The sandbox answers {status}.", "sudo aisandbox logs sandbox")
