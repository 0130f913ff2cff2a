"""Downloads from a model hub, with every failure told apart: worth retrying, or for the user to resolve."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import httpx2
from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.places import cache_name

GIVE_ACCESS = "sudo aisandbox configure --set hf_token=hf_…"
CHOOSE = "sudo aisandbox configure --model ORGANISATION/NAME"
SMALL_FILES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
OTHER_FORMATS = {"original", "metal", "onnx", "openvino", "coreml"}
"""Folders that publishers keep copies of the weights in, for other programs than vLLM."""
REPORT_SECONDS = 0.5
ESTIMATE_AFTER_SECONDS = 2.0
"""Before that, a speed says nothing about the time left."""
CHUNK_BYTES = 1024**2
FREE_BYTES_KEPT = 512 * 1024**2
"""Disk space that a download must leave for everything else."""


@dataclass(frozen=True)
class Request:
    """Which model to get, and from where."""

    model: str
    revision: str
    endpoint: str | None
    token: str | None

    @property
    def address(self) -> str:
        return (self.endpoint or constants.ENDPOINT).rstrip("/")


@dataclass(frozen=True)
class Progress:
    """How far a download is. Sizes in bytes, times in seconds."""

    bytes_done: int
    bytes_total: int
    bytes_per_second: float
    eta_s: float | None


def wanted(names: Iterable[str]) -> list[str]:
    """The files that vLLM needs of a repository: one set of weights, configuration and tokenizer.

    Empty when there are no weights that vLLM can load.
    """
    names = [name for name in names if not OTHER_FORMATS & set(PurePosixPath(name).parts[:-1])]
    for suffix in (".safetensors", ".bin"):
        weights = [name for name in names if name.endswith(suffix) and "/" not in name and name != "training_args.bin"]
        # Some publishers add the same weights again, in one piece or under their own format's name.
        weights = [name for name in weights if not name.startswith("consolidated")] or weights
        if weights:
            return weights + [name for name in names if name.endswith(SMALL_FILES)]
    return []


def cached(request: Request, cache: Path) -> Path | None:
    """The model's folder when it is complete on disk; asks no network."""
    try:
        tree = get_cached_repo_tree(request.model, revision=request.revision, cache_dir=cache)
        names = wanted(file.path for file in tree)
        folder = snapshot_download(
            request.model,
            revision=request.revision,
            cache_dir=cache,
            allow_patterns=names,
            local_files_only=True,
        )
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError, HFValidationError):
        return None
    sizes = {file.path: file.size for file in tree}
    complete = names and all((Path(folder) / name).stat().st_size == sizes[name] for name in names)
    return Path(folder) if complete else None


def fetch(request: Request, cache: Path, on_progress: Callable[[Progress], None]) -> Path:
    """The model's folder in the cache, after downloading what is missing; partial files are resumed.

    Raises:
        UnobtainableError: it cannot be had as chosen.
        UnreachableError: not now.
    """
    try:
        return _fetch(request, cache, on_progress)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise explain(error, request) from error


def _fetch(request: Request, cache: Path, on_progress: Callable[[Progress], None]) -> Path:
    token = request.token or False  # never a token that lies about elsewhere
    api = HfApi(endpoint=request.endpoint, token=token)
    info = api.model_info(request.model, revision=request.revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    names = wanted(sizes)
    if not names:
        formats = ", ".join(sorted({PurePosixPath(name).suffix for name in sizes} - {"", ".md"})) or "no files"
        raise UnobtainableError(
            f"{request.model} has no safetensors weights, which are needed here (it has {formats}).",
            f"Choose a model with safetensors weights: {CHOOSE}",
        )
    cache.mkdir(parents=True, exist_ok=True)
    total = sum(sizes[name] for name in names)
    folder = cache / cache_name(request.model) / "snapshots" / str(info.sha)
    here = _bytes_here(folder, {name: sizes[name] for name in names})
    _check_space(cache, total - here, request)
    # The library reports and resumes by the chunk; its own 10 MB are many seconds on a slow line.
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES
    meter = _Meter(total, here, on_progress)
    downloaded = snapshot_download(
        request.model,
        revision=request.revision,
        cache_dir=cache,
        allow_patterns=names,
        endpoint=request.endpoint,
        token=token,
        tqdm_class=meter.bars(),
    )
    return Path(downloaded)


def _bytes_here(folder: Path, sizes: dict[str, int]) -> int:
    """Bytes of the snapshot that are on disk. Files of another size than they must have are removed.

    The library takes any file that is there for complete; a power cut can leave it short.
    """
    here = 0
    for name, size in sizes.items():
        file = folder / name
        if not file.is_file():
            continue
        if file.stat().st_size == size:
            here += size
        else:
            file.resolve().unlink()
            file.unlink(missing_ok=True)
    return here


def _check_space(cache: Path, needed: int, request: Request) -> None:
    free = shutil.disk_usage(cache).free
    if needed + FREE_BYTES_KEPT > free:
        raise _disk_full(request, f"it needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free")


def _disk_full(request: Request, why: str) -> UnobtainableError:
    return UnobtainableError(
        f"The disk is too small for {request.model}: {why}.",
        f"Free space or attach a larger data volume, then: sudo aisandbox configure. Or take less: {CHOOSE}",
    )


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


class _Meter:
    """Adds up what the library's progress bars are told, and passes it on at most every `REPORT_SECONDS`."""

    def __init__(self, total: int, here: int, on_progress: Callable[[Progress], None]) -> None:
        self._total = total
        self._here = here
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._reported = -REPORT_SECONDS
        self._received: dict[int, float] = {}

    def bars(self) -> type[Any]:
        """A class of progress bars that report here and draw nothing."""
        meter = self

        class Bar(_SilentBar):
            def update(self, n: float | None = 1) -> None:
                super().update(n)
                if self.unit == "B":
                    meter._advance(id(self), self.n)

        return Bar

    def _advance(self, bar: int, received: float) -> None:
        with self._lock:
            # The library counts bytes twice, as received and as written; the one ahead is the truth.
            self._received[bar] = received
            now = time.monotonic()
            if now - self._reported < REPORT_SECONDS:
                return
            self._reported = now
            fresh = max(self._received.values())
            done = min(self._here + int(fresh), self._total)
            elapsed = max(now - self._started, 0.001)
            speed = fresh / elapsed
            eta = (self._total - done) / speed if speed and elapsed >= ESTIMATE_AFTER_SECONDS else None
            self._on_progress(Progress(done, self._total, round(speed), eta if eta is None else round(eta, 1)))


def explain(error: Exception, request: Request) -> UnobtainableError | UnreachableError:
    """What an error of the library means for the user."""
    # A failed look-up that the library could not serve from its cache hides the real reason behind it.
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, Exception):
        error = cause
    page = f"{request.address}/{request.model}"
    if isinstance(error, GatedRepoError):
        if request.token:
            return UnobtainableError(
                f"{request.model} is gated, and the account of your access token may not use it.",
                f"Accept its terms at {page} with that account, or give another token: {GIVE_ACCESS}",
            )
        return UnobtainableError(
            f"{request.model} is gated: it needs the access token of an account that accepted its terms.",
            f"Accept the terms at {page}, then: {GIVE_ACCESS}",
        )
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        private = "" if request.token else f" If it is private, give a token: {GIVE_ACCESS}"
        return UnobtainableError(
            f"There is no model {request.model} at {request.address}.",
            f"Check organisation and name, capitals included, then: {CHOOSE}.{private}",
        )
    if isinstance(error, RevisionNotFoundError):
        return UnobtainableError(
            f"{request.model} has no revision {request.revision}.",
            "Take its main branch: sudo aisandbox configure --unset revision",
        )
    if isinstance(error, DisabledRepoError):
        return UnobtainableError(f"{request.model} was disabled by its hub.", f"Choose another model: {CHOOSE}")
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, request)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(request, "it is full")
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        fix = "Check owner and mount options of the data directory."
        return UnobtainableError(f"{request.model} cannot be stored: {error}.", fix)
    if isinstance(error, httpx2.InvalidURL | ValueError) and not isinstance(error, OSError):
        return UnobtainableError(
            f"{request.address} does not answer like a model hub.",
            "Check the address, or return to the default: sudo aisandbox configure --unset hub_endpoint",
        )
    return UnreachableError(f"{request.address} cannot be reached or broke off ({_first_line(error)}).")


def _explain_status(error: HfHubHTTPError, request: Request) -> UnobtainableError | UnreachableError:
    status = error.response.status_code
    if status in (401, 403):
        return UnobtainableError(
            f"{request.address} refused the access token for {request.model}."
            if request.token
            else f"{request.address} wants an access token for {request.model}.",
            f"Give a valid token: {GIVE_ACCESS}",
        )
    if status in (408, 429) or status >= 500:
        wait = error.response.headers.get("Retry-After", "")
        return UnreachableError(f"{request.address} answered {status}.", float(wait) if wait.isdigit() else None)
    message = f"{request.address} answered {status} for {request.model}."
    return UnobtainableError(message, f"Check the choice, then: {CHOOSE}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
