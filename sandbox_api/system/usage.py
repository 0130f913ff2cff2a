"""What the sandbox uses right now: processor, memory, disk, processes. Blocking; call it in a thread."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from sandbox_api.settings import Settings
from sandbox_api.system.models import CgroupSnapshot, DiskSnapshot, ProcessSnapshot

CGROUPS = Path("/sys/fs/cgroup")


def _own_cgroup() -> Path | None:
    """The control group (version 2) that this process is in, where the kernel keeps accounts of one."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            place = CGROUPS / line[3:].lstrip("/")
            # Inside a container the path is that of the host; its own group is then mounted at the top.
            return next((path for path in (place, CGROUPS) if (path / "memory.current").is_file()), None)
    return None


def _pairs(path: Path) -> dict[str, int]:
    try:
        rows = (line.split() for line in path.read_text().splitlines())
        return {row[0]: int(row[1]) for row in rows if len(row) == 2}
    except (OSError, ValueError):
        return {}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no number: no limit
        return None


class Meter:
    """Remembers the last reading, because processor use is a difference between two."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._cgroup = _own_cgroup()
        self._last: tuple[float, int] | None = None

    def totals(self) -> CgroupSnapshot:
        import psutil

        memory = psutil.virtual_memory()
        if self._cgroup:
            cpu, stat = _pairs(self._cgroup / "cpu.stat"), _pairs(self._cgroup / "memory.stat")
            events = _pairs(self._cgroup / "memory.events")
            used = _number(self._cgroup / "memory.current") or 0
            most = min(_number(self._cgroup / "memory.max") or memory.total, memory.total)
            spent = cpu.get("usage_usec", 0)
        else:
            cpu, stat, events, used, most = {}, {}, {}, memory.total - memory.available, memory.total
            times = psutil.cpu_times()
            spent = int(1e6 * (sum(times) - times.idle - getattr(times, "iowait", 0)))
        now = time.monotonic()
        percent = None
        if self._last and now > self._last[0]:
            percent = round(max(0.0, (spent - self._last[1]) / 1e4 / (now - self._last[0])), 1)
        self._last = (now, spent)
        return CgroupSnapshot(
            cpu_usage_pct=percent,
            cpu_usage_usec=spent,
            cpu_nr_periods=cpu.get("nr_periods"),
            cpu_nr_throttled=cpu.get("nr_throttled"),
            cpu_throttled_usec=cpu.get("throttled_usec"),
            mem_current_bytes=used,
            mem_max_bytes=most,
            mem_usage_pct=round(100 * used / most, 1),
            oom=events.get("oom"),
            oom_kill=events.get("oom_kill"),
            memory_anon_bytes=stat.get("anon"),
            memory_file_bytes=stat.get("file"),
            memory_shmem_bytes=stat.get("shmem"),
            memory_slab_bytes=stat.get("slab"),
        )

    def disks(self) -> list[DiskSnapshot]:
        places: dict[int, Path] = {}
        for path in (self.settings.workspace_path, *self.settings.reachable_roots):
            if path.is_dir():
                places.setdefault(path.stat().st_dev, path)
        return [self._disk(path) for path in places.values()]

    @staticmethod
    def _disk(path: Path) -> DiskSnapshot:
        usage = shutil.disk_usage(path)
        disk = DiskSnapshot(
            path=str(path),
            used_bytes=usage.used,
            total_bytes=usage.total,
            free_bytes=usage.free,
            usage_pct=round(100 * usage.used / max(usage.total, 1), 1),
        )
        inodes = os.statvfs(path)
        if inodes.f_files:
            used = inodes.f_files - inodes.f_ffree
            disk.inode_used, disk.inode_total = used, inodes.f_files
            disk.inode_usage_pct = round(100 * used / inodes.f_files, 1)
        return disk

    def processes(self, most: int) -> list[ProcessSnapshot]:
        """The largest processes of the sandbox's user, by memory."""
        import psutil

        names = ["pid", "ppid", "username", "name", "memory_info", "num_threads", "status", "create_time"]
        own = psutil.Process().username()
        rows = [
            (process, process.info) for process in psutil.process_iter(names) if process.info["username"] == own
        ]  # psutil keeps what it saw last time, so that cpu_percent has something to compare with
        rows = [row for row in rows if row[1]["memory_info"] is not None]
        rows.sort(key=lambda row: -row[1]["memory_info"].rss)
        found = []
        for process, info in rows[:most]:
            rss = info["memory_info"].rss
            shot = ProcessSnapshot(
                pid=info["pid"],
                ppid=info["ppid"],
                user=info["username"],
                comm=info["name"],
                rss_bytes=rss,
                rss_mib=round(rss / 2**20, 1),
                threads=info["num_threads"],
                state=info["status"],
                uptime_sec=round(max(0.0, time.time() - info["create_time"]), 1),
            )
            try:
                shot.cpu_pct = process.cpu_percent()
                shot.fds = process.num_fds()
            except psutil.Error:
                pass
            found.append(shot)
        return found
