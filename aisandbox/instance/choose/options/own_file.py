"""The user's own file, and the copy of it that is used while it cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aisandbox.instance import files
from aisandbox.instance.choose.options.source import Source, read_text
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem


def read(places: Places) -> Iterator[Source]:
    """The file; when it is damaged, also the last good copy of it."""
    name = str(places.options)
    try:
        text = places.options.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        fault = Problem(reason=f"cannot be read: {error.strerror}", fix=f"Look at it: sudo ls -l {name}", source=name)
        own = Source(name, problems=(fault,))
    else:
        own = _own(text, name, kept=places.last_good_options.exists())
    if not own.problems:
        yield own
        return
    kept = _last_good(places)
    if kept is None:
        yield own
        return
    # The kept choice knows what the damaged file meant, its guards too.
    (fault,) = own.problems
    said = replace(fault, reason=f"{fault.reason}; the last good choice is used")
    yield Source(name, problems=(said,), lost=own.lost)
    yield kept


def keep(places: Places) -> None:
    """Keep the file as it is as the last good one."""
    try:
        text = places.options.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        places.last_good_options.unlink(missing_ok=True)
    else:
        files.write(places.last_good_options, text, 0o600)


def _own(text: str, name: str, kept: bool) -> Source:
    # A power cut while another program wrote it leaves nothing, or zeros. Nobody who means "no choice" does that
    # to a file that held one.
    if kept and not text.strip("\0 \t\r\n"):
        fix = "Write it anew: sudo aisandbox configure --edit"
        return Source(name, problems=(Problem(reason="is empty", fix=fix, source=name),))
    return read_text(text, name)


def _last_good(places: Places) -> Source | None:
    try:
        text = places.last_good_options.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    source = read_text(text, str(places.last_good_options))
    return None if source.problems else source
