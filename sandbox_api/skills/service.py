"""Keeps skills in ROOT/skills, one folder each."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sandbox_api.errors import SandboxError
from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings
from sandbox_api.skills import manifest
from sandbox_api.skills.models import Cleared, Registration, Skill, SkillContent, Skills

MANIFEST = "SKILL.md"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MANIFEST_BYTES = 2**20
MOST_FILES = 5000
MOST_SKILLS = 200
CHUNK = 2**16
ZIP_MAGIC = b"PK"
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError, LookupError
)  # fmt: skip
"""What `zipfile` raises at archives that are damaged, or made by hand."""


class SkillsService:
    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self._settings = settings
        self._paths = paths
        self._folder = settings.root / "skills"
        self._lock = asyncio.Lock()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def health(self) -> Health:
        return Health(status="ready", address="/v1/skills/metadatas")

    async def register(self, upload: BinaryIO | None, path: str | None, name: str | None) -> Registration:
        """Take over the skills in a zip file, a single SKILL.md, or a folder of the sandbox.

        A skill is named by `name` (only with a single one), else by its front matter, else by its folder. One of the
        same name is replaced. Nothing of it is run.

        Raises:
            SandboxError: `invalid_request`, `too_large`, `unsupported_media_type`, `limit_reached`, and those of paths.
        """
        if upload is None and path is None:
            raise SandboxError("invalid_request", "give `file` or `path`")
        async with self._lock:
            return await asyncio.to_thread(self._register, upload, path, name)

    def _register(self, upload: BinaryIO | None, path: str | None, name: str | None) -> Registration:
        staging = self._folder / f".new-{secrets.token_hex(6)}"
        staging.mkdir(parents=True)
        try:
            self._paths.reserve.check(staging)
            if upload is not None:
                self._unpack(upload, staging)
            else:
                self._copy(str(path), staging / "skill")
            folders = sorted(found.parent for found in staging.rglob(MANIFEST))
            # A SKILL.md below another one belongs to that skill.
            tops = [folder for folder in folders if not any(other in folder.parents for other in folders)]
            if not tops:
                raise SandboxError("invalid_request", f"the upload contains no {MANIFEST}")
            if name and len(tops) > 1:
                raise SandboxError("invalid_request", f"`name` is given, but there are {len(tops)} skills")
            named = {self._name(folder, name, staging, path): folder for folder in tops}
            if len(named) < len(tops):
                raise SandboxError("invalid_request", "two of the skills have the same name")
            present = {folder.name for folder in self._folders()}
            if len(present | set(named)) > MOST_SKILLS:
                raise SandboxError("limit_reached", f"there are {MOST_SKILLS} skills", hint="Delete one of them.")
            return self._install(named, staging)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _install(self, named: dict[str, Path], staging: Path) -> Registration:
        for skill, folder in named.items():
            target = self._folder / skill
            if target.exists():
                target.rename(staging / f".old-{skill}")
            folder.rename(target)
        registered = [self._skill(self._folder / skill) for skill in sorted(named)]
        return Registration(count=len(registered), registered=registered)

    def _name(self, folder: Path, given: str | None, staging: Path, path: str | None) -> str:
        stated = self._stated(self._text(folder)).get("name")
        of_folder = Path(path).name if path else folder.name
        name = given or (str(stated) if stated else of_folder if path or folder != staging else "")
        if not NAME.fullmatch(name):
            raise SandboxError(
                "invalid_request",
                f"{name!r} is not a valid name for a skill",
                hint="Name it in its front matter: letters, digits, dot, dash, underscore; at most 64 characters.",
            )
        return name

    def _unpack(self, upload: BinaryIO, target: Path) -> None:
        limit = self._settings.skill_bytes
        size = upload.seek(0, os.SEEK_END)
        upload.seek(0)
        if size > limit:
            raise self._too_large()
        if upload.read(2) != ZIP_MAGIC:
            upload.seek(0)
            self._single(upload.read(MANIFEST_BYTES + 1), target)
            return
        upload.seek(0)
        try:
            with zipfile.ZipFile(upload) as archive:
                entries = archive.infolist()
                if len(entries) > MOST_FILES:
                    raise SandboxError("too_large", f"more than {MOST_FILES} files")
                left = limit
                for entry in entries:
                    left = self._extract(archive, entry, target, left)
        except BROKEN as error:
            raise SandboxError("unsupported_media_type", f"not a zip file that can be read: {error!s:.200}") from error
        except OSError as error:
            # Names that this file system cannot hold, or a file where the archive wants a folder.
            raise SandboxError("invalid_request", f"the archive cannot be unpacked: {error.strerror}") from error

    def _too_large(self) -> SandboxError:
        return SandboxError("too_large", f"more than SANDBOX_SKILL_BYTES ({self._settings.skill_bytes} bytes)")

    @staticmethod
    def _stated(text: str) -> dict[str, Any]:
        """The front matter of a skill that is to be registered."""
        try:
            return manifest.parse(text, strict=True)[0]
        except ValueError as error:
            raise SandboxError(
                "invalid_request",
                f"the front matter of {MANIFEST} is not valid YAML: {error}",
                hint="Correct it; put a value that contains a colon or begins with a special character in quotes.",
            ) from error

    @classmethod
    def _single(cls, content: bytes, target: Path) -> None:
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise SandboxError("unsupported_media_type", f"neither a zip file nor a {MANIFEST}") from error
        if len(content) > MANIFEST_BYTES or not cls._stated(text).get("name"):
            raise SandboxError("unsupported_media_type", f"neither a zip file nor a {MANIFEST} with a name")
        (target / MANIFEST).write_text(text, encoding="utf-8")

    def _extract(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, left: int) -> int:
        """Write one entry; returns how many bytes may follow. Sizes are counted, not believed."""
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in entry.filename or "\0" in entry.filename:
            raise SandboxError("invalid_request", f"the archive has a path outside itself: {entry.filename!r}")
        # Others unpack a small piece into any amount of memory at once.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise SandboxError("unsupported_media_type", "the archive uses a compression method other than deflate")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise SandboxError("invalid_request", f"neither file nor folder in the archive: {entry.filename!r}")
        place = target / name
        if entry.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            return left
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, place.open("wb") as file:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise self._too_large()
                file.write(chunk)
        if entry.external_attr >> 16 & stat.S_IXUSR:
            place.chmod(0o755)
        return left

    def _copy(self, path: str, target: Path) -> None:
        """Copy a folder without its symbolic links, which could lead anywhere."""
        source = self._paths.resolve(path)
        if not source.is_dir():
            code = "not_a_directory" if source.exists() else "file_not_found"
            raise SandboxError(code, f"there is no such folder: {path}")
        if self._folder.is_relative_to(source):
            raise SandboxError("invalid_request", "the folder holds the skills themselves")
        left = self._settings.skill_bytes
        for count, file in enumerate(self._files(source), 1):
            left -= file.stat().st_size
            if left < 0:
                raise self._too_large()
            if count > MOST_FILES:
                raise SandboxError("too_large", f"more than {MOST_FILES} files")
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copy2(file, place, follow_symlinks=False)
            except PermissionError as error:
                raise SandboxError("permission_denied", f"permission denied: {file}") from error

    @staticmethod
    def _files(folder: Path) -> Iterator[Path]:
        for place, _, names in os.walk(folder):
            for name in names:
                path = Path(place) / name
                if path.is_file() and not path.is_symlink():
                    yield path

    def _folders(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(
            path for path in self._folder.iterdir() if NAME.fullmatch(path.name) and (path / MANIFEST).is_file()
        )

    @staticmethod
    def _text(folder: Path) -> str:
        with (folder / MANIFEST).open("rb") as file:
            return file.read(MANIFEST_BYTES).decode(errors="replace")

    def _skill(self, folder: Path) -> Skill:
        return Skill(name=folder.name, path=str(folder), metadata=manifest.parse(self._text(folder))[0])

    def _find(self, name: str) -> Path:
        folder = next((folder for folder in self._folders() if folder.name == name), None)
        if folder is None:
            raise SandboxError("skill_not_found", f"there is no skill {name!r}")
        return folder

    async def list(self, names: str | None) -> Skills:
        """All skills, or those of the names, which are separated by commas; unknown names are left out."""
        wanted = {name.strip() for name in names.split(",")} if names else None
        async with self._lock:
            skills = await asyncio.to_thread(lambda: [self._skill(folder) for folder in self._folders()])
        return Skills(skills=[skill for skill in skills if wanted is None or skill.name in wanted])

    async def content(self, name: str) -> SkillContent:
        """Raises: SandboxError: `skill_not_found`."""
        async with self._lock:
            return await asyncio.to_thread(self._content, name)

    def _content(self, name: str) -> SkillContent:
        folder = self._find(name)
        return SkillContent(name=name, path=str(folder), content=manifest.parse(self._text(folder))[1])

    async def delete(self, name: str) -> Skill:
        """Raises: SandboxError: `skill_not_found`."""
        async with self._lock:
            return await asyncio.to_thread(self._delete, name)

    def _delete(self, name: str) -> Skill:
        skill = self._skill(self._find(name))
        shutil.rmtree(skill.path)
        return skill

    async def clear(self) -> Cleared:
        async with self._lock:
            removed = await asyncio.to_thread(lambda: [self._delete(folder.name).name for folder in self._folders()])
        return Cleared(removed=removed, count=len(removed))
