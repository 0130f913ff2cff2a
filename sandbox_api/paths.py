"""Which paths the sandbox's routes may touch."""

from __future__ import annotations

from pathlib import Path

from sandbox_api.errors import SandboxError
from sandbox_api.quotas import Reserve
from sandbox_api.settings import Settings

LONGEST = 4096


class Confinement:
    """Confines paths to the reachable folders, by where they lead when every symbolic link is followed."""

    def __init__(self, settings: Settings) -> None:
        self.workspace = settings.workspace_path
        self.roots = settings.reachable_roots
        self.reserve = Reserve(settings.disk_reserve_bytes)

    def resolve(self, path: str, *, follow: bool = True) -> Path:
        """The real path behind `path`, which need not exist.

        Args:
            follow: False keeps the last part as it is, for a link that is itself meant (to delete or move it).

        Raises:
            SandboxError: `invalid_request`, `path_not_absolute`, `path_outside`, `permission_denied`.
        """
        if "\0" in path or len(path) > LONGEST:
            raise SandboxError("invalid_request", "the path has a NUL character or more than 4096 characters")
        if not Path(path).is_absolute():
            raise SandboxError("path_not_absolute", f"the path is not absolute: {path}")
        try:
            real = Path(path).resolve() if follow else Path(path).parent.resolve() / Path(path).name
        except PermissionError as error:
            raise SandboxError("permission_denied", f"permission denied: {path}") from error
        except (OSError, RuntimeError) as error:
            raise SandboxError("invalid_request", f"the path leads nowhere: {path} ({error})") from error
        if not any(real.is_relative_to(root) for root in self.roots):
            raise SandboxError("path_outside", f"the path is outside the sandbox's folders: {path}")
        return real

    def directory(self, path: str | None) -> Path:
        """A working directory: `path`, else the workspace. Any folder that exists is allowed: code can go anywhere.

        Raises:
            SandboxError: `invalid_request`, `path_not_absolute`, `file_not_found`, `not_a_directory`,
                `permission_denied`.
        """
        if path is None:
            return self.workspace
        if "\0" in path or len(path) > LONGEST:
            raise SandboxError("invalid_request", "the path has a NUL character or more than 4096 characters")
        if not Path(path).is_absolute():
            raise SandboxError("path_not_absolute", f"the working directory is not absolute: {path}")
        try:
            code = "" if Path(path).is_dir() else "not_a_directory" if Path(path).exists() else "file_not_found"
        except PermissionError as error:
            raise SandboxError("permission_denied", f"permission denied: {path}") from error
        except OSError as error:  # a name that is too long
            raise SandboxError("invalid_request", f"the working directory cannot be: {error.strerror}") from error
        if code:
            raise SandboxError(code, f"the working directory is not there: {path}")
        return Path(path)
