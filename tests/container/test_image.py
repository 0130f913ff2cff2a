"""The container: every program runs and comes back, nobody is root, nothing but the volumes can be written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from aisandbox.builder import archive, sandbox
from aisandbox.builder.archive import Image
from aisandbox.builder.sandbox import PARTS, Container
from aisandbox.manifest import REPOSITORY, load
from tests.container.conftest import Start, inside, output
from tests.support.commands import OWN_USERS
from tests.support.sandbox import free_port

PATHS = load().paths
CATALOGUE = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())["services"]
PROGRAMS = [name for name, service in CATALOGUE.items() if "container" in service["targets"]]
ACCOUNTS = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "main.yml").read_text())
SERVER = str(ACCOUNTS["sandbox_server_account"]["id"])
UNPACKED_BYTES = 1_847_000_000
"""60 % of the 3,079 MB that it had while it was made of a machine. Raise it for a reason, not for convenience."""
EVENTS = re.compile(r"spawned: '(\S+)' with pid (\d+)|(?:success|exited): (\S+) (?:entered )?(\S+)")


def alive(container: Container, process: str) -> bool:
    return inside(container, f"test -d /proc/{process}").returncode == 0


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)


def programs(container: Container) -> dict[str, tuple[int, str]]:
    """Process and state of every program, as the supervisor has told it: it listens to nobody."""
    told = sandbox.podman("logs", container.name)
    found: dict[str, tuple[int, str]] = {}
    for spawned, number, changed, state in EVENTS.findall(told.stdout + told.stderr):
        if spawned:
            found[spawned] = int(number), "STARTING"
        else:
            found[changed] = (found[changed][0], state) if state == "RUNNING" else (0, "EXITED")
    return found


def all_run(container: Container) -> bool:
    return all(state == "RUNNING" for _, state in programs(container).values())


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/ready", params={"need": ",".join(PARTS)}).status_code == 200
    except httpx.TransportError:
        return False


def test_every_program_of_the_catalogue_runs(container: Container) -> None:
    assert set(programs(container)) == set(PROGRAMS)
    assert all_run(container), programs(container)


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        ("/", "<title"),
        ("/v1/sandbox", '"success"'),
        ("/v1/openapi.json", '"openapi"'),
        ("/v1/docs", "swagger"),
        ("/llms.txt", "/v1"),
        ("/terminal", "xterm"),
        ("/vnc/index.html", "noVNC"),
        ("/jupyter/lab", "JupyterLab"),
        ("/code-server/", "code-server"),
        ("/cdp/json/version", "webSocketDebuggerUrl"),
    ],
)
def test_every_address_answers(client: httpx.Client, path: str, holds: str) -> None:
    response = client.get(path, follow_redirects=True)
    assert response.status_code == 200, response.text
    assert holds.lower() in response.text.lower()


def test_the_image_stays_small(image: Image) -> None:
    size = json.loads(sandbox.podman("image", "inspect", image.reference).stdout)[0]["Size"]
    assert size <= UNPACKED_BYTES


@pytest.mark.parametrize("program", ["systemctl", "sudo", "sshd", "cloud-init", "grub-install", "nodejs"])
def test_no_program_of_a_machine_is_in_it(container: Container, program: str) -> None:
    assert inside(container, f"command -v {program} || ls /sbin/{program} /usr/sbin/{program}").returncode


IMPORTS = {
    "workbench": "debugpy, fontTools.misc.bezierTools, jedi, kiwisolver, matplotlib.pyplot, numpy.testing, pandas",
    "sandbox": "aiohttp, cryptography.fernet, lxml.etree, numpy, onnxruntime, pandas, PIL.Image, pypdfium2, uvloop",
}


@pytest.mark.parametrize("environment", IMPORTS)
def test_stripped_and_shared_packages_work(container: Container, environment: str) -> None:
    output(container, f"{PATHS.opt}/envs/{environment}/bin/python -c 'import {IMPORTS[environment]}'")


def test_the_compilers_work(container: Container) -> None:
    program = "int main(void) { return 0; }"
    output(container, f"cd /tmp && echo '{program}' > a.c && gcc -O2 a.c -o c && ./c && g++ a.c -o cc && ./cc")


def test_nobody_is_root_or_can_become_it(container: Container) -> None:
    users = output(container, "cat /proc/[0-9]*/status | grep ^Uid:").splitlines()
    assert {number for line in users for number in line.split()[1:]} == {str(sandbox.FIRST_USER), SERVER}
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
        assert line in output(container, "cat /proc/1/status")


@pytest.mark.parametrize("user", ["4321:4321", "4321:1000", "1000:4321", "1000:1000"])
def test_a_user_number_without_a_name_gets_one(image: Image, user: str, tmp_path: Path) -> None:
    """As under Docker: podman would write the name into the image's own file."""
    ask = "whoami; id -gn; node -p 'os.userInfo().username'; python -c 'import getpass; print(getpass.getuser())'"
    tmp_path.chmod(0o755)
    (tmp_path / "ask.conf").write_text(
        "[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=/run/sandbox/pid\n"
        f'[program:ask]\ncommand=sh -euc "({ask}; ssh -G host >/dev/null; echo done) | sed s/^/told:/; kill 1"\n'
        "startsecs=0\nautorestart=false\nstdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
    )
    options = [
        "--passwd=false", "--network=none", "--read-only", "--tmpfs=/run/sandbox:rw,mode=1777", "--cap-drop=all",
        f"--volume={tmp_path}:/ask:ro", f"--user={user}",
    ]  # fmt: skip
    found = run(image, options, ["/ask/ask.conf"])
    own, group = ("sandbox" if number == str(sandbox.FIRST_USER) else "user" for number in user.split(":"))
    assert re.findall("^told:(.*)", found.stdout, re.MULTILINE) == [own, group, own, own, "done"], found


def run(image: Image, options: list[str], configuration: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the image's first process to its end."""
    start = [f"{PATHS.opt}/envs/supervisor/bin/python", "-I", f"{PATHS.opt}/lib/sandbox_api/supervise.py"]
    entry = json.dumps([*start, *configuration, str(PATHS.workspace), "/run/sandbox"])
    ways = sandbox.host_options(Container("aisandbox-test-once", free_port()))
    for way in ways:
        done = sandbox.podman("run", "--rm", *way, *options, f"--entrypoint={entry}", image.reference, check=False)
        if done.returncode not in sandbox.ENGINE_FAILED:
            return done
    raise AssertionError(done.stderr)


def test_root_without_the_right_to_become_another_is_told(image: Image) -> None:
    found = run(image, ["--user=0:0", "--cap-drop=all", "--tmpfs=/run/sandbox:rw,mode=1777"], ["/dev/null"])
    assert found.returncode == 1
    assert "root may not become another user here" in found.stderr
    assert f"--cap-add SETUID --cap-add SETGID, or --user {sandbox.FIRST_USER}:" in found.stderr


def test_the_server_and_its_supervisor_are_out_of_reach(container: Container, client: httpx.Client) -> None:
    """A command is the workspace's owner; they are somebody else."""
    before = programs(container)
    server, _ = before["sandbox-api"]
    for victim in ("$PPID", str(server), "$(cut -d' ' -f4 /proc/$PPID/stat)", "1"):
        for command in (
            f"kill -KILL {victim}",
            f"kill -TERM {victim}",
            f"cat /proc/{victim}/environ /proc/{victim}/mem",
        ):
            answer = client.post("/v1/shell/exec", json={"command": command}).json()["data"]
            assert answer["exit_code"], (command, answer)
    assert programs(container) == before
    assert inside(container, "test -S /run/sandbox/supervisor").returncode, (
        "nor may anybody tell the supervisor to stop"
    )


def test_what_the_server_starts_is_the_owner_altogether(client: httpx.Client) -> None:
    owner = [str(sandbox.FIRST_USER)] * 4
    command = client.post("/v1/shell/exec", json={"command": "grep ^Uid: /proc/self/status"}).json()["data"]["output"]
    assert command.split()[1:] == owner
    for language, code in OWN_USERS.items():
        answer = client.post("/v1/code/execute", json={"language": language, "code": code}).json()["data"]
        assert answer["stdout"].split() == owner, answer


@pytest.mark.parametrize("place", ["/opt/aisandbox", "/usr/bin", "/etc", "/", "/var/lib", "/home"])
def test_the_image_cannot_be_changed(container: Container, place: str) -> None:
    assert inside(container, f"touch {place}/x").returncode != 0


def test_no_secret_and_no_trace_of_the_builder_is_in_it(container: Container) -> None:
    places = "/etc /home /root /var /opt/aisandbox/container /opt/aisandbox/lib"
    assert inside(container, f"grep -rlE 'PRIVATE KEY-----' {places} 2>/dev/null").stdout == ""
    assert inside(container, f"find {places} -name .npmrc -o -name pip.conf 2>/dev/null").stdout == ""
    assert inside(container, "command -v uv").stdout == ""
    assert inside(container, f"grep -rl {REPOSITORY} /etc {PATHS.opt}/container {PATHS.opt}/lib").stdout == ""


def test_it_is_published_on_loopback_only(container: Container) -> None:
    facts = container.facts()
    assert facts
    bindings = facts["HostConfig"]["PortBindings"]
    assert [(port, place["HostIp"]) for port, places in bindings.items() for place in places] == [
        ("8080/tcp", "127.0.0.1")
    ]


def test_limits_are_set(container: Container) -> None:
    facts = container.facts()
    assert facts
    assert facts["HostConfig"]["PidsLimit"] == 4096
    assert facts["HostConfig"]["Memory"] == 4 * 2**30


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_killed_program_comes_back(container: Container, client: httpx.Client, program: str) -> None:
    before, _ = programs(container)[program]
    children = inside(container, f"cat /proc/{before}/task/*/children").stdout.split()
    owner = SERVER if program == "sandbox-api" else str(sandbox.FIRST_USER)
    sandbox.podman("exec", "--user", owner, container.name, "sh", "-c", f"kill -KILL {before}")
    # They end a moment after it, and must leave what the next run has made.
    wait_for("the end of its children", lambda: not any(alive(container, child) for child in children))
    wait_for(f"another {program}", lambda: programs(container)[program][0] not in (0, before))
    wait_for("every part", lambda: ready(client))
    wait_for("the programs", lambda: all_run(container))


def test_files_of_the_workspace_are_the_hosts(container: Container, client: httpx.Client) -> None:
    (container.workspace / "from-host.txt").write_text("host")
    answer = client.post("/v1/file/read", json={"file": "/workspace/from-host.txt"}).json()
    assert answer["data"]["content"] == "host"
    client.post("/v1/shell/exec", json={"command": "echo inside > /workspace/from-inside.txt"}).raise_for_status()
    landed = container.workspace / "from-inside.txt"
    assert landed.read_text() == "inside\n"
    assert landed.stat().st_uid == container.workspace.stat().st_uid


def test_commands_find_python_node_and_the_users_programs(client: httpx.Client) -> None:
    command = (
        "python -c 'import numpy, pandas; print(1)' && node -e 'console.log(2)' && npm --version >/dev/null && whoami"
    )
    answer = client.post("/v1/shell/exec", json={"command": command}).json()
    assert answer["data"]["output"].split() == ["1", "2", "sandbox"]


def test_packages_can_be_installed_by_the_user(container: Container, client: httpx.Client) -> None:
    wheel(container.workspace)
    command = "pip install --quiet --no-index /workspace/hello_sandbox-1.0-py3-none-any.whl && hello-sandbox"
    answer = client.post("/v1/shell/exec", json={"command": command}).json()
    assert answer["data"]["output"].strip() == "hello", answer
    code = client.post("/v1/code/execute", json={"language": "python", "code": "import hello_sandbox; print(7)"}).json()
    assert "7" in str(code["data"]), code


def wheel(folder: Path) -> None:
    """A package with a command, as small as they come."""
    files = {
        "hello_sandbox.py": "def main():\n    print('hello')\n",
        "hello_sandbox-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: hello-sandbox\nVersion: 1.0\n",
        "hello_sandbox-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "hello_sandbox-1.0.dist-info/entry_points.txt": "[console_scripts]\nhello-sandbox = hello_sandbox:main\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    files["hello_sandbox-1.0.dist-info/RECORD"] = record + "hello_sandbox-1.0.dist-info/RECORD,,\n"
    with zipfile.ZipFile(folder / "hello_sandbox-1.0-py3-none-any.whl", "w") as package:
        for name, text in files.items():
            package.writestr(name, text)


def test_orphans_are_collected(container: Container) -> None:
    output(container, "(sleep 0.1 &) ; sleep 0.5")
    assert "Z" not in output(container, "cat /proc/[0-9]*/stat | sed 's/.*) //' | cut -c1 | sort -u")


def test_the_health_check_passes(container: Container) -> None:
    assert sandbox.podman("healthcheck", "run", container.name, check=False).returncode == 0


def test_state_and_workspace_outlive_the_container(start: Start, image: Image) -> None:
    first = start("again")
    output(first, "echo kept > ~/kept && echo kept > /workspace/kept")
    began = time.monotonic()
    sandbox.down(first)
    assert time.monotonic() - began < 15, "its programs must end when told to"
    second = start("again", first.workspace)
    assert output(second, "cat ~/kept /workspace/kept").split() == ["kept", "kept"]


def test_it_runs_as_the_owner_of_the_workspace(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    folder.mkdir()
    os.chown(folder, 4321, 4321)
    container = start("owner", folder)
    assert output(container, "id -u") == "4321"
    output(container, "touch /workspace/mine ~/mine")
    assert (folder / "mine").stat().st_uid == 4321


def test_compose_says_the_same_as_podman_is_told() -> None:
    """compose.yaml cannot be generated by those who only have Docker; this keeps it true."""
    service = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]["sandbox"]
    told = sandbox._arguments(Container(), 1000)
    pairs = list(zip(told, told[1:], strict=False))
    assert service["image"] == f"{archive.NAME}:latest"
    assert service["ports"] == [f"127.0.0.1:${{PORT:-{sandbox.PORT}}}:{sandbox.PORT}"]
    assert {("--tmpfs", mount) for mount in service["tmpfs"]} <= set(pairs)
    assert service["read_only"] and "--read-only" in told
    assert service["user"] == "0:0" and ("--user", "0:0") in pairs
    assert service["cap_drop"] == ["ALL"] and ("--cap-drop", "all") in pairs
    assert service["cap_add"] == [right for option, right in pairs if option == "--cap-add"]
    assert service["security_opt"] == ["no-new-privileges:true"] and ("--security-opt", "no-new-privileges") in pairs
    assert ("--shm-size", service["shm_size"]) in pairs
    assert [volume.rsplit(":", 1)[1] for volume in service["volumes"]] == [str(PATHS.workspace), str(sandbox.HOME)]
    assert service["pids_limit"] == 4096
