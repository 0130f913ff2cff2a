"""What an error on the way to a model means for the user: worth retrying, or theirs to resolve."""

from __future__ import annotations

import difflib
import errno
import os
import ssl
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from aisandbox.instance.errors import UnobtainableError, UnreachableError
from aisandbox.instance.fetch.request import Request
from aisandbox.instance.problem import CONFIGURE

CHOOSE = f"{CONFIGURE} --model ORGANISATION/NAME"
GIVE_ACCESS = f"{CONFIGURE} --set hf_token=hf_…"
SUGGESTIONS = 3
SIMILAR = 0.6


class CorruptedError(Exception):
    """A file arrived with a wrong checksum, and so it did again."""


class ForeignAnswerError(Exception):
    """Whatever answers at the hub's address does not speak its protocol."""


class LowDiskError(Exception):
    """There is too little free space to go on."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"it needs {needed / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free")


class BusyError(Exception):
    """Another process downloads the same model."""


def explain(
    error: Exception, request: Request, suggest: Iterable[str] = ()
) -> UnobtainableError | UnreachableError | None:
    """The error in the user's terms; None for one that nobody foresaw.

    Args:
        suggest: names of models that may have been meant.
    """
    # A failed look-up that the library could not serve from its cache hides the real reason behind it.
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, Exception):
        error = cause
    if isinstance(error, HfHubHTTPError | HFValidationError):
        return _refused(error, request, suggest)
    if isinstance(error, CorruptedError):
        return UnobtainableError(
            f"{request.model} arrives corrupted from {request.address}: {error} has a wrong checksum, twice.",
            f"Try again later: {CONFIGURE}. Or choose another model: {CHOOSE}",
        )
    if isinstance(error, BusyError):
        return UnreachableError(f"{request.model} is being downloaded by another process already.")
    if isinstance(error, LowDiskError):
        return _disk_full(request, str(error))
    if isinstance(error, ForeignAnswerError):
        return _foreign(request, str(error))
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | httpx2.DecodingError | FileMetadataError):
        return _foreign(request, _first_line(error))
    if isinstance(error, httpx2.HTTPError):
        return _unreachable(error, request)
    if isinstance(error, OSError):
        return _local(error, request)
    return None


def _refused(
    error: HfHubHTTPError | HFValidationError, request: Request, suggest: Iterable[str]
) -> UnobtainableError | UnreachableError:
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
        return _unknown(request, suggest)
    if isinstance(error, RevisionNotFoundError):
        return UnobtainableError(
            f"{request.model} has no revision {request.revision}.",
            f"Take its main branch: {CONFIGURE} --unset revision",
        )
    if isinstance(error, DisabledRepoError):
        return UnobtainableError(f"{request.model} was disabled by its hub.", f"Choose another model: {CHOOSE}")
    return _status(error.response, request, missing=isinstance(error, RemoteEntryNotFoundError))


def _unknown(request: Request, suggest: Iterable[str]) -> UnobtainableError:
    private = "" if request.token else f" If it is private, give a token: {GIVE_ACCESS}"
    names = nearest(request.model, suggest)
    if names:
        fix = f"Did you mean {' or '.join(names)}? Then: {CONFIGURE} --model {names[0]}."
    else:
        fix = f"Check organisation and name, capitals included, then: {CHOOSE}."
    return UnobtainableError(f"There is no model {request.model} at {request.address}.", f"{fix}{private}")


def nearest(model: str, names: Iterable[str]) -> list[str]:
    """Those of the names that look most like the model's, the nearest first."""
    by_lower = {name.lower(): name for name in names if name != model}
    found = difflib.get_close_matches(model.lower(), by_lower, SUGGESTIONS, SIMILAR)
    return [by_lower[name] for name in found]


def _status(response: httpx2.Response, request: Request, missing: bool) -> UnobtainableError | UnreachableError:
    status = response.status_code
    storage = response.url.host
    if status in (401, 403) and storage != urlsplit(request.address).hostname:
        return UnreachableError(f"{storage}, where {request.address} keeps its files, answered {status}.")
    if status in (401, 403):
        return UnobtainableError(
            f"{request.address} refused the access token for {request.model}."
            if request.token
            else f"{request.address} wants an access token for {request.model}.",
            f"Give a valid token: {GIVE_ACCESS}",
        )
    if status in (408, 429) or status >= 500:
        reason = " (too many requests)" if status == 429 else ""
        return UnreachableError(f"{request.address} answered {status}{reason}.", wait(response))
    if status == 404 and not missing and "X-Error-Code" not in response.headers:
        return _foreign(request, "404, without saying what is missing")
    message = f"{request.address} answered {status} for {request.model}."
    return UnobtainableError(message, f"Check the choice, then: {CHOOSE}")


def wait(response: httpx2.Response) -> float | None:
    """Seconds that the hub asks to wait before the next try, if it says so."""
    limit = parse_ratelimit_headers(response.headers)
    if limit and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after = response.headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    try:
        return max((parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds(), 0)
    except (ValueError, TypeError):
        return None


def _foreign(request: Request, why: str) -> UnobtainableError:
    return UnobtainableError(
        f"{request.address} does not answer like a model hub ({why}).",
        f"Check the address, or return to the default: {CONFIGURE} --unset hub_endpoint",
    )


def _unreachable(error: httpx2.HTTPError, request: Request) -> UnreachableError:
    host = urlsplit(request.address).hostname or request.address
    reason = _first_line(error)
    if isinstance(error, httpx2.ProxyError):
        return UnreachableError(f"{request.address} cannot be reached: the proxy of this instance failed ({reason}).")
    if _caused_by(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in reason:
        return UnreachableError(
            f"{request.address} cannot be reached: its certificate is not accepted ({reason}). The clock of this "
            f"instance says {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC. If that is wrong, see: timedatectl."
        )
    if "Name or service not known" in reason or "name resolution" in reason or "No address associated" in reason:
        return UnreachableError(f"{request.address} cannot be reached: the name {host} is not found by DNS.")
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return UnreachableError(f"{request.address} cannot be reached ({reason}).")
    return UnreachableError(f"The connection to {request.address} broke off ({reason}).")


def _caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(cause, kind) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__


def _local(error: OSError, request: Request) -> UnobtainableError | UnreachableError | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _disk_full(request, f"{os.strerror(error.errno)}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO):
        return UnobtainableError(
            f"{request.model} cannot be stored: {os.strerror(error.errno)} ({error.filename or 'the data volume'}).",
            "See the volume and its owner: aisandbox doctor",
        )
    if isinstance(error, TimeoutError | ConnectionError):
        return UnreachableError(f"The connection to {request.address} broke off ({_first_line(error)}).")
    if "Consistency check failed" in str(error):
        return UnreachableError(f"{request.address} sent less than it should.")
    return None


def _disk_full(request: Request, why: str) -> UnobtainableError:
    return UnobtainableError(
        f"The disk is too small for {request.model}: {why}.",
        f"Free space (see: aisandbox models list) or attach a larger data volume, then: {CONFIGURE}. "
        f"Or take less: {CHOOSE}",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
