"""The whole appliance as one container, as a GPU cloud runs it: the tests are the life of one, in their order."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from aisandbox.builder import appliance_container
from aisandbox.builder.progress import Phases
from aisandbox.builder.sandbox import podman
from aisandbox.instance.choose.configure import SECRETS
from aisandbox.instance.observe.report import PHASES
from aisandbox.instance.run import services
from tests.support import whole
from tests.support.machines import Visitor, url, wait_for
from tests.support.whole import DATA, MANIFEST, Whole

GUIDE = MANIFEST.embedded_model.id
QUESTION = "Who are you?"
PATIENCE = 420.0
"""Seconds; the host may be busy."""
API_KEY = "sk-container-0123456789abcdef"
TOKEN = "hf_thisisnotarealtoken0123"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """Started as somebody does who chooses nothing, on an empty volume."""
    with Phases() as phases:
        image = appliance_container.bake_image("cpu", phases)
    folder = tmp_path_factory.mktemp("whole")
    with whole.container("aisandbox-test-whole", image, folder, "127.0.7.1") as container:
        container.run()
        try:
            wait_until_ready(container)
            yield container
        finally:
            # What pytest shows of a failed test.
            print("\n".join(container.logs().splitlines()[-150:]))


def wait_until_ready(container: Whole, port: str = "api", path: str = "/ready") -> None:
    def answers() -> bool:
        try:
            return httpx.get(url(container, port, path), timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    wait_for(f"{port}{path}", answers, PATIENCE)


def ready(container: Whole) -> None:
    """Wait until the API answers, and whoever opens the chat page gets it instead of the progress page."""
    wait_until_ready(container)
    wait_until_ready(container, "chat", "/aisandbox/ready")
    wait_until_ready(container, "chat", "/health")


def ask(container: Whole, model: str = GUIDE, **headers: str) -> httpx.Response:
    form = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 20}
    return httpx.post(url(container, "api", "/v1/chat/completions"), json=form, headers=headers, timeout=120)


# Without options


def test_chat_and_api_answer_through_the_published_ports(running: Whole) -> None:
    ready(running)
    answer = ask(running)
    assert answer.status_code == 200, answer.text
    assert "guide" in answer.json()["choices"][0]["message"]["content"]
    page = httpx.get(url(running, "chat", "/"), headers={"Accept": "text/html"})
    assert (page.status_code, "Open WebUI" in page.text) == (200, True)
    visitor = Visitor(running)
    assert "guide" in visitor.ask(GUIDE, QUESTION)
    visitor.keep("kept")


def test_all_is_well(running: Whole) -> None:
    # VS Code gives up a start that takes long, as on a busy host, and is tried again.
    wait_for("no problems", lambda: running.status()["problems"] == [], PATIENCE)
    overview = running.status()
    assert overview["state"] == "ready"
    assert {phase["phase"]: phase["state"] for phase in overview["phases"]} == dict.fromkeys(PHASES, "done")
    assert overview["ssh"].startswith("docker exec")
    assert podman("healthcheck", "run", running.name, check=False).returncode == 0


def test_every_service_of_the_catalogue_runs(running: Whole) -> None:
    def states() -> dict[str, str]:
        return {unit["name"]: unit["active"] for unit in running.status()["services"]}

    expected = dict.fromkeys(
        (services.VLLM, services.OPEN_WEBUI, services.AUXILIARY, services.NGINX, *services.SANDBOX), "active"
    )
    # It has done its work.
    expected[services.MODEL] = "inactive"
    wait_for("the services", lambda: states() == expected, PATIENCE)


def test_the_sandbox_is_for_the_chat_alone(running: Whole) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(url(running, "sandbox", "/v1/sandbox"), timeout=10)
    port = MANIFEST.ports["sandbox"].port
    parts = f"curl -s 'http://127.0.0.1:{port}/ready?need=shell,file,browser,vnc,jupyter,code-server'"
    wait_for("every part of the sandbox", lambda: json.loads(running.output(parts))["success"], PATIENCE)


def test_logs_name_their_programs(running: Whole) -> None:
    lines = running.logs().splitlines()
    for said in ("vllm: engine: serve done", "model: aisandbox/guide is on this instance.", "nginx: ", "Configured to"):
        assert any(line.startswith(said) for line in lines), said
    assert "serve done" in running.output("aisandbox logs vllm -n 5")
    assert running.exec("aisandbox logs --since today").returncode == 2


def test_services_are_users_of_their_own_without_rights(running: Whole) -> None:
    rows = [
        line.split(None, 2)
        for line in running.output("ps -eo user:20,pid,comm --no-headers").splitlines()
        if "ps" not in line and "sh" not in line.split()[-1:]
    ]
    users = {row[0] for row in rows}
    assert {"vllm", "open-webui", "auxiliary", "sandbox", "www-data"} <= users
    for user in ("vllm", "open-webui", "auxiliary", "sandbox"):
        pid = next(row[1] for row in rows if row[0] == user)
        told = running.output(f"cat /proc/{pid}/status")
        for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
            assert line in told, user


def test_the_sandboxs_server_is_out_of_reach(running: Whole) -> None:
    server = running.pid("sandbox-api")
    users = running.output(f"ps --no-headers -o euser:20=,ruser:20=,suser:20= -p {server}").split()
    assert users == ["sandbox", "sandbox-server", "sandbox-server"]
    for command in (f"kill -KILL {server}", f"kill -TERM {server}", f"cat /proc/{server}/environ"):
        assert running.exec(command, user="sandbox").returncode != 0, command
    assert running.pid("sandbox-api") == server


def test_nobody_names_a_visitor_past_the_gateway(running: Whole) -> None:
    """No firewall keeps the sandbox from Open WebUI's own port: it must not be believed there."""
    port = MANIFEST.ports["chat_upstream"].port
    known = running.output("grep -oP '(?<=TRUSTED_EMAIL_HEADER=).*' /etc/aisandbox/open-webui.env")

    def claim(header: str) -> str:
        return running.output(
            f"curl -s -o /dev/null -w '%{{http_code}}' -X POST -H 'Content-Type: application/json' "
            f'-H \'{header}: visitor@aisandbox.invalid\' -d \'{{"email":"","password":""}}\' '
            f"http://127.0.0.1:{port}/api/v1/auths/signin",
            "sandbox",
        )

    assert claim("X-Aisandbox-Visitor").startswith("4")
    assert claim(known) == "200", "who knows the name is believed"


def test_a_killed_engine_comes_back(running: Whole) -> None:
    before = running.pid("vllm")
    assert before
    running.output(f"kill -KILL {before}")
    wait_for("another engine", lambda: running.pid("vllm") not in (0, before))
    ready(running)
    assert ask(running).status_code == 200
    (unit,) = [unit for unit in running.status()["services"] if unit["name"] == "vllm.service"]
    assert unit["restarts"] == 1


def test_a_killed_gateway_comes_back(running: Whole) -> None:
    """Its workers outlive it and hold the ports."""
    find = "pgrep --full --oldest '^nginx: master'"
    before = running.output(find)
    running.output(f"kill -KILL {before}")
    wait_for("another gateway", lambda: running.exec(find).stdout.strip() not in ("", before))
    ready(running)


def test_a_change_is_made_inside_and_kept_in_the_volume(running: Whole) -> None:
    told = running.output("sudo aisandbox configure --served-name inside")
    assert "Restarting aisandbox-model.service" in told, told
    wait_for("the new name", lambda: ask(running, "inside").status_code == 200, PATIENCE)
    refused = running.exec("aisandbox configure --set domain=ai.example.com")
    assert refused.returncode == 2 and "proxy" in refused.stderr


def test_it_stops_in_seconds_and_starts_again_with_its_chats_and_choice(running: Whole) -> None:
    assert running.stop() < 9.5, "engines kill what takes ten seconds"
    podman("start", running.name)
    ready(running)
    assert Visitor(running).history() == {"kept"}
    assert "inside" in running.output("aisandbox configure --show")


# With options


@pytest.fixture(scope="module")
def guarded(running: Whole) -> Whole:
    """Made anew on the same volume, as after an update, with options and mistakes in them."""
    running.output("aisandbox configure --unset served_name >/dev/null")
    running.stop()
    running.run(
        AISANDBOX_API_KEY=API_KEY,
        AISANDBOX_HF_TOKEN=TOKEN,
        AISANDBOX_SERVED_NAME="my-model",
        AISANDBOX_MAX_MODEL_LEN="many",
        AISANDBOX_MODLE="Qwen/Qwen3-8B",
        AISANDBOX_ALLOWED_CIDRS="203.0.113.7",
        AISANDBOX_SANDBOX="public",
        AISANDBOX_VLLM_ARGS="",
        RUNPOD_POD_ID="abc123",
    )
    ready(running)
    return running


def test_options_come_from_the_environment(guarded: Whole) -> None:
    assert ask(guarded, "my-model").status_code == 401
    answer = ask(guarded, "my-model", Authorization=f"Bearer {API_KEY}")
    assert (answer.status_code, answer.json()["model"]) == (200, "my-model")


def test_mistakes_are_told_as_on_a_machine(guarded: Whole) -> None:
    problems = {problem["option"]: problem for problem in guarded.status()["problems"] if problem["option"]}
    assert set(problems) == {"max_model_len", "modle", "allowed_cidrs"}
    assert "whole number" in problems["max_model_len"]["reason"]
    assert problems["max_model_len"]["source"] == "environment variables"
    assert "Did you mean model?" in problems["modle"]["fix"]
    assert "firewall" in problems["allowed_cidrs"]["fix"]
    for problem in problems.values():
        assert problem["reason"] in guarded.logs()


def test_what_cannot_filter_addresses_asks_for_a_login(guarded: Whole) -> None:
    closed = httpx.post(url(guarded, "chat", "/api/v1/auths/signin"), json={"email": "", "password": ""})
    assert closed.status_code in (400, 401, 403), closed.text
    told = next(line for line in guarded.output("aisandbox keys").splitlines() if line.startswith("Chat"))
    email, password = told.split()[-2:]
    opened = httpx.post(url(guarded, "chat", "/api/v1/auths/signin"), json={"email": email, "password": password})
    assert opened.status_code == 200, opened.text
    headers = {"Authorization": f"Bearer {opened.json()['token']}"}
    chats = httpx.get(url(guarded, "chat", "/api/v1/chats/"), headers=headers).json()
    assert [chat["title"] for chat in chats] == ["kept"]


def test_a_public_sandbox_asks_for_its_key(guarded: Whole) -> None:
    told = next(line for line in guarded.output("aisandbox keys").splitlines() if line.startswith("Sandbox"))
    address = url(guarded, "sandbox", "/v1/sandbox")
    assert httpx.get(address).status_code == 401
    assert httpx.get(address, headers={"X-API-Key": told.split()[-1]}).status_code == 200


def test_the_platforms_proxy_is_known(guarded: Whole) -> None:
    endpoints = {endpoint["name"]: endpoint["url"] for endpoint in guarded.status()["endpoints"]}
    assert endpoints["chat"] == "https://abc123-3000.proxy.runpod.net/"
    assert endpoints["api"] == "https://abc123-8000.proxy.runpod.net/v1"
    # It hides the name that the browser used.
    for origin, allowed in (
        ("https://abc123-3000.proxy.runpod.net", True),
        ("https://abc124-3000.proxy.runpod.net", False),
    ):
        answer = httpx.get(url(guarded, "chat", "/api/config"), headers={"Origin": origin})
        assert (answer.status_code == 200) is allowed
    for host, status in (("abc123-3000.proxy.runpod.net", 200), ("abc124-3000.proxy.runpod.net", 421)):
        assert httpx.get(url(guarded, "chat", "/api/config"), headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "path",
    [
        "/etc/aisandbox/open-webui.env",
        "/etc/aisandbox/sandbox-api.env",
        "/etc/aisandbox/nginx/chat-login.conf",
        "/etc/aisandbox/nginx/api-lock.conf",
        "/etc/aisandbox/secrets/hf_token",
        "/run/aisandbox/environment.json",
        "/run/aisandbox/programs/aisandbox-model.credentials/hf_token",
        f"{DATA}/secrets/sandbox_key",
        f"{DATA}/options/options.yaml",
        f"{DATA}/open-webui/data/webui.db",
        "/var/log/aisandbox/vllm.log",
        "/proc/1/environ",
    ],
)
def test_the_sandbox_reads_no_secret(guarded: Whole, path: str) -> None:
    assert guarded.exec(f"test -e {path}").returncode == 0, "it must be there to be kept"
    assert guarded.exec(f"head -c 1 {path}", user="sandbox").returncode != 0
    assert guarded.exec("supervisorctl -s unix:///run/aisandbox/supervisor status", user="sandbox").returncode != 0


def test_no_secret_is_in_logs_or_in_what_the_sandbox_sees(guarded: Whole) -> None:
    secrets = {name: guarded.output(f"cat {DATA}/secrets/{name}") for name in SECRETS}

    def sandboxed(command: str) -> str:
        """What a command of a model prints."""
        answer = httpx.post(
            url(guarded, "sandbox", "/v1/shell/exec"),
            json={"command": command},
            headers={"X-API-Key": secrets["sandbox_key"]},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["output"])

    seen = sandboxed("id -un; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'")
    assert seen.startswith("sandbox\n")
    assert "SANDBOX_ROOT" in seen, "its own processes can be looked at"
    patterns = " ".join(f"-e {secret}" for secret in (API_KEY, TOKEN, *secrets.values()))
    places = "/etc /run /opt/aisandbox/container /var/log /var/lib/aisandbox"
    assert sandboxed(f"grep -rlsF {patterns} {places} || echo nothing").split()[-1] == "nothing"
    logs = guarded.logs()
    for secret in (API_KEY, TOKEN, *secrets.values()):
        assert secret not in logs
        # Its server has the key that it asks for.
        assert secret not in seen or secret == secrets["sandbox_key"]


def test_it_says_why_it_cannot_run(running: Whole) -> None:
    running.run("--user", "1000:1000")
    wait_for("its end", lambda: "must be started as root" in running.logs(), 60)
