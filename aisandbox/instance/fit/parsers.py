"""vLLM's parsers of what a family of models writes."""

from __future__ import annotations

from aisandbox.manifest import Parser


def parser_arguments(parser: Parser | None) -> list[str]:
    """vLLM's arguments for a family's tool calls and thinking."""
    arguments = []
    if parser and parser.tool:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", parser.tool]
    if parser and parser.reasoning:
        arguments += ["--reasoning-parser", parser.reasoning]
    return arguments
