"""Downloads by the real library, in their own process, against a small hub that misbehaves in every way."""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.fetch import cache, download, failures
from aisandbox.instance.fetch.download import Download, Progress
from aisandbox.instance.fetch.request import Listing, Request, wanted
from tests.support import https
from tests.support.hub import Hub, running

MODEL = "acme/tiny"
TOKEN = "hf_abcdefgh12345678"
MIB = 1024**2
SIZES = {"model-1-of-2.safetensors": 3 * MIB, "model-2-of-2.safetensors": MIB}
SMALL = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"[]", "generation_config.json": b"{}"}


def content(name: str) -> bytes:
    return hashlib.shake_128(name.encode()).digest(SIZES[name])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "hub" / MODEL
    folder.mkdir(parents=True)
    for name in SIZES:
        (folder / name).write_bytes(content(name))
    for name, data in SMALL.items():
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("read me")
    (folder / "pytorch_model.bin").write_bytes(b"the same in another format")
    with running(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "models" / "hub"
    path.mkdir(parents=True)
    return path


def ask(server: Hub, model: str = MODEL, **rest: Any) -> Request:
    return Request(model, **{"endpoint": server.endpoint, **rest})


def get(request: Request, store: Path, xet: bool = False) -> tuple[Path, list[Progress]]:
    with Download(request, store, xet=xet) as attempt:
        attempt.look_up()
        progress = list(attempt.fetch())
        return attempt.folder, progress


def whole(folder: Path) -> bool:
    return all((folder / name).read_bytes() == content(name) for name in SIZES)


def blobs(server: Hub) -> int:
    """How many downloads of large files there were."""
    return sum(count for what, count in server.requests.items() if what.startswith(f"GET /{MODEL}/model-"))


def test_a_model_arrives_in_the_standard_cache(server: Hub, store: Path) -> None:
    with Download(ask(server), store) as attempt:
        listing = attempt.look_up()
        assert server.sent < 100, "no weight yet"
        list(attempt.fetch())
        folder = attempt.folder
    assert listing.weights == SIZES
    assert json.loads(listing.config or "") == {"model_type": "llama"}
    assert folder == store / "models--acme--tiny" / "snapshots" / listing.commit
    assert {path.name for path in folder.iterdir()} == {*SIZES, *SMALL}
    assert whole(folder)
    assert all(path.is_symlink() and path.resolve().parent == folder.parents[1] / "blobs" for path in folder.iterdir())
    assert (folder.parents[1] / "refs" / "main").read_text() == listing.commit
    offline = "from huggingface_hub import snapshot_download as s; print(s('acme/tiny', allow_patterns='model-*'))"
    environment = {"HF_HOME": str(store.parent), "HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"]}
    found = subprocess.run([sys.executable, "-c", offline], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(folder), "other tools find it"


def test_what_is_complete_needs_no_hub(server: Hub, store: Path) -> None:
    assert cache.complete(store, MODEL, "main") is None
    folder, _ = get(ask(server), store)
    server.requests.clear()
    assert cache.complete(store, MODEL, "main") == folder
    assert cache.complete(store, MODEL, folder.name) == folder
    assert cache.complete(store, MODEL, "v2") is None
    assert cache.complete(store, MODEL, "../../../etc") is None
    assert not server.requests


def test_verified_files_are_not_read_again(server: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = get(ask(server), store)
    read: list[str] = []
    digest = cache.digest

    def reading(path: Path, like: str) -> str:
        read.append(path.name)
        return digest(path, like)

    monkeypatch.setattr(cache, "digest", reading)
    assert cache.complete(store, MODEL, "main") == folder
    assert not read
    weights = (folder / "model-1-of-2.safetensors").resolve()
    os.utime(weights)
    assert cache.complete(store, MODEL, "main") == folder
    assert cache.complete(store, MODEL, "main") == folder
    assert read == ["model-1-of-2.safetensors"], "read once, then known"
    weights.write_bytes(b"x" * SIZES["model-1-of-2.safetensors"])
    assert cache.complete(store, MODEL, "main") is None
    assert not weights.exists(), "damaged files are removed"
    sent = server.sent
    assert whole(get(ask(server), store)[0])
    assert server.sent - sent == SIZES["model-1-of-2.safetensors"], "only the damaged one is fetched"


def test_progress(server: Hub, store: Path) -> None:
    server.faults.bytes_per_second = 2 * MIB
    _, seen = get(ask(server), store)
    done = [progress.bytes_done for progress in seen]
    total = sum(SIZES.values()) + sum(map(len, SMALL.values()))
    assert done == sorted(done)
    assert len(done) >= 3
    assert (done[-1], {progress.bytes_total for progress in seen}) == (total, {total})
    assert any(MIB < progress.bytes_per_second < 8 * MIB for progress in seen)


def test_speed_and_time_left_come_from_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    speed = download._Speed(1000)
    assert (speed.at(0).bytes_per_second, speed.at(0).eta_s) == (0, None)
    for second in range(1, 31):
        clock[0] = second
        last = speed.at(min(second, 10) * 10)  # 10 bytes a second, then nothing
    assert (last.bytes_done, last.bytes_per_second, last.eta_s) == (100, 0, None)
    clock[0] = 31
    assert 0 < speed.at(110).bytes_per_second <= 1


# Interruptions


def test_a_connection_that_breaks_goes_on_where_it_was(server: Hub, store: Path) -> None:
    server.faults.cut_after = 2 * MIB
    folder, _ = get(ask(server), store)
    assert whole(folder)
    assert server.sent < sum(SIZES.values()) + MIB // 2
    assert blobs(server) == 3


@pytest.mark.parametrize("ranges", ["kept", "ignored"])
def test_a_killed_download_goes_on_where_it_was(server: Hub, store: Path, ranges: str) -> None:
    server.faults.bytes_per_second = MIB
    with Download(ask(server), store) as attempt:
        attempt.look_up()
        for progress in attempt.fetch():
            if progress.bytes_done > MIB:
                attempt._process.send_signal(signal.SIGKILL)
                break
        with pytest.raises(UnreachableError, match=r"stopped unexpectedly \(signal 9\)"):
            list(attempt.fetch())
    time.sleep(0.2)
    assert cache.complete(store, MODEL, "main") is None
    server.faults.bytes_per_second = None
    server.faults.ignore_ranges = ranges == "ignored"
    sent = server.sent
    folder, seen = get(ask(server), store)
    assert whole(folder)
    assert all(progress.bytes_done <= progress.bytes_total for progress in seen)
    if ranges == "kept":
        assert server.sent - sent < sum(SIZES.values()) - MIB // 2


def test_a_worker_ends_with_its_caller(server: Hub, store: Path) -> None:
    server.faults.bytes_per_second = 100_000
    caller = f"""
import time
from pathlib import Path
from aisandbox.instance.fetch.download import Download
from aisandbox.instance.fetch.request import Request
attempt = Download(Request("{MODEL}", endpoint="{server.endpoint}"), Path("{store}"))
attempt.look_up()
print(attempt._process.pid, flush=True)
for progress in attempt.fetch():
    pass
"""
    process = subprocess.Popen([sys.executable, "-c", caller], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            return
        time.sleep(0.05)
    pytest.fail("the worker goes on without its caller")


def test_a_package_in_the_current_folder_is_not_ours(
    server: Hub, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may call `aisandbox` in a folder where others write, such as the workspace."""
    planted = tmp_path / "aisandbox"
    planted.mkdir()
    (planted / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    folder, _ = get(ask(server), store)
    assert whole(folder)
    assert not (tmp_path / "ran").exists()


def test_a_file_cut_short_by_a_power_cut_is_completed(server: Hub, store: Path) -> None:
    folder, _ = get(ask(server), store)
    blob = (folder / "model-1-of-2.safetensors").resolve()
    os.truncate(blob, 2 * MIB)
    assert cache.complete(store, MODEL, "main") is None
    sent = server.sent
    assert whole(get(ask(server), store)[0])
    assert server.sent - sent <= SIZES["model-1-of-2.safetensors"]


def test_leftovers_of_interrupted_downloads_are_removed(server: Hub, store: Path) -> None:
    leftover = store / "models--acme--tiny" / "blobs" / "0123.4567.incomplete"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"x")
    get(ask(server), store)
    assert not leftover.exists()


def test_a_stalled_file_is_asked_for_again(server: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 12.0)
    server.faults.stall_after = 2 * MIB
    folder, _ = get(ask(server), store)
    assert whole(folder)
    assert blobs(server) == 3


def test_a_stalled_hub_is_given_up(server: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The worker gives up after half of it, its own start included.
    monkeypatch.setattr(download, "STALL_SECONDS", 20.0)
    server.faults.stalled_api = True
    assert "broke off" in str(trouble(ask(server), store))


def test_a_worker_that_hangs_is_ended(server: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Download(ask(server), store) as attempt:
        attempt.look_up()
        monkeypatch.setattr(download, "STALL_SECONDS", 2.0)
        attempt._process.send_signal(signal.SIGSTOP)
        with pytest.raises(UnreachableError, match="Nothing has arrived from http.* for 2 s"):
            list(attempt.fetch())
    assert attempt._process.returncode == -signal.SIGKILL


def test_two_at_once_do_not_mix(server: Hub, store: Path) -> None:
    server.faults.bytes_per_second = 10_000
    with Download(ask(server), store) as first:
        first.look_up()
        next(first.fetch())
        # Only now: a look-up takes the lock for a moment, too.
        with (
            Download(ask(server), store) as second,
            pytest.raises(UnreachableError, match="by another process already"),
        ):
            second.look_up()


# Wrong bytes


def test_wrong_bytes_are_fetched_again(server: Hub, store: Path) -> None:
    server.faults.wrong_bytes = 1
    folder, seen = get(ask(server), store)
    assert whole(folder)
    assert blobs(server) == 3
    assert seen[-1].bytes_done == seen[-1].bytes_total


def test_wrong_bytes_twice_are_explained(server: Hub, store: Path) -> None:
    server.faults.wrong_bytes = 10**6
    with pytest.raises(UnobtainableError, match=r"arrives corrupted .*: model-\d-of-2\..* has a wrong checksum"):
        get(ask(server), store)
    assert not list((store / "models--acme--tiny" / "blobs").glob("?" * 64))
    server.faults.wrong_bytes = 0
    assert whole(get(ask(server), store)[0])


def test_small_files_are_checked_too(server: Hub, store: Path) -> None:
    server.faults.wrong_small = 1
    assert whole(get(ask(server), store)[0])
    shutil.rmtree(store)
    store.mkdir()
    server.faults.wrong_small = 10**6
    with pytest.raises(UnobtainableError, match="config.json has a wrong checksum"):
        get(ask(server), store)


# What a hub may refuse


def refusal(request: Request, store: Path) -> UnobtainableError:
    with pytest.raises(UnobtainableError) as caught, Download(request, store) as attempt:
        attempt.look_up()
        list(attempt.fetch())
    return caught.value


def trouble(request: Request, store: Path) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught, Download(request, store) as attempt:
        attempt.look_up()
        list(attempt.fetch())
    return caught.value


@pytest.mark.parametrize(
    ("asked", "known", "meant"),
    [
        ("acme/tinny", (), "acme/tiny"),
        ("ACME/Tiny", (), "acme/tiny"),
        ("acne/tiny", (), "acme/tiny"),
        ("Qwen/Qwen3.8-27B-FP9", ("Qwen/Qwen3.8-27B-FP8",), "Qwen/Qwen3.8-27B-FP8"),
    ],
)
def test_the_nearest_names_are_suggested(
    server: Hub, store: Path, asked: str, known: tuple[str, ...], meant: str
) -> None:
    error = refusal(ask(server, asked, known=known), store)
    assert str(error) == f"There is no model {asked} at {server.endpoint}."
    assert f"Did you mean {meant}? Then: sudo aisandbox configure --model {meant}." in error.fix


def test_a_name_like_no_other(server: Hub, store: Path) -> None:
    error = refusal(ask(server, "nobody/nothing-of-the-kind"), store)
    assert "Check organisation and name" in error.fix
    assert "hf_token" in error.fix
    assert "There is no model a..b/c" in str(refusal(ask(server, "a..b/c"), store))


def test_a_revision_that_is_not_there(server: Hub, store: Path) -> None:
    error = refusal(ask(server, revision="v9"), store)
    assert "has no revision v9" in str(error)
    assert "--unset revision" in error.fix


def test_gated_models(server: Hub, store: Path) -> None:
    server.faults.gated, server.faults.token = {MODEL}, TOKEN
    error = refusal(ask(server), store)
    assert "needs the access token of an account that accepted its terms" in str(error)
    assert f"{server.endpoint}/{MODEL}" in error.fix
    assert "--set hf_token" in error.fix
    error = refusal(ask(server, token="hf_wrongwrongwrong"), store)
    assert "refused the access token" in str(error)
    error = refusal(ask(server, token=TOKEN), store)
    assert "may not use it" in str(error)
    server.faults.accepted = {MODEL}
    assert whole(get(ask(server, token=TOKEN), store)[0])
    assert not server.leaked, "the storage is not told the token"


def test_a_token_stays_between_us_and_the_hub(server: Hub, store: Path) -> None:
    assert TOKEN not in repr(ask(server, token=TOKEN))
    with Download(ask(server, token=TOKEN), store) as attempt:
        process = Path(f"/proc/{attempt._process.pid}")
        assert TOKEN.encode() not in (process / "cmdline").read_bytes() + (process / "environ").read_bytes()


def test_a_disabled_model(server: Hub, store: Path) -> None:
    server.faults.disabled = {MODEL}
    assert "was disabled by its hub" in str(refusal(ask(server), store))


@pytest.mark.parametrize(("names", "formats"), [(["model.gguf", "README.md"], ".gguf"), (["README.md"], "no files")])
def test_formats_that_vllm_cannot_load(server: Hub, store: Path, names: list[str], formats: str) -> None:
    folder = server.folder / "acme" / "other"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("x")
    error = refusal(ask(server, "acme/other"), store)
    assert f"has no safetensors weights, which are needed here (it has {formats})" in str(error)
    assert server.sent == 0


@pytest.mark.parametrize("files_only", [False, True])
@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [
        (503, {}, None),
        (500, {}, None),
        (429, {"retry_after_s": 77}, 77.0),
        (503, {"retry_after_s": 12}, 12.0),
        (429, {"rate_limit_s": 55}, 55.0),
    ],
)
def test_a_busy_hub(
    server: Hub, store: Path, status: int, headers: dict[str, int], wait: float | None, files_only: bool
) -> None:
    faults = server.faults
    faults.unavailable, faults.status, faults.files_only = 10**6, status, files_only
    for name, value in headers.items():
        setattr(faults, name, value)
    began = time.monotonic()
    error = trouble(ask(server), store)
    assert f"answered {status}" in str(error)
    assert error.wait_s == wait
    assert time.monotonic() - began < 20, "the library does not wait on its own"
    assert sum(server.requests.values()) <= 5


def test_a_hub_may_name_the_time_to_come_back(server: Hub, store: Path) -> None:
    server.faults.unavailable, server.faults.status = 10**6, 503
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    server.faults.retry_after_s = email.utils.format_datetime(then, usegmt=True)
    error = trouble(ask(server), store)
    assert error.wait_s is not None
    assert 60 < error.wait_s <= 100


def test_a_long_listing_comes_in_pages(server: Hub, store: Path) -> None:
    server.faults.page = 2
    assert whole(get(ask(server), store)[0])


# Networks


def test_no_network_at_all(store: Path) -> None:
    error = trouble(Request(MODEL, endpoint="http://127.0.0.1:9"), store)
    assert "http://127.0.0.1:9 cannot be reached (" in str(error)


def test_a_name_that_dns_does_not_know(store: Path) -> None:
    error = trouble(Request(MODEL, endpoint="http://no-such-host.invalid"), store)
    assert "the name no-such-host.invalid is not found by DNS" in str(error)


@pytest.mark.parametrize(
    ("first", "last", "why"),
    [
        (2080, 2090, "not yet valid"),
        (2010, 2011, "expired"),
    ],
)
def test_a_wrong_clock(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, first: int, last: int, why: str
) -> None:
    with https.running(tmp_path, first, last) as (endpoint, certificate):
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        error = trouble(Request(MODEL, endpoint=endpoint), store)
    assert why in str(error)
    assert f"The clock of this instance says {datetime.datetime.now(datetime.UTC).date()}" in str(error)
    assert str(error).endswith("see: timedatectl.")


def test_proxies_are_used(server: Hub, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "cannot be reached" in str(trouble(Request(MODEL, endpoint="http://hub.example"), store))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert whole(get(ask(server), store)[0])


def answering(body: bytes, status: int = 200) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"<html>Welcome!</html>", 200), (b"[]", 200), (b"{}", 200), (b"null", 200), (b"<html>Nothing here</html>", 404)],
)
def test_something_else_at_the_address(store: Path, body: bytes, status: int) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), answering(body, status)) as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        error = refusal(Request(MODEL, endpoint=f"http://127.0.0.1:{other.server_address[1]}"), store)
        other.shutdown()
    assert "does not answer like a model hub" in str(error)
    assert "--unset hub_endpoint" in error.fix


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a cache on a file system of so many MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "small" / "hub"
    place.mkdir(parents=True)

    def mount(mib: int) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", place], check=True)
        return place

    yield mount
    subprocess.run(["umount", "--lazy", place], check=False)


def fill(hog: Path, leaving: int) -> None:
    """Take the space of the disk but for so many bytes, while a download takes some of it, too."""
    with hog.open("wb") as file:
        while (free := shutil.disk_usage(hog.parent).free) > leaving:
            with suppress(OSError):
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free - leaving)


def test_too_small_a_disk_is_noticed_before_the_download(server: Hub, small_disk: Callable[[int], Path]) -> None:
    error = refusal(ask(server), small_disk(64))
    assert "The disk is too small for acme/tiny: it needs 0.0 GB more and 0.1 GB are free" in str(error)
    assert "aisandbox models list" in error.fix
    assert server.sent < 100


def test_a_disk_that_fills_up_meanwhile(server: Hub, small_disk: Callable[[int], Path]) -> None:
    store = small_disk(700)
    server.faults.bytes_per_second = MIB
    with Download(ask(server), store) as attempt:
        attempt.look_up()
        arriving = attempt.fetch()
        next(arriving)
        fill(store / "hog", leaving=2 * MIB)
        with pytest.raises(UnobtainableError, match="The disk is too small for acme/tiny: No space left on device"):
            list(arriving)
    (store / "hog").unlink()
    server.faults.bytes_per_second = None
    sent = server.sent
    assert whole(get(ask(server), store)[0])
    assert server.sent - sent < sum(SIZES.values()), "what had arrived was kept"


def test_a_disk_that_cannot_be_written(server: Hub, store: Path) -> None:
    store.chmod(0o500)
    if os.geteuid() == 0:
        (store / ".locks").write_text("in the way")
        with pytest.raises(UnreachableError):
            get(ask(server), store)
    else:
        assert "cannot be stored" in str(refusal(ask(server), store))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (PermissionError(13, "Permission denied", "/data"), UnobtainableError, "cannot be stored: Permission denied"),
        (OSError(30, "Read-only file system"), UnobtainableError, "cannot be stored: Read-only file system"),
        (httpx2.ProxyError("407 Proxy Authentication Required"), UnreachableError, "the proxy of this instance failed"),
        (httpx2.ReadTimeout("The read operation timed out"), UnreachableError, "broke off (The read operation timed"),
        (httpx2.ConnectError("[Errno -3] Temporary failure in name resolution"), UnreachableError, "by DNS"),
        (RuntimeError("a bug"), type(None), "None"),
    ],
)
def test_other_failures(error: Exception, kind: type, text: str) -> None:
    explained = failures.explain(error, Request(MODEL))
    assert type(explained) is kind
    assert text in str(explained)


# Files


@pytest.mark.parametrize(
    ("names", "needed"),
    [
        (["model.safetensors", "config.json", "README.md"], {"model.safetensors", "config.json"}),
        (["m-1-of-2.safetensors", "m-2-of-2.safetensors", "a.bin"], {"m-1-of-2.safetensors", "m-2-of-2.safetensors"}),
        (["pytorch_model.bin", "training_args.bin", "vocab.txt"], {"pytorch_model.bin", "vocab.txt"}),
        (["model.safetensors", "consolidated.safetensors"], {"model.safetensors"}),
        (["consolidated.safetensors", "params.json"], {"consolidated.safetensors", "params.json"}),
        (["model.safetensors", "original/model.safetensors", "original/config.json"], {"model.safetensors"}),
        (["model.safetensors", "1_Pooling/config.json"], {"model.safetensors", "1_Pooling/config.json"}),
        (["model.gguf", "config.json"], set()),
        ([], set()),
    ],
)
def test_the_files_that_are_needed(names: list[str], needed: set[str]) -> None:
    assert set(wanted(names)) == needed


def test_weights_are_told_apart() -> None:
    listing = Listing("c" * 40, {"model.safetensors": 5, "config.json": 1}, "{}")
    assert listing.weights == {"model.safetensors": 5}


def test_models_on_disk_are_listed_and_removed(server: Hub, store: Path) -> None:
    folder, _ = get(ask(server), store)
    (store / "models--acme--half" / "blobs").mkdir(parents=True)
    (store / "models--acme--half" / "blobs" / "ab.incomplete").write_bytes(b"x" * 5000)
    half, tiny = cache.models(store)
    assert (half.model, half.commits, half.complete) == ("acme/half", (), False)
    assert (tiny.model, tiny.commits, tiny.complete) == (MODEL, (folder.name,), True)
    assert tiny.size_bytes >= sum(SIZES.values())
    assert cache.remove(store, MODEL)
    assert cache.remove(store, "acme/half")
    assert not cache.remove(store, MODEL)
    assert cache.models(store) == []
    assert not list(store.rglob("*.safetensors"))
