"""Runs the checks, applies waivers, and tells what came of it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from aisandbox.check.model import CHECKS, Check, Finding, NotCheckedError, Settings, Subject, Waiver
from aisandbox.check.tree import Tree, mounts

Status = Literal["ok", "error", "warning", "waived", "not checked"]
SHOWN = 12
"""Findings of one check that are shown; all are counted, and in the JSON."""
COLOURS = {"ok": "32", "error": "31;1", "warning": "33", "waived": "36", "not checked": "35"}
WAIVERS = Check(
    "waivers",
    "Waivers name a check, are needed, and have not expired",
    "A waiver that hides nothing today hides something tomorrow.",
    "correct the section `waivers` of marketplace.yaml",
    lambda _: (),
)


@dataclass(frozen=True)
class Result:
    """What one check came to."""

    check: Check
    findings: tuple[Finding, ...] = ()
    """Those that no waiver accepts."""
    waived: tuple[tuple[Finding, Waiver], ...] = ()
    reason: str = ""
    """Why it was not checked."""

    @property
    def status(self) -> Status:
        if self.reason:
            return "not checked"
        if self.findings:
            return self.check.severity
        return "waived" if self.waived else "ok"

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.check.id,
            "title": self.check.title,
            "status": self.status,
            "findings": [asdict(finding) for finding in self.findings],
            "waived": [
                {**asdict(finding), "reason": waiver.reason, "until": waiver.until.isoformat()}
                for finding, waiver in self.waived
            ],
            "reason": self.reason,
            "why": self.check.why,
            "fix": self.check.fix,
        }


@dataclass(frozen=True)
class Report:
    """What all checks came to."""

    subject: str
    settings: Settings
    results: tuple[Result, ...]

    @property
    def counts(self) -> Counter[str]:
        """How many checks came to what."""
        return Counter(result.status for result in self.results)

    @property
    def failed(self) -> bool:
        return self.counts["error"] > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "stage": self.settings.stage,
            "target": self.settings.target,
            "failed": self.failed,
            "counts": dict(self.counts),
            "checks": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Report:
        """The report that `to_json` told of, on another host.

        Raises:
            ValueError: it is no such report.
        """
        try:
            results = tuple(_from_json(entry) for entry in record["checks"])
            settings = Settings(stage=record["stage"], target=record["target"])
            return cls(str(record["subject"]), settings, results)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no report of the image check: {type(error).__name__} {error}") from error

    def text(self, colour: bool = False, width: int | None = None) -> str:
        """For people: a line by check, and what is not well in full."""
        width = width or max(shutil.get_terminal_size((120, 0)).columns, 60)
        return "\n".join(self._lines(colour, width))

    def _lines(self, colour: bool, width: int) -> Iterator[str]:
        for result in self.results:
            status = result.status
            word = f"{status:<11}"
            word = f"\033[{COLOURS[status]}m{word}\033[0m" if colour else word
            yield f"{word} {result.check.id:<22} {result.check.title}"
            if result.reason:
                yield f"{'':<12}{shown(result.reason)}"
            for finding in result.findings[:SHOWN]:
                yield f"{'':<12}- {shown(finding.path)}{f': {shown(finding.text)}' if finding.text else ''}"
            if len(result.findings) > SHOWN:
                yield f"{'':<12}  and {len(result.findings) - SHOWN} more"
            for finding, waiver in result.waived[:SHOWN]:
                yield f"{'':<12}- {shown(finding.path)}: waived until {waiver.until}: {shown(waiver.reason)}"
            if len(result.waived) > SHOWN:
                yield f"{'':<12}  and {len(result.waived) - SHOWN} more are waived"
            if result.findings:
                indent = " " * 12
                yield textwrap.fill(result.check.why, width, initial_indent=indent, subsequent_indent=indent)
                yield f"{indent}fix: {result.check.fix}"
        counts = self.counts
        found = sum(len(result.findings) for result in self.results if result.status == "error")
        parts = [f"{counts['ok']} ok", f"{counts['error']} failed ({found} findings)", f"{counts['warning']} warnings"]
        parts += [f"{counts['waived']} waived", f"{counts['not checked']} not checked"]
        yield f"{shown(self.subject)}: {'FAILED' if self.failed else 'passed'}: {', '.join(parts)}"


def run(root: Path, settings: Settings, *, subject: str = "", checks: Mapping[str, Check] = CHECKS) -> Report:
    """Look at the root file system with every check that applies to the stage and the target.

    Raises:
        PermissionError: not root, who alone can look everywhere.
        NotADirectoryError: there is no such folder.
    """
    if os.geteuid() != 0:
        raise PermissionError("only root can look at everything")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no folder")
    # The disk becomes the image; what is mounted on a builder does not.
    outside = mounts() if settings.live and settings.stage == "image" and root == Path("/") else ()
    about = Subject(Tree(root, outside), settings)
    results = [_result(check, about) for check in checks.values() if check.applies(settings)]
    problems = tuple(_waiver_problems(settings, results, checks))
    return Report(subject or str(root), settings, (*results, Result(WAIVERS, problems)))


def today() -> date:
    return datetime.now(UTC).date()


def shown(text: str) -> str:
    """Text from the checked system in one line that cannot move the cursor or change a colour."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", lambda m: ascii(m[0])[1:-1], clean)


def _result(check: Check, subject: Subject) -> Result:
    if check.live and not subject.settings.live:
        return Result(check, reason="nothing runs in a root file system; check the booted machine")
    try:
        found = sorted(set(check.look(subject)))
    except NotCheckedError as error:
        return Result(check, reason=str(error))
    except Exception as error:  # the check's own fault, or a file that nobody thought of: never "ok"
        return Result(check, (Finding("", f"the check itself failed: {type(error).__name__}"),))
    waivers = [waiver for waiver in _waivers(subject.settings) if waiver.check == check.id and waiver.until >= today()]
    left, waived = [], []
    for finding in found:
        waiver = next((waiver for waiver in waivers if fnmatchcase(finding.path, waiver.path)), None)
        if waiver:
            waived.append((finding, waiver))
        else:
            left.append(finding)
    return Result(check, tuple(left), tuple(waived))


def _from_json(record: dict[str, Any]) -> Result:
    known = CHECKS.get(record["id"], WAIVERS)
    return Result(
        known,
        tuple(_finding(entry) for entry in record["findings"]),
        tuple(
            (
                Finding(str(f["path"]), str(f["text"])),
                Waiver(known.id, str(f["reason"]), date.fromisoformat(f["until"])),
            )
            for f in record["waived"]
        ),
        str(record["reason"]),
    )


def _finding(record: dict[str, Any]) -> Finding:
    return Finding(str(record["path"]), str(record["text"]))


def _waivers(settings: Settings) -> list[Waiver]:
    return [waiver for waiver in settings.waivers if waiver.target in (None, settings.target)]


def _waiver_problems(settings: Settings, results: Iterable[Result], checks: Mapping[str, Check]) -> Iterator[Finding]:
    """A waiver is judged where its check was made; one for nothing that exists, everywhere."""
    by_check = {result.check.id: result for result in results}
    for waiver in settings.waivers:
        result = by_check.get(waiver.check)
        if waiver.check not in checks:
            yield Finding(waiver.check, "there is no such check")
        elif waiver not in _waivers(settings) or not result or result.reason:
            continue
        elif waiver.until < today():
            yield Finding(waiver.check, f"expired on {waiver.until}: {waiver.reason}")
        elif waiver not in {used for _, used in result.waived}:
            yield Finding(waiver.check, f"is not needed: {waiver.reason}")


def print_report(report: Report, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(report.to_json(), indent=1))
    else:
        print(report.text(colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
