"""Requests and answers about the sandbox itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from sandbox_api.health import Health

Mode = Literal["off", "guardrail", "capture"]


class ToolSpec(BaseModel):
    ver: str | None = None
    bin: str | None = None
    alias: list[str] = []


class AvailableTool(BaseModel):
    name: str
    description: str = ""


class ToolCategory(BaseModel):
    category: str
    tools: list[AvailableTool]


class SystemEnv(BaseModel):
    os: str
    os_version: str
    arch: str
    user: str
    home_dir: str
    workspace: str | None = None
    timezone: str
    occupied_ports: list[str] = Field(description="TCP ports on which something listens.")


class RuntimeEnv(BaseModel):
    python: list[ToolSpec]
    nodejs: list[ToolSpec]


class SandboxDetail(BaseModel):
    system: SystemEnv
    runtime: RuntimeEnv
    utils: list[ToolCategory]


class Overview(BaseModel):
    ready: bool = Field(description="Whether shell, files and code work.")
    capabilities: dict[str, Health] = Field(description="Live state of each part, asked for this answer.")
    versions: dict[str, str]
    addresses: dict[str, str] = Field(description="Absolute addresses, as seen from the caller.")
    limits: dict[str, int | float] = Field(description="Bytes, seconds and counts; the settings of the same names.")
    settings: dict[str, Any] = Field(description="Settings in force, without secrets.")
    workspace: str


class Readiness(BaseModel):
    ready: bool
    missing: dict[str, Health] = Field({}, description="Parts that are asked for and do not work yet, and why.")


class Package(BaseModel):
    name: str
    version: str


class RegisterHook(BaseModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="Its own name; registering it again replaces it.")
    event: Literal["shutdown"] = Field("shutdown", description="When it runs: as the sandbox ends.")
    command: str = Field(min_length=1, max_length=65536, description="Command for the sandbox's shell.")
    timeout: float = Field(10, gt=0, le=60, description="Seconds; then everything it started is ended.")
    priority: int = Field(100, ge=-1000, le=1000, description="Lower runs earlier; equal ones run together.")


class Hook(RegisterHook):
    source: Literal["api"] = "api"


class ObserveStart(BaseModel):
    mode: Literal["guardrail", "capture"] = Field(
        "capture", description="`capture` keeps every sample, `guardrail` only what became scarce."
    )
    idempotency_key: str | None = Field(None, max_length=128, description="The same key again gives the same session.")
    duration_seconds: int | None = Field(None, ge=1, le=86400, description="Default: 300.")
    interval_seconds: float | None = Field(None, ge=0.2, le=3600, description="Default: 1, guardrail 5.")
    include_processes: bool | None = Field(None, description="Default: with capture only.")
    include_disk: bool = True


class ObserveStop(BaseModel):
    session_id: str | None = Field(None, max_length=64)


class ObserveExport(BaseModel):
    idempotency_key: str | None = Field(None, max_length=128)
    session_id: str | None = Field(None, max_length=64, description="Default: the present session, else the last.")
    reason: str = Field("manual", max_length=200)


class ObservationStatus(BaseModel):
    mode: Mode
    running: bool
    session_id: str | None = None
    started_at: datetime | None = None
    ends_at: datetime | None = None
    interval_seconds: float | None = None
    last_sample_at: datetime | None = None
    runtime_dir: str | None = None
    report_count: int = 0


class ObservationStartResult(BaseModel):
    session_id: str
    mode: Mode
    started_at: datetime
    ends_at: datetime | None = None
    interval_seconds: float
    runtime_dir: str


class ObservationStopResult(BaseModel):
    session_id: str
    stopped: bool
    report_ready: bool


class ObservationReport(BaseModel):
    report_id: str
    session_id: str | None = None
    reason: str = "manual"
    created_at: datetime
    path: str
    size_bytes: int


class CgroupSnapshot(BaseModel):
    """Of the sandbox's control group; where there is none, of the machine."""

    cpu_usage_pct: float | None = Field(None, description="Since the last sample; 100 is one processor.")
    cpu_usage_usec: int = 0
    cpu_nr_periods: int | None = None
    cpu_nr_throttled: int | None = None
    cpu_throttled_usec: int | None = None
    mem_current_bytes: int = 0
    mem_max_bytes: int | None = None
    mem_usage_pct: float | None = None
    oom: int | None = None
    oom_kill: int | None = None
    memory_anon_bytes: int | None = None
    memory_file_bytes: int | None = None
    memory_shmem_bytes: int | None = None
    memory_slab_bytes: int | None = None


class DiskSnapshot(BaseModel):
    path: str
    used_bytes: int
    total_bytes: int
    free_bytes: int
    usage_pct: float
    inode_used: int | None = None
    inode_total: int | None = None
    inode_usage_pct: float | None = None


class ProcessSnapshot(BaseModel):
    pid: int
    user: str
    comm: str
    rss_bytes: int
    rss_mib: float
    cpu_pct: float | None = None
    threads: int | None = None
    fds: int | None = None
    state: str | None = None
    uptime_sec: float | None = None
    ppid: int | None = None


class ObservationEvent(BaseModel):
    ts: datetime
    type: str
    message: str = ""
    data: dict[str, Any] = {}


class LiveSnapshot(BaseModel):
    captured_at: datetime
    mode: Mode
    cgroup: CgroupSnapshot
    disk: list[DiskSnapshot] = []
    top_processes: list[ProcessSnapshot] = []
    recent_events: list[ObservationEvent] = []
