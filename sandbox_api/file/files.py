"""Operations on single files and folders. Everything here blocks: it is called in worker threads."""

from __future__ import annotations

import base64
import binascii
import errno
import grp
import mimetypes
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from sandbox_api import privileges
from sandbox_api.errors import SandboxError
from sandbox_api.file import models, pictures, text
from sandbox_api.file.conditions import NONE, Precondition, etag
from sandbox_api.file.failures import shown
from sandbox_api.file.folder import Draft, Folder, draft, draft_name, opened, parent_of, require_file
from sandbox_api.file.tree import iso
from sandbox_api.paths import Confinement

LOCKS = 64
NO_CHANGE = "nothing was replaced: the text does not occur in the file"


class Files:
    """Args: most_bytes: largest content that is read into memory."""

    def __init__(self, paths: Confinement, most_bytes: int) -> None:
        self.paths = paths
        self.most_bytes = most_bytes
        self._locks = [Lock() for _ in range(LOCKS)]

    def locked(self, real: Path) -> Lock:
        """Held while a file is read and then changed, so that our own requests do not lose each other's changes."""
        return self._locks[hash(real) % LOCKS]

    # Reading

    def read(self, request: models.ReadRequest) -> models.ReadResult:
        real = self.paths.resolve(request.file)
        by_lines = request.start_line is not None or request.end_line is not None
        by_bytes = request.start_byte is not None or request.end_byte is not None
        if by_lines and (by_bytes or request.encoding == "base64"):
            raise SandboxError("invalid_request", "a range of lines goes with neither bytes nor base64")
        with opened(self.paths, real) as stream:
            found = os.fstat(stream.fileno())
            result = models.ReadResult(
                content="", file=request.file, encoding=request.encoding, size=found.st_size, etag=etag(found),
                mtime=found.st_mtime,
            )  # fmt: skip
            if by_lines:
                start, end = request.start_line or 0, request.end_line
                lines, result.total_lines = text.read_lines(stream, start, end, self.most_bytes, request.file)
                result.content = text.decode(lines, request.file)
                return result
            if by_bytes:
                return self._read_bytes(stream.fileno(), request, result)
            content = text.read_all(stream, self.most_bytes, request.file)
        if request.encoding == "base64":
            result.content = base64.b64encode(content).decode()
        else:
            result.content = text.decode(content, request.file)
            result.total_lines = content.count(b"\n") + (not content.endswith(b"\n") if content else 0)
        return result

    def _read_bytes(self, descriptor: int, request: models.ReadRequest, result: models.ReadResult) -> models.ReadResult:
        start = min(request.start_byte or 0, result.size)
        end = result.size if request.end_byte is None else min(request.end_byte, result.size)
        count = max(end - start, 0)
        if count > self.most_bytes:
            raise text.too_large(request.file, self.most_bytes)
        os.lseek(descriptor, start, os.SEEK_SET)
        parts = []
        while count and (part := os.read(descriptor, count)):
            parts.append(part)
            count -= len(part)
        content = b"".join(parts)
        result.start_byte, result.end_byte = start, start + len(content)
        if request.encoding == "base64":
            result.content = base64.b64encode(content).decode()
        else:
            result.content, result.start_byte, result.end_byte = text.whole_characters(content, start, request.file)
        return result

    def load(self, path: str) -> tuple[Path, bytes, os.stat_result]:
        """A whole file with the state that it was read in."""
        real = self.paths.resolve(path)
        with opened(self.paths, real) as stream:
            found = os.fstat(stream.fileno())
            return real, text.read_all(stream, self.most_bytes, path), found

    def stat(self, request: models.StatRequest) -> models.StatResult:
        real = self.paths.resolve(request.path, follow=request.follow)
        found = os.lstat(real)
        mime = mimetypes.guess_type(real.name)[0] if stat.S_ISREG(found.st_mode) else None
        result = models.StatResult(
            path=request.path,
            name=shown(real.name),
            type=_kind(found.st_mode),
            size=found.st_size,
            mtime=found.st_mtime,
            modified_time=iso(found.st_mtime),
            changed_time=iso(found.st_ctime),
            mode=f"{stat.S_IMODE(found.st_mode):04o}",
            permissions=stat.filemode(found.st_mode)[1:],
            uid=found.st_uid,
            gid=found.st_gid,
            owner=_name(pwd.getpwuid, found.st_uid),
            group=_name(grp.getgrgid, found.st_gid),
            etag=etag(found),
            mime=mime,
            target=shown(real.readlink()) if stat.S_ISLNK(found.st_mode) else None,
            real_path=shown(real if request.follow else os.path.realpath(real)),
        )
        if (mime or "").startswith("image/") and privileges.may(real, os.R_OK):
            with opened(self.paths, real) as stream:
                result.width, result.height = pictures.dimensions(stream) or (None, None)
        return result

    def stat_file(self, real: Path) -> os.stat_result:
        """Of a readable regular file.

        Raises:
            SandboxError: `not_a_file`.
            OSError: it cannot be opened.
        """
        with opened(self.paths, real) as stream:
            return os.fstat(stream.fileno())

    # Writing

    def write(self, request: models.WriteRequest, condition: Precondition = NONE) -> models.WriteResult:
        content = _encoded(request)
        real = self.paths.resolve(request.file)
        with self.locked(real), self._parent(real, create=request.create_parents) as folder:
            replaced = folder.stat(real.name)
            if replaced is not None:
                require_file(replaced, real)
            condition.check(real, replaced)
            found = (
                self._append(folder, real.name, content)
                if request.append
                else self._store(folder, real.name, content, replaced)
            )
        return models.WriteResult(
            file=request.file, bytes_written=len(content), created=replaced is None, size=found.st_size,
            etag=etag(found), mtime=found.st_mtime,
        )  # fmt: skip

    def change(
        self, path: str, alter: Callable[[text.Text], bytes | None], condition: Precondition = NONE
    ) -> tuple[str, str, os.stat_result]:
        """Alter a text file. `alter` gives the new file; None leaves it as it is.

        Returns:
            text before and after, with `\\n` for every line end, and the state afterwards.
        """
        with self.locked(self.paths.resolve(path)):
            real, content, found = self.load(path)
            condition.check(real, found)
            before = text.Text(content, path)
            after = alter(before)
            if after is None:
                return before.content, before.content, found
            with self._parent(real) as folder:
                found = self._store(folder, real.name, after, found)
        return before.content, text.Text.of(after), found

    def replace(
        self, request: models.ReplaceRequest, condition: Precondition
    ) -> tuple[models.ReplaceResult, str | None]:
        """Returns: the result, and a hint when there was nothing to replace."""
        count = 0

        def alter(before: text.Text) -> bytes | None:
            nonlocal count
            places = before.found(request.old_str)
            count = len(places)
            return before.replaced(places, request.new_str) if places else None

        _, _, found = self.change(request.file, alter, condition)
        result = models.ReplaceResult(file=request.file, replaced_count=count, etag=etag(found))
        return result, None if count else NO_CHANGE

    @contextmanager
    def _parent(self, real: Path, *, create: bool = False) -> Iterator[Folder]:
        if real in self.paths.roots:
            raise SandboxError("not_a_file", f"it is a folder: {shown(real)}")
        with parent_of(self.paths, real, create=create) as folder:
            yield folder

    @staticmethod
    def _store(folder: Folder, name: str, content: bytes, replaced: os.stat_result | None) -> os.stat_result:
        with draft(folder) as started:
            started.write(content)
            return started.commit(folder, name, replaced)

    @staticmethod
    def _append(folder: Folder, name: str, content: bytes) -> os.stat_result:
        descriptor = folder.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            found = os.fstat(descriptor)
            require_file(found, folder.path / name)
            folder.reserve.check(descriptor, len(content))
            view = memoryview(content)
            try:
                while view:
                    view = view[os.write(descriptor, view) :]
            except OSError:
                os.ftruncate(descriptor, found.st_size)
                raise
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def commit(
        self, started: Draft, real: Path, condition: Precondition, *, create: bool
    ) -> tuple[bool, os.stat_result]:
        """Put a finished draft at its place.

        Returns:
            whether the file is new, and its state.
        """
        with self.locked(real), self._parent(real, create=create) as folder:
            replaced = folder.stat(real.name)
            if replaced is not None:
                require_file(replaced, real)
            condition.check(real, replaced)
            return replaced is None, started.commit(folder, real.name, replaced)

    # Folders and places

    def mkdir(self, request: models.MkdirRequest) -> models.PathResult:
        real = self.paths.resolve(request.path)
        if real not in self.paths.roots:
            with parent_of(self.paths, real, create=request.parents) as folder:
                try:
                    os.mkdir(real.name, dir_fd=folder.descriptor)
                    return models.PathResult(path=request.path, created=True)
                except FileExistsError:
                    found = folder.stat(real.name)
                    if found is None or not stat.S_ISDIR(found.st_mode):
                        raise
        if not request.exist_ok:
            raise SandboxError("file_exists", f"it exists already: {request.path}")
        return models.PathResult(path=request.path)

    def delete(self, request: models.DeleteRequest, condition: Precondition) -> models.DeleteResult:
        real = self.paths.resolve(request.path, follow=False)
        self._spare_roots(real, request.path)
        with self.locked(real), parent_of(self.paths, real) as folder:
            found = folder.stat(real.name)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "")
            condition.check(real, found)
            if not stat.S_ISDIR(found.st_mode):
                folder.unlink(real.name)
            elif request.recursive:
                shutil.rmtree(real.name, dir_fd=folder.descriptor)
            else:
                self._rmdir(folder, real.name)
        return models.DeleteResult(path=request.path)

    @staticmethod
    def _rmdir(folder: Folder, name: str) -> None:
        try:
            os.rmdir(name, dir_fd=folder.descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            message = f"the folder is not empty: {shown(folder.path / name)}"
            raise SandboxError("conflict", message, hint="Set recursive to delete what is in it, too.") from error

    def move(self, request: models.MoveRequest) -> models.MoveResult:
        source, target = self._both(request)
        with parent_of(self.paths, source) as old, self._free(target, request) as new:
            if old.stat(source.name) is None:
                raise FileNotFoundError(errno.ENOENT, "")
            try:
                old.rename(source.name, new, target.name)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.move(source, target)
        return models.MoveResult(source=request.source, destination=request.destination)

    def copy(self, request: models.MoveRequest) -> models.MoveResult:
        source, target = self._both(request)
        source = source.resolve()
        if source.is_dir():
            with self._free(target, request) as new:
                self._copy_tree(source, new, target.name)
        else:
            with opened(self.paths, source) as stream, self._free(target, request) as new, draft(new) as started:
                while chunk := stream.read(text.CHUNK):
                    started.write(chunk)
                os.fchmod(started.descriptor, stat.S_IMODE(os.fstat(stream.fileno()).st_mode))
                started.commit(new, target.name, None)
        return models.MoveResult(source=request.source, destination=request.destination)

    def _spare_roots(self, real: Path, path: str) -> None:
        if any(root == real or real in root.parents for root in self.paths.roots):
            raise SandboxError("permission_denied", f"it is, or holds, a folder of the sandbox itself: {path}")

    def _both(self, request: models.MoveRequest) -> tuple[Path, Path]:
        source = self.paths.resolve(request.source, follow=False)
        target = self.paths.resolve(request.destination, follow=False)
        self._spare_roots(source, request.source)
        if target == source or source in target.parents:
            raise SandboxError("invalid_request", f"{request.destination} is, or lies in, {request.source}")
        self.paths.resolve(request.source)  # what a link leads to is confined, too
        return source, target

    @contextmanager
    def _free(self, target: Path, request: models.MoveRequest) -> Iterator[Folder]:
        """The parent of a destination where something may be put."""
        if target in self.paths.roots:
            raise SandboxError("file_exists", f"it exists already: {request.destination}")
        with parent_of(self.paths, target, create=True) as folder:
            found = folder.stat(target.name)
            if found is not None:
                if not request.overwrite:
                    raise SandboxError("file_exists", f"it exists already: {request.destination}")
                require_file(found, target)
            yield folder

    @staticmethod
    def _copy_tree(source: Path, folder: Folder, name: str) -> None:
        """Beside its place first: the copy is there whole, or not at all."""
        temporary = draft_name()
        place = folder.path / temporary

        def copied(file: str, to: str) -> None:
            folder.reserve.check(folder.path, Path(file).lstat().st_size)
            shutil.copy2(file, to, follow_symlinks=False)

        try:
            shutil.copytree(source, place, symlinks=True, copy_function=copied)
            folder.rename(temporary, folder, name)
        except shutil.Error as error:
            first = error.args[0][0]
            raise SandboxError("io_error", f"{len(error.args[0])} files could not be copied: {first[2]}") from error
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _encoded(request: models.WriteRequest) -> bytes:
    if request.encoding == "base64":
        try:
            return base64.b64decode("".join(request.content.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise SandboxError("invalid_request", f"not valid base64: {error}") from error
    content = request.content
    if request.encoding == "utf-8":
        content = "\n" * request.leading_newline + content + "\n" * request.trailing_newline
    return content.encode()


def _kind(mode: int) -> str:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode), "other")


def _name(entry: Callable[[int], Sequence[object]], number: int) -> str | None:
    """The name of a user or group, if it has one."""
    try:
        return str(entry(number)[0])
    except KeyError:
        return None
