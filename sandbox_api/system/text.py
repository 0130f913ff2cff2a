"""The sandbox described in plain text, for a language model or a person at a terminal."""

from __future__ import annotations

from sandbox_api.system.models import Overview, SandboxDetail

# What each part is for, and one call that shows it: method, path, body.
GUIDE: dict[str, tuple[str, str]] = {
    "shell": (
        "Commands, with separate stdout, stderr and exit code",
        """curl -s {base}/v1/bash/exec -H 'Content-Type: application/json' -d '{{"command": "echo test"}}'""",
    ),
    "file": (
        "Files: read, write, list, search, grep, glob, replace, upload, download, watch",
        "curl -s {base}/v1/file/write -H 'Content-Type: application/json' "
        """-d '{{"file": "{workspace}/note.txt", "content": "hello"}}'""",
    ),
    "code": (
        "Python and JavaScript, with the value of the last expression; state is kept per session_id",
        "curl -s {base}/v1/code/execute -H 'Content-Type: application/json' "
        """-d '{{"language": "python", "code": "2**10"}}'""",
    ),
    "browser": (
        "A browser with a window: navigate, click, type, read, take pictures; DevTools address in /v1/browser/info",
        "curl -s {base}/v1/browser/page/navigate -H 'Content-Type: application/json' "
        """-d '{{"url": "http://127.0.0.1:3000/"}}'""",
    ),
    "vnc": ("The desktop, for a person to look at and take over", "open {base}/vnc/index.html"),
    "cdp": ("DevTools, for Playwright and Puppeteer", "curl -s {base}/v1/browser/info"),
    "jupyter": ("Jupyter Lab", "open {base}/jupyter"),
    "code-server": ("VS Code", "open {base}/code-server/"),
    "proxy": ("Your own web servers in the sandbox, by port", "curl -s {base}/proxy/3000/"),
    "mcp": ("All of it as tools of the Model Context Protocol, streamable HTTP", "{base}/mcp"),
    "skills": ("Folders of instructions with a SKILL.md", "curl -s {base}/v1/skills/metadatas"),
    "util": (
        "Documents as Markdown",
        "curl -s {base}/v1/util/convert_to_markdown -H 'Content-Type: application/json' "
        """-d '{{"uri": "file://{workspace}/page.html"}}'""",
    ),
}


def describe(overview: Overview, detail: SandboxDetail, base: str) -> str:
    """The text form of `GET /v1/sandbox`."""
    system = detail.system
    lines = [
        "AI Sandbox",
        "",
        f"System: {system.os} {system.os_version}, {system.arch}, user {system.user}, time zone {system.timezone}",
        f"Workspace: {overview.workspace} (keep your files there; paths are absolute)",
        f"Home: {system.home_dir}",
    ]
    runtimes = [("Python", detail.runtime.python), ("Node.js", detail.runtime.nodejs)]
    lines += [f"{name}: {spec.ver} ({spec.bin})" for name, specs in runtimes for spec in specs]
    if names := [tool.name for category in detail.utils for tool in category.tools]:
        lines.append(f"Programs: {', '.join(names)}")
    lines += ["", f"Ready: {'yes' if overview.ready else 'no'}", "", "What works now:"]
    for name, health in overview.capabilities.items():
        lines.append(f"- {name}: {health.status}" + (f" ({health.detail})" if health.detail else ""))
    lines += ["", "How to use it:"]
    for name, (purpose, example) in GUIDE.items():
        if (found := overview.capabilities.get(name)) and found.status in ("ready", "starting"):
            lines += [f"- {purpose}", f"  {example.format(base=base, workspace=overview.workspace)}"]
    lines += [
        "",
        "Answers have the form {success, message, data, hint, error}; an error has code, message, hint, retryable and",
        "trace_id. A command that exits with another code than 0 is not an error: success is true; check exit_code.",
        f"All routes: {base}/v1/openapi.json, for people {base}/v1/docs",
    ]
    return "\n".join(lines) + "\n"
