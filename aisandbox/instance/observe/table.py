"""`aisandbox status` for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from aisandbox.instance.observe.status import Endpoint, Overview, Phase
from aisandbox.instance.observe.timeline import Span

COLOURS = {"ready": "green", "done": "green", "starting": "yellow", "running": "yellow", "failed": "red"}
REFRESH_S = 1.0


def show(overview: Overview, timeline: bool = False) -> None:
    """Print the state once."""
    Console(highlight=False, soft_wrap=True).print(render(overview, timeline))


def watch(compose: Callable[[], Overview], timeline: bool = False) -> None:
    """Show the state, up to date, until interrupted."""
    with Live(render(compose(), timeline), auto_refresh=False, console=Console(highlight=False)) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(render(compose(), timeline), refresh=True)


def render(overview: Overview, timeline: bool = False) -> RenderableType:
    """The whole state as one block, or where the time since power-on went."""
    return _grid(_spans(overview.timeline)) if timeline else Group(*_parts(overview))


def _parts(overview: Overview) -> Iterator[RenderableType]:
    yield Text.assemble(f"{overview.product} {overview.version}: ", (overview.state, COLOURS[overview.state]))
    image = overview.image
    if image.driver:
        yield Text(f"Image: {image.flavour}, kernel {image.kernel}, NVIDIA driver {image.driver}, CUDA {image.cuda}")
    if overview.model:
        other = overview.serving and overview.serving != overview.model
        yield Text(f"Model: {overview.model}" + (f" (serving {overview.serving})" if other else ""))
    if overview.sizing:
        yield Text(overview.sizing.sentence)
        if overview.sizing.rows:
            yield _grid(overview.sizing.rows)
    yield _grid(
        (endpoint.label, _coloured("ready" if endpoint.ready else "starting"), _way(endpoint))
        for endpoint in overview.endpoints
    )
    yield _grid((phase.phase, _coloured(phase.state), _message(phase)) for phase in overview.phases)
    if overview.services:
        yield _grid(
            (unit.name, f"{unit.active} ({unit.sub})", f"{unit.restarts} restarts" if unit.restarts else "")
            for unit in overview.services
        )
    for problem in overview.problems:
        yield Text(f"! {problem}\n  {problem.fix}", style="red")
    for warning in overview.warnings:
        yield Text(f"! {warning.text}\n  {warning.fix}", style="yellow")


def _way(endpoint: Endpoint) -> str:
    return f"{endpoint.url} after {endpoint.tunnel}" if endpoint.tunnel else endpoint.url


def _spans(timeline: tuple[Span, ...]) -> Iterator[tuple[str, str, str]]:
    """What happened when, and how long it took, in seconds since power-on."""
    for span in timeline:
        if span.ended_s is None:
            took = "goes on"
        else:
            took = f"{span.ended_s - span.began_s:8.2f} s" if span.ended_s > span.began_s else ""
        yield f"{span.began_s:9.2f} s", span.name, took


def _grid(rows: Iterable[tuple[str | Text, ...]]) -> Text:
    """The rows in columns. Nothing is cut off to fit the window: addresses and commands are there to be copied."""
    # What services report is text, never markup.
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        for cell, width in zip(row[:-1], widths, strict=False):
            cell.pad_right(width - len(cell) + 2)
        lines.append(Text().join(row))
    return Text("\n").join(lines)


def _coloured(state: str) -> Text:
    return Text(state, style=COLOURS.get(state, ""))


def _message(phase: Phase) -> str:
    """The phase's message, and how far its download is."""
    facts = phase.model_extra or {}
    total = facts.get("bytes_total")
    if phase.state != "running" or not total:
        return phase.message
    done, speed, eta = (facts.get(fact) or 0 for fact in ("bytes_done", "bytes_per_second", "eta_s"))
    return f"{phase.message} {done / 1e9:.2f} of {total / 1e9:.2f} GB, {speed / 1e6:.0f} MB/s, {eta:.0f} s left"
