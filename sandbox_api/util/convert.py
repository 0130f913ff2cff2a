"""Turns one document into Markdown, as a program of its own: `python convert.py SOURCE MOST_BYTES < data`.

SOURCE is an address (http, https), a path, or `-.SUFFIX` for standard input. Its parser may hang, crash or take much
memory on hostile documents; that then happens here, and the server ends this process. Nothing of the package is
imported, so that it can be run in isolated mode.

Exit status: 0 Markdown on standard output; else a line of the reason on standard error, and 3 too large,
4 not fetched, 5 of an unknown kind, 6 not converted.
"""

from __future__ import annotations

import io
import resource
import sys
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import urlsplit

TOO_LARGE, NOT_FETCHED, UNKNOWN_KIND, NOT_CONVERTED = 3, 4, 5, 6
MEMORY_BYTES = 4 * 2**30
CHUNK = 2**16


def _fail(status: int, reason: object) -> NoReturn:
    print(" ".join(str(reason).split())[:500], file=sys.stderr)
    sys.exit(status)


def _bounded(stream: BinaryIO, most: int) -> bytes:
    data = stream.read(most + 1)
    if len(data) > most:
        _fail(TOO_LARGE, f"more than {most} bytes")
    return data


def _fetch(address: str, most: int) -> tuple[bytes, dict[str, str | None]]:
    import requests

    try:
        with requests.get(address, stream=True, timeout=30) as answer:
            answer.raise_for_status()
            data = bytearray()
            for chunk in answer.iter_content(CHUNK):  # counts what is unpacked, too
                data += chunk
                if len(data) > most:
                    _fail(TOO_LARGE, f"more than {most} bytes")
            kind, _, rest = answer.headers.get("content-type", "").partition(";")
            charset = rest.partition("charset=")[2].strip(" \"'") or None
            suffix = Path(urlsplit(answer.url).path).suffix or None
            return bytes(data), {"mimetype": kind.strip() or None, "charset": charset, "extension": suffix}
    except requests.RequestException as error:
        _fail(NOT_FETCHED, error)


def main() -> None:
    source, most = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hints: dict[str, str | None] = {}
    if source.startswith(("http://", "https://")):
        data, hints = _fetch(source, most)
    elif source.startswith("-"):
        data, hints = _bounded(sys.stdin.buffer, most), {"extension": source[1:] or None}
    else:
        with open(source, "rb") as file:
            data = _bounded(file, most)
        hints = {"extension": Path(source).suffix or None, "filename": Path(source).name}

    from markitdown import MarkItDown, MissingDependencyException, StreamInfo, UnsupportedFormatException

    try:
        result = MarkItDown(enable_plugins=False).convert_stream(io.BytesIO(data), stream_info=StreamInfo(**hints))
    except (UnsupportedFormatException, MissingDependencyException) as error:
        _fail(UNKNOWN_KIND, error)
    except MemoryError:
        _fail(TOO_LARGE, "it takes too much memory")
    except Exception as error:
        _fail(NOT_CONVERTED, f"{type(error).__name__}: {error}")
    else:
        sys.stdout.buffer.write(result.markdown.encode(errors="replace"))


if __name__ == "__main__":
    main()
