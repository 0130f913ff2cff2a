"""The process that talks to a model hub: `python -m aisandbox.instance.fetch.worker`.

It does what `download` asks on its standard input, one JSON object on each line, and answers the same way:

    {"request": {...}, "cache": PATH, ...}   ->  {"found": {commit, sizes, config, quant_config}}
    {"go": true}                             ->  {"bytes": N} again and again, then {"folder": PATH}
    anything that fails                      ->  {"unobtainable": [message, fix]} or {"unreachable": [message, wait]}

When its standard input ends, whoever asked is gone, and so is the worker.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_download, set_client_factory, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import default_client_factory, hf_raise_for_status

from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.fetch import blobs, cache, failures
from aisandbox.instance.fetch.blobs import Blob
from aisandbox.instance.fetch.request import MAX_CONFIG_BYTES, Listing, Request, wanted

PARALLEL = 8
PARALLEL_XET = 2
"""Xet fetches parts of one file side by side, and loses unfinished files when it is stopped."""
REPORT_SECONDS = 0.25
SEARCHED = 100
BUSY_STATUS = (408, 429)


class Worker:
    """One look-up, then one download."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.request = Request(**{**job["request"], "known": tuple(job["request"]["known"])})
        self.cache = Path(job["cache"])
        self.timeout_s = float(job["timeout_s"])
        self.repository = cache.Repository.of(self.cache, self.request.model)
        self.token = self.request.token or False  # never a token that lies about elsewhere
        self.api = HfApi(endpoint=self.request.endpoint, token=self.token)
        self.listing: Listing | None = None
        self.tree: dict[str, RepoFile] = {}
        self._lock: int | None = None

    def look_up(self) -> Listing:
        """What the hub has: the commit, the files that are needed, and the configuration's text."""
        request = self.request
        try:
            info = self.api.model_info(request.model, revision=request.revision, timeout=self.timeout_s)
            commit = str(info.sha)
            if not cache.COMMIT.fullmatch(commit):
                raise ValueError(f"commit {commit[:50]}")
            tree = self.api.list_repo_tree(request.model, revision=commit, recursive=True)
            self.tree = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        except (HfHubHTTPError, HFValidationError):
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise failures.ForeignAnswerError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        names = wanted(self.tree)
        if not names:
            formats = ", ".join(sorted({PurePosixPath(name).suffix for name in self.tree} - {"", ".md"})) or "no files"
            raise UnobtainableError(
                f"{request.model} has no safetensors weights, which are needed here (it has {formats}).",
                f"Choose a model with safetensors weights: {failures.CHOOSE}",
            )
        with self._only_one():
            config, quant_config = (self._text(name, commit) for name in ("config.json", "hf_quant_config.json"))
        sizes = {name: self.tree[name].size for name in names}
        self.listing = Listing(commit, sizes, config, quant_config)
        return self.listing

    def _text(self, name: str, commit: str) -> str | None:
        if name not in self.tree:
            return None
        if self.tree[name].size > MAX_CONFIG_BYTES:
            raise UnobtainableError(f"{self.request.model} has an absurd {name}.", f"Choose another: {failures.CHOOSE}")
        path = self._download(name, commit)
        return path.read_text(encoding="utf-8", errors="replace")

    def _download(self, name: str, commit: str) -> Path:
        """One small file, verified."""
        entry = self.tree[name]
        for _ in range(2):
            path = Path(
                hf_hub_download(
                    self.request.model,
                    name,
                    revision=commit,
                    cache_dir=self.cache,
                    endpoint=self.request.endpoint,
                    token=self.token,
                    etag_timeout=self.timeout_s,
                    tqdm_class=_SilentBar,
                )
            )
            if path.stat().st_size == entry.size and cache.digest(path, checksum(entry)) == checksum(entry):
                return path
            self.repository.discard(path)
        raise failures.CorruptedError(name)

    def download(self, on_bytes: Callable[[int], None]) -> Path:
        """Everything that the look-up found, verified and pinned. Returns the model's folder."""
        assert self.listing is not None
        with self._only_one():
            return self._fetch(self.listing, on_bytes)

    def _fetch(self, listing: Listing, on_bytes: Callable[[int], None]) -> Path:
        commit, repository = listing.commit, self.repository
        folder = repository.snapshot(commit)
        record = repository.record(commit)
        stamps = {name: stamp for name, stamp in record.items() if stamp.fits(folder / name)}
        missing = [self.tree[name] for name in listing.sizes if name not in stamps]
        by_xet = [entry for entry in missing if entry.xet_hash and not constants.HF_HUB_DISABLE_XET]
        large = [
            Blob(entry.path, entry.size, entry.lfs.sha256) for entry in missing if entry.lfs and entry not in by_xet
        ]
        self._sweep({blob.digest for blob in large})
        here = sum(listing.sizes[name] for name in stamps) + sum(blob.here(repository) for blob in large)
        needed = sum(listing.sizes.values()) - here
        free = shutil.disk_usage(self.cache).free
        if needed + blobs.FREE_BYTES_KEPT > free and needed > 0:
            raise failures.LowDiskError(needed, free)
        meter = Meter(here, on_bytes)
        transfer = blobs.Transfer(self.request, commit, repository, meter.advance, self.timeout_s)
        # The largest go first, so that no single one is left at the end; one content may have several names.
        order = sorted({blob.digest: blob for blob in large}.values(), key=lambda blob: -blob.size)
        pool = ThreadPoolExecutor(PARALLEL)
        try:
            for done in as_completed([pool.submit(transfer.fetch, blob) for blob in order]):
                done.result()
            self._snapshot(commit, list(listing.sizes), meter)
            checked = {blob.name for blob in large}
            unchecked = [entry for entry in missing if entry.path not in checked]
            for _ in pool.map(lambda entry: self._check(entry, folder, commit, meter), unchecked):
                pass
        finally:
            # After a failure, whatever still runs ends with the process; what has arrived is kept.
            pool.shutdown(wait=False, cancel_futures=True)
        stamps |= {entry.path: cache.Stamp.of(folder / entry.path, checksum(entry)) for entry in missing}
        repository.save_record(commit, stamps)
        repository.pin(self.request.revision, commit)
        on_bytes(sum(listing.sizes.values()))
        return folder

    def _snapshot(self, commit: str, names: list[str], meter: Meter) -> None:
        """Let the library fetch the rest and lay out the snapshot; large files are in place by now."""
        snapshot_download(
            self.request.model,
            revision=commit,
            cache_dir=self.cache,
            allow_patterns=[glob.escape(name) for name in names],
            endpoint=self.request.endpoint,
            token=self.token,
            etag_timeout=self.timeout_s,
            max_workers=PARALLEL if constants.HF_HUB_DISABLE_XET else PARALLEL_XET,
            tqdm_class=meter.bars(),
        )

    def _check(self, entry: RepoFile, folder: Path, commit: str, meter: Meter) -> None:
        """Read a file that the library has fetched; fetch it again when its checksum is wrong."""
        path, expected = folder / entry.path, checksum(entry)
        if cache.digest(path, expected, lambda _: meter.advance(0)) != expected:
            self.repository.discard(path)
            self._download(entry.path, commit)

    def _sweep(self, digests: set[str]) -> None:
        """Remove what interrupted downloads have left, except the parts of these files."""
        for path in self.repository.blobs.glob("*.incomplete"):
            if path.name.removesuffix(".incomplete") not in digests:
                path.unlink(missing_ok=True)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Two processes must not write the same files: the service, and `aisandbox models pull`."""
        path = self.cache / ".locks" / self.repository.path.name / "download.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise failures.BusyError from None
            yield

    def similar(self) -> Iterator[str]:
        """Names that may have been meant: listed ones, those of the organisation, and those with such a name."""
        yield from self.request.known
        organisation, _, name = self.request.model.partition("/")
        for query in ({"author": organisation}, {"search": name}):
            try:
                found = self.api.list_models(**query, sort="downloads", limit=SEARCHED)  # type: ignore[arg-type]
                yield from (model.id for model in found)
            except (httpx2.HTTPError, OSError, ValueError, TypeError, KeyError):
                continue


def checksum(entry: RepoFile) -> str:
    """What the hub says that the file's content is: sha256 of a large one, git's blob id of a small one."""
    return str(entry.lfs.sha256 if entry.lfs else entry.blob_id)


class Meter:
    """Adds up bytes from every thread, and passes the sum on now and then."""

    def __init__(self, here: int, on_bytes: Callable[[int], None]) -> None:
        self._done = here
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._reported = 0.0
        self._bars: dict[int, float] = {}

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._report()

    def bars(self) -> type[Any]:
        """A class of progress bars for the library, which report here and draw nothing."""
        meter = self

        class Bar(_SilentBar):
            def update(self, n: float | None = 1) -> None:
                super().update(n)
                if self.unit == "B":
                    with meter._lock:
                        meter._bars[id(self)] = self.n
                        meter._report()

        return Bar

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            # The library counts bytes twice, as received and as written; the one ahead is the truth.
            self._on_bytes(self._done + int(max(self._bars.values(), default=0)))


class _SilentBar:
    """As much of tqdm's progress bar as the library uses, drawing nothing."""

    def __init__(self, *_: Any, total: float | None = None, initial: float = 0, unit: str = "it", **__: Any) -> None:
        self.n = initial
        self.total = total
        self.unit = unit
        self.format_dict: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def update(self, n: float | None = 1) -> None:
        self.n += n or 0

    def _ignore(self, *_: Any, **__: Any) -> None:
        pass

    close = refresh = set_description = set_description_str = set_postfix_str = _ignore


def client() -> httpx2.Client:
    """The library's HTTP client, but one that leaves waiting to us.

    The library sleeps and tries again by itself, for minutes and unseen, when a hub is busy.
    """
    made = default_client_factory()
    made.event_hooks = {"request": made.event_hooks["request"], "response": [_raise_busy]}
    return made


def _raise_busy(response: httpx2.Response) -> None:
    if response.status_code in BUSY_STATUS or response.status_code >= httpx2.codes.INTERNAL_SERVER_ERROR:
        response.read()
        hf_raise_for_status(response)


def answer(kind: str, value: object) -> None:
    print(json.dumps({kind: value}), flush=True)


def serve(job: dict[str, Any], go: threading.Event) -> None:
    """Do the job, answering as it goes."""
    worker = Worker(job)
    try:
        answer("found", asdict(worker.look_up()))
        go.wait()
        answer("folder", str(worker.download(lambda count: answer("bytes", count))))
    except UnobtainableError as error:
        answer("unobtainable", [str(error), error.fix])
    except Exception as error:
        suggest = worker.similar() if isinstance(error, RepositoryNotFoundError | HFValidationError) else ()
        explained = failures.explain(error, worker.request, suggest)
        if isinstance(explained, UnobtainableError):
            answer("unobtainable", [str(explained), explained.fix])
        elif isinstance(explained, UnreachableError):
            answer("unreachable", [str(explained), explained.wait_s])
        else:
            raise


def main() -> None:
    """Answer what is asked until the questions end."""
    job = json.loads(sys.stdin.readline())
    set_client_factory(client)
    go = threading.Event()

    def listen() -> None:
        if sys.stdin.readline():
            go.set()
            sys.stdin.readline()
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    status = 1
    try:
        serve(job, go)
        status = 0
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(status)  # threads may hang, or go on for hours


if __name__ == "__main__":
    main()
