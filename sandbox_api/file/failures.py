"""Turns what the operating system refuses into errors of the registry; the one place that does."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox_api import quotas
from sandbox_api.errors import SandboxError

CODES = {
    errno.ENOENT: ("file_not_found", "there is no such file or folder"),
    errno.EACCES: ("permission_denied", "permission denied"),
    errno.EPERM: ("permission_denied", "the operation is not permitted"),
    errno.EROFS: ("permission_denied", "the file system is read-only"),
    errno.EEXIST: ("file_exists", "it exists already"),
    errno.EISDIR: ("not_a_file", "it is a folder"),
    errno.ENXIO: ("not_a_file", "not a regular file"),
    errno.ENOTDIR: ("not_a_directory", "a part of the path is not a directory"),
    errno.ENOTEMPTY: ("conflict", "the folder is not empty"),
    errno.EFBIG: ("too_large", "the file would be larger than the file system allows"),
    errno.ELOOP: ("invalid_request", "the path has too many symbolic links"),
    errno.ENAMETOOLONG: ("invalid_request", "a name in the path is too long"),
    errno.EINVAL: ("invalid_request", "the operating system takes the path or operation for invalid"),
}


def from_os_error(error: OSError, path: str) -> SandboxError:
    if refusal := quotas.reached(error):
        refusal.message = f"{refusal.message}: {path}"
        return refusal
    code, words = CODES.get(error.errno or 0, ("io_error", error.strerror or type(error).__name__))
    return SandboxError(code, f"{words}: {path}")


def _details(operation: str, path: str, error: SandboxError, cause: BaseException | None) -> dict[str, Any]:
    number = cause.errno if isinstance(cause, OSError) else None
    return {
        "operation": operation,
        "path": path,
        "errno": number,
        "errno_name": errno.errorcode.get(number) if number else None,
        "exception_type": type(cause).__name__ if cause else None,
        **(error.data if isinstance(error.data, dict) else {}),
    }


@contextmanager
def translate_os_errors(operation: str, path: str) -> Iterator[None]:
    """Whatever fails inside is raised as a `SandboxError` whose `data` names the operation and the path.

    Args:
        operation: as in the route's last part, such as `read`.
        path: as the caller wrote it.
    """
    try:
        yield
    except SandboxError as error:
        error.data = _details(operation, path, error, error.__cause__)
        raise
    except OSError as error:
        raised = from_os_error(error, path)
        raised.data = _details(operation, path, raised, error)
        raise raised from error
    except UnicodeEncodeError as error:
        raise SandboxError("invalid_request", f"the text or path is not valid Unicode: {error.reason}") from error


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be sent; bytes that are no UTF-8 become replacement characters."""
    return os.fsencode(path).decode("utf-8", "replace")
