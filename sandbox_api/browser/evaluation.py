"""JavaScript in a page, by DevTools: scripts that run without end are ended, and every value comes as JSON or not at
all."""

from __future__ import annotations

from typing import Any

from sandbox_api.browser.failures import LONGEST
from sandbox_api.browser.scripts import VALUE
from sandbox_api.browser.session import PageCall
from sandbox_api.errors import SandboxError
from sandbox_api.unicode import loads

# In the time that is left the page must still be asked for the value.
SHARE = 0.8


async def evaluate(call: PageCall, expression: str, most: int) -> Any:
    """The value of an expression, of the last statement, or of a function's call; promises are awaited.

    Args:
        most: largest value, in characters of JSON.

    Raises:
        SandboxError: `browser_failed` when it throws or its value cannot be returned; `too_large`.
    """
    finished = False
    try:
        answer = await _run(call, expression)
        if "Illegal return statement" in _thrown(answer):
            answer = await _run(call, f"(async () => {{{expression}\n}})()")
        value = await _value(call, answer, most)
        finished = True
        return value
    finally:
        if not finished:
            # It may still run, and would block the page for everybody.
            call.tab.interrupt()


async def _run(call: PageCall, expression: str) -> dict[str, Any]:
    return await call.tab.send(
        "Runtime.evaluate",
        expression=expression,
        replMode=True,
        awaitPromise=True,
        userGesture=True,
        timeout=call.ms * SHARE,
    )


async def _value(call: PageCall, answer: dict[str, Any], most: int) -> Any:
    if words := _thrown(answer):
        raise _failure(words, f" (line {answer['exceptionDetails'].get('lineNumber', 0) + 1})")
    result = answer["result"]
    if result["type"] == "symbol":
        raise SandboxError("browser_failed", "evaluate: the value is a symbol; it cannot be returned")
    if "objectId" not in result:
        value = result.get("unserializableValue", result.get("value"))
        if isinstance(value, str) and len(value) > most:
            raise _too_large(most)
        return value
    try:
        answer = await call.tab.send(
            "Runtime.callFunctionOn",
            objectId=result["objectId"],
            functionDeclaration=VALUE,
            arguments=[{"value": most}],
            awaitPromise=True,
            returnByValue=True,
        )
    finally:
        call.tab.forget(result["objectId"])
    if words := _thrown(answer):
        raise _failure(words)
    text = answer["result"].get("value")
    if text is None or len(text) > most:
        raise _too_large(most)
    try:
        return loads(text)
    except ValueError as error:
        raise SandboxError("too_large", f"evaluate: {error}", hint="Return a part of it.") from error


def _too_large(most: int) -> SandboxError:
    return SandboxError(
        "too_large",
        f"evaluate: the value has more than {most} characters; SANDBOX_READ_BYTES is the limit",
        hint="Return a part of it.",
    )


def _thrown(answer: dict[str, Any]) -> str:
    details = answer.get("exceptionDetails")
    if not details:
        return ""
    thrown = details.get("exception", {})
    return str(thrown.get("description") or thrown.get("value") or details.get("text") or "an exception")


def _failure(words: str, place: str = "") -> SandboxError:
    message = words.split("\n    at ")[0][:LONGEST]
    return SandboxError(
        "browser_failed",
        f"evaluate: {message}{place}",
        hint="Correct the expression.",
        data={"exception": words[:10_000]},
    )
