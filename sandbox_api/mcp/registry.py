"""Tools as plain functions, and the one place that knows them. It needs nothing of the MCP library."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from sandbox_api import quotas
from sandbox_api.errors import SandboxError
from sandbox_api.log import logger
from sandbox_api.unicode import dumps, replace_surrogates, replace_surrogates_deep


@dataclass(frozen=True)
class Picture:
    data: bytes
    mime: str = "image/png"


class Result(BaseModel):
    """What a tool returns: fields for programs, words for a model that reads them, pictures for one that sees."""

    def words(self) -> str:
        return dumps(self.model_dump(mode="json", exclude_defaults=True)).decode()

    def pictures(self) -> list[Picture]:
        return []


Function = Callable[..., Awaitable[Result]]


@dataclass(frozen=True)
class Outcome:
    """A tool's result in the shape that MCP gives it, without the library's types."""

    content: list[dict[str, Any]]
    structured: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    def described(self) -> dict[str, Any]:
        """As MCP sends it. Clients check structured content against the tool's schema, so errors have none."""
        described: dict[str, Any] = {"content": self.content, "isError": self.error is not None}
        if self.structured is not None:
            described["structuredContent"] = self.structured
        if self.error is not None:
            described["_meta"] = {"sandbox/error": self.error}
        return described


def tidy(schema: Any, *, nulls: bool) -> Any:
    """JSON Schema without titles, which only repeat names; models pay for every word.

    Args:
        nulls: keep null as a choice. Of arguments it goes: leaving one out means the same.
    """
    if isinstance(schema, list):
        return [tidy(part, nulls=nulls) for part in schema]
    if not isinstance(schema, dict):
        return schema
    choices = [choice for choice in schema.get("anyOf", []) if nulls or choice != {"type": "null"}]
    if len(choices) == 1:
        schema = {**{name: value for name, value in schema.items() if name != "anyOf"}, **choices[0]}
    elif choices:
        schema = {**schema, "anyOf": choices}
    return {
        name: {key: tidy(part, nulls=nulls) for key, part in value.items()}
        if name in ("properties", "$defs")
        else tidy(value, nulls=nulls)
        for name, value in schema.items()
        if name != "title" and not (name == "default" and value is None and not nulls)
    }


@dataclass(frozen=True)
class Tool:
    """
    Args:
        reads: it changes nothing.
        destroys: it may overwrite or delete.
        repeats: a second call with the same arguments changes nothing more.
        world: it reaches beyond the sandbox.
    """

    function: Function
    title: str
    reads: bool = False
    destroys: bool = False
    repeats: bool = False
    world: bool = False
    arguments: type[BaseModel] = field(init=False)
    result: type[Result] = field(init=False)

    def __post_init__(self) -> None:
        hints = get_type_hints(self.function, include_extras=True)
        fields: dict[str, Any] = {
            name: (hints[name], ... if parameter.default is inspect.Parameter.empty else parameter.default)
            for name, parameter in inspect.signature(self.function).parameters.items()
        }
        model = create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)
        object.__setattr__(self, "arguments", model)
        object.__setattr__(self, "result", hints["return"])

    @property
    def name(self) -> str:
        return self.function.__name__

    def described(self) -> dict[str, Any]:
        """As MCP lists it."""
        return {
            "name": self.name,
            "title": self.title,
            "description": inspect.getdoc(self.function) or "",
            "inputSchema": tidy(self.arguments.model_json_schema(), nulls=False),
            "outputSchema": tidy(self.result.model_json_schema(mode="serialization"), nulls=True),
            "annotations": {
                "title": self.title,
                "readOnlyHint": self.reads,
                "destructiveHint": self.destroys,
                "idempotentHint": self.reads or self.repeats,
                "openWorldHint": self.world,
            },
        }

    async def call(self, arguments: dict[str, Any]) -> Outcome:
        """Never raises: what goes wrong is for the model to read."""
        try:
            values = self.arguments.model_validate(arguments)
            result = await self.function(**{name: getattr(values, name) for name in type(values).model_fields})
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}" for problem in error.errors()
            )
            return failure("invalid_request", problems, f"See the input schema of {self.name}.")
        except SandboxError as error:
            return _refused(quotas.translate(error))
        except UnicodeEncodeError as error:
            return failure("invalid_request", f"an argument is not valid Unicode: {error.reason}", "Send valid text.")
        except Exception as crash:
            if refusal := quotas.reached(crash):
                return _refused(refusal)
            logger.exception("tool", name=self.name)
            return failure("internal_error", "the sandbox failed on this call", "The server's log has the details.")
        content: list[dict[str, Any]] = [{"type": "text", "text": replace_surrogates(result.words())}]
        content += [
            {"type": "image", "data": base64.b64encode(picture.data).decode(), "mimeType": picture.mime}
            for picture in result.pictures()
        ]
        return Outcome(content, replace_surrogates_deep(result.model_dump(mode="json")))


def _refused(error: SandboxError) -> Outcome:
    return failure(error.code, error.message, error.hint, retryable=error.entry.retryable)


def failure(code: str, message: str, hint: str, *, retryable: bool = False) -> Outcome:
    message = replace_surrogates(message)
    error = {"code": code, "message": message, "hint": hint, "retryable": retryable}
    return Outcome([{"type": "text", "text": f"Error {code}: {message}\n{hint}"}], error=error)


class Registry:
    def __init__(self, tools: list[Tool]) -> None:
        self.tools = {tool.name: tool for tool in tools}

    def described(self) -> list[dict[str, Any]]:
        return [tool.described() for tool in self.tools.values()]

    def find(self, name: str) -> Tool:
        """
        Raises:
            SandboxError: `tool_not_found`.
        """
        if name not in self.tools:
            raise SandboxError("tool_not_found", f"there is no tool {name[:100]}")
        return self.tools[name]
