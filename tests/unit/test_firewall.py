"""The firewall of the image with the rules rendered from the choice: real nft, and connections between two machines.

Each machine is a network namespace; they end with the processes that hold them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pytest
import yaml

from aisandbox.instance.choose import access
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.run.rendering import fill
from aisandbox.manifest import REPOSITORY
from tests.support.appliance import MANIFEST

PORTS = {
    name: MANIFEST.ports[name].port
    for name in ("ssh", "chat", "api", "sandbox", "http", "https", "chat_upstream", "auxiliary_upstream")
}
NEAR, FAR, NEAR6, FAR6 = "192.0.2.7", "198.51.100.7", "2001:db8::7", "2001:db8:1::7"
SERVER, SERVER6 = "192.0.2.1", "2001:db8::1"
EVERYWHERE = {"ssh", "chat", "api"}

SERVE = """
import socket, sys, time
every = dict(family=socket.AF_INET6, dualstack_ipv6=True)
servers = [socket.create_server(("::", int(port)), **every) for port in sys.argv[1:]]
print("ready", flush=True)
time.sleep(600)
"""
CONNECT = """
import json, socket, sys, threading
target, source, reached = sys.argv[1], sys.argv[2], []
def attempt(port):
    try:
        socket.create_connection((target, port), 0.7, (source, 0)).close()
        reached.append(port)
    except OSError:
        pass
threads = [threading.Thread(target=attempt, args=(int(port),)) for port in sys.argv[3:]]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(json.dumps(reached))
"""


@dataclass
class Machines:
    """An instance with the firewall, and another machine with several addresses."""

    instance: int
    other: int
    folder: Path

    def run(self, process: int, *command: str) -> str:
        inside = ["nsenter", f"--target={process}", "--net", *command]
        return subprocess.run(inside, check=True, capture_output=True, text=True, timeout=60).stdout

    def load(self, choice: Choice | None) -> None:
        """Load the image's firewall with what is rendered from the choice; None: nothing was rendered."""
        rules = self.folder / "nftables" / "access.conf"
        rules.unlink(missing_ok=True)
        if choice:
            rules.parent.mkdir(exist_ok=True)
            template = (REPOSITORY / "templates" / "nftables" / "access.conf.j2").read_text()
            rules.write_text(fill(template, {"manifest": MANIFEST, "deployment": {"access": access.of(choice)}}))
        self.run(self.instance, "nft", "--file", str(self.folder / "nftables.conf"))

    def reached(self, source: str, process: int | None = None) -> set[str]:
        """Names of the instance's ports that this address reaches."""
        target = SERVER6 if ":" in source else SERVER
        ports = [str(port) for port in PORTS.values()]
        told = self.run(process or self.other, sys.executable, "-c", CONNECT, target, source, *ports)
        return {name for name, port in PORTS.items() if port in json.loads(told)}


@contextmanager
def _namespace() -> Iterator[int]:
    # It says when it is there: until then, its process would still be in ours.
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 600"], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout and holder.stdout.readline() == b"ready\n"
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("firewall")
    _render_main(folder)
    with ExitStack() as stack:
        both = Machines(stack.enter_context(_namespace()), stack.enter_context(_namespace()), folder)
        link = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(both.other)]
        both.run(both.instance, *link)
        _address(both, both.instance, [f"{SERVER}/24", f"{SERVER6}/64"], [f"{FAR}/32", f"{FAR6}/128"])
        _address(both, both.other, [f"{NEAR}/24", f"{FAR}/32", f"{NEAR6}/64", f"{FAR6}/128"], [])
        command = ["nsenter", f"--target={both.instance}", "--net", sys.executable, "-c", SERVE]
        server = subprocess.Popen([*command, *map(str, PORTS.values())], stdout=subprocess.PIPE)
        stack.callback(server.wait)
        stack.callback(server.kill)
        assert server.stdout and server.stdout.readline() == b"ready\n"
        yield both


def _render_main(folder: Path) -> None:
    """/etc/nftables.conf as the role `hardening` makes it."""
    defaults = yaml.safe_load((REPOSITORY / "roles" / "hardening" / "defaults" / "main.yml").read_text())
    context = {
        "manifest": MANIFEST.model_copy(update={"paths": MANIFEST.paths.model_copy(update={"etc": folder})}),
        "hardening_metadata": defaults["hardening_metadata"],
        "hardening_service_users": defaults["hardening_service_users"],
        "hardening_engine_user": ACCOUNTS["vllm"],
        "hardening_engine_mark": defaults["hardening_engine_mark"],
        "hardening_inward_users": [ACCOUNTS["open-webui"], ACCOUNTS["auxiliary"]],
        "hardening_upstream_users": [0],
        "hardening_ssh_ports": [MANIFEST.ports["ssh"].port],
    }
    template = (REPOSITORY / "templates" / "nftables.conf.j2").read_text()
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    (folder / "nftables.conf").write_text(environment.from_string(template).render(context))


def _address(machines: Machines, process: int, addresses: Sequence[str], routes: Sequence[str]) -> None:
    machines.run(process, "ip", "link", "set", "eth0", "up")
    for address in addresses:
        kind = ["nodad"] if ":" in address else []
        machines.run(process, "ip", "address", "add", address, "dev", "eth0", *kind)
    for route in routes:
        machines.run(process, "ip", "route", "add", route, "dev", "eth0")


@pytest.mark.parametrize("source", [NEAR, FAR, NEAR6, FAR6])
def test_by_default_chat_and_api_are_open_to_all(machines: Machines, source: str) -> None:
    machines.load(Choice())
    assert machines.reached(source) == EVERYWHERE


def test_only_ssh_is_open_while_nothing_is_rendered(machines: Machines) -> None:
    machines.load(None)
    assert machines.reached(NEAR) == {"ssh"}
    assert machines.reached(NEAR6) == {"ssh"}


@pytest.mark.parametrize(
    ("networks", "inside"),
    [
        (NEAR, {NEAR}),
        ("192.0.2.0/24", {NEAR}),
        ("192.0.2.0/24,192.0.2.7,192.0.2.0/25", {NEAR}),
        ("2001:db8::/64", {NEAR6}),
        (f"{FAR},{FAR6}", {FAR, FAR6}),
        ("0.0.0.0/0", {NEAR, FAR}),
        ("::/0,0.0.0.0/0", {NEAR, FAR, NEAR6, FAR6}),
        ("203.0.113.0/24", set()),
    ],
)
def test_only_allowed_networks_get_in_and_ssh_is_for_all(machines: Machines, networks: str, inside: set[str]) -> None:
    machines.load(Choice(allowed_cidrs=networks))
    for source in (NEAR, FAR, NEAR6, FAR6):
        assert machines.reached(source) == (EVERYWHERE if source in inside else {"ssh"}), source


def test_networks_that_were_given_wrongly_let_in_nobody_but_the_instance(machines: Machines) -> None:
    machines.load(Choice(closed=frozenset({"allowed_cidrs"})))
    assert machines.reached(NEAR) == {"ssh"}
    assert machines.reached(NEAR6) == {"ssh"}
    assert machines.reached(SERVER, machines.instance) == set(PORTS)


def test_a_public_sandbox_has_its_port_within_the_allowed_networks(machines: Machines) -> None:
    machines.load(Choice(sandbox="public"))
    assert machines.reached(NEAR) == EVERYWHERE | {"sandbox"}
    machines.load(Choice(sandbox="public", allowed_cidrs=NEAR))
    assert machines.reached(NEAR) == EVERYWHERE | {"sandbox"}
    assert machines.reached(FAR) == {"ssh"}


def test_a_domain_opens_https_and_the_port_where_authorities_ask(machines: Machines) -> None:
    machines.load(Choice(domain="ai.example.com"))
    assert machines.reached(NEAR) == EVERYWHERE | {"http", "https"}
    machines.load(Choice(domain="ai.example.com", allowed_cidrs=NEAR))
    assert machines.reached(NEAR) == EVERYWHERE | {"http", "https"}
    assert machines.reached(FAR) == {"ssh", "http"}


def test_narrowing_the_choice_ends_connections(machines: Machines) -> None:
    machines.load(Choice())
    talk = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5, (sys.argv[3], 0))
print("connected", flush=True)
sys.stdin.readline()
connection.settimeout(1)
connection.sendall(b"still there?")
import fcntl, struct, termios
time.sleep(0.5)
print(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"0000"))[0])
"""
    command = ["nsenter", f"--target={machines.other}", "--net", sys.executable, "-c", talk]
    for choice, unsent in ((Choice(), 0), (Choice(allowed_cidrs=FAR), len("still there?"))):
        machines.load(Choice())
        arguments = [SERVER, str(PORTS["chat"]), NEAR]
        with subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdout and client.stdout.readline() == b"connected\n"
            machines.load(choice)
            told, _ = client.communicate(b"\n", timeout=30)
        assert int(told) == unsent


METADATA = {
    "most": "169.254.169.254",
    "AWS, containers": "169.254.170.2",
    "Scaleway": "169.254.42.42",
    "Azure": "168.63.129.16",
    "Alibaba": "100.100.100.200",
    "Oracle": "192.0.0.192",
    "AWS, IPv6": "fd00:ec2::254",
    "Google, IPv6": "fd20:ce::254",
    "Akamai, IPv6": "fd00:a9fe:a9fe::1",
    "Oracle, IPv6": "fd00:c1::a9fe:a9fe",
    "Scaleway, IPv6": "fd00:42::42",
}
ACCOUNTS = {
    "www-data": 33,
    "vllm": 970,
    "open-webui": 971,
    "auxiliary": 973,
    "sandbox": 972,
    "of a unit": 61184,
    "nobody": 65534,
}


@pytest.fixture(scope="module")
def cloud(machines: Machines) -> Iterator[Machines]:
    """The instance with every cloud's addresses on its loopback, and a server of names beside that of metadata."""
    machines.load(Choice())
    for address in METADATA.values():
        machines.run(machines.instance, "ip", "address", "add", address, "dev", "lo")
    command = ["nsenter", f"--target={machines.instance}", "--net", sys.executable, "-c", SERVE, "53"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout and server.stdout.readline() == b"ready\n"
        yield machines
        server.kill()


def connects(machines: Machines, user: int, address: str, port: int = 80) -> bool:
    """Whether a program of that user reaches the address."""
    host = f"[{address}]" if ":" in address else address
    ask = ["curl", "--silent", "--max-time", "0.2", "--write-out", "%{num_connects}", f"http://{host}:{port}/"]
    inside = ["nsenter", f"--target={machines.instance}", "--net", "setpriv", f"--reuid={user}", "--clear-groups", *ask]
    return subprocess.run(inside, capture_output=True, text=True, check=False, timeout=60).stdout == "1"


@pytest.mark.parametrize("where", METADATA)
def test_no_service_hears_the_clouds_metadata(cloud: Machines, where: str) -> None:
    address = METADATA[where]
    assert connects(cloud, 0, address)
    assert not [name for name, user in ACCOUNTS.items() if connects(cloud, user, address)]
    assert connects(cloud, ACCOUNTS["nobody"], address, 53)


@pytest.mark.parametrize("address", [NEAR, NEAR6])
def test_what_serves_visitors_connects_to_no_other_machine(cloud: Machines, address: str) -> None:
    command = ["nsenter", f"--target={cloud.other}", "--net", sys.executable, "-c", SERVE, "8888"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout and server.stdout.readline() == b"ready\n"
        reaching = {name for name, user in ACCOUNTS.items() if connects(cloud, user, address, 8888)}
        server.kill()
    assert reaching == {"www-data", "vllm", "sandbox", "of a unit", "nobody"}
    inside = {name for name, user in ACCOUNTS.items() if connects(cloud, user, "127.0.0.1", PORTS["chat"])}
    assert inside == set(ACCOUNTS)


LISTEN = """
import os, socket, sys, time
os.setuid(int(sys.argv[1]))
every = dict(family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
servers = [socket.create_server(("::", int(port)), **every) for port in sys.argv[2:]]
print("ready", flush=True)
time.sleep(600)
"""
ATTEMPT = """
import os, socket, sys, threading
os.setuid(int(sys.argv[1]))
reached = []
def attempt():
    try:
        reached.append(socket.create_connection((sys.argv[2], int(sys.argv[3])), 3))
    except ConnectionError:
        pass
threads = [threading.Thread(target=attempt) for _ in range(int(sys.argv[4]))]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(len(reached))
"""
INNER, OF_SANDBOX = 45001, 45002


@pytest.fixture(scope="module")
def engine(machines: Machines) -> Iterator[Machines]:
    """The instance with an engine and a program in the sandbox, each listening on a port that nobody chose."""
    machines.load(Choice())
    with ExitStack() as stack:
        for user, port in (("vllm", INNER), ("sandbox", OF_SANDBOX)):
            command = [sys.executable, "-c", LISTEN, str(ACCOUNTS[user]), str(port)]
            inside = ["nsenter", f"--target={machines.instance}", "--net", *command]
            server = subprocess.Popen(inside, stdout=subprocess.PIPE)
            stack.callback(server.wait)
            stack.callback(server.kill)
            assert server.stdout and server.stdout.readline() == b"ready\n"
        yield machines


def attempts(machines: Machines, user: int, address: str, port: int, times: int = 1) -> int:
    """How many of so many attempts at the same time end in a connection."""
    arguments = [str(user), address, str(port), str(times)]
    return int(machines.run(machines.instance, sys.executable, "-c", ATTEMPT, *arguments))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", SERVER])
def test_the_engines_inner_ports_are_for_the_engine_alone(engine: Machines, address: str) -> None:
    for user, number in {"root": 0, **ACCOUNTS}.items():
        assert attempts(engine, number, address, INNER) == (user == "vllm"), user
        assert attempts(engine, number, address, OF_SANDBOX) == 1, user


def test_they_stay_closed_when_many_knock_at_once(engine: Machines) -> None:
    engine.load(Choice())  # forgets that this port was asked before
    assert attempts(engine, ACCOUNTS["sandbox"], "127.0.0.1", INNER, 300) == 0
    assert attempts(engine, ACCOUNTS["vllm"], "127.0.0.1", INNER) == 1
