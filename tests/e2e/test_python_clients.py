"""Python's clients from PyPI, as `aisandbox connect` sets them up: LangChain, LlamaIndex and LiteLLM's proxy.

They run in an environment of their own, as in a network without internet: a request to any other host than the machine
is refused and fails the test.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from aisandbox.builder.environments import environment
from aisandbox.builder.machine import Machine
from aisandbox.guide.corpus import Entry
from tests.support import proxy
from tests.support.machines import MANIFEST, PATIENCE, output, wait_for
from tests.support.proxy import Closed
from tests.support.sandbox import free_port

MODEL = MANIFEST.embedded_model.id
KEY = "sk-of-the-proxy"
NAME, ARGUMENTS = "run_command", {"command": "uname -a"}
RESULT = json.dumps({"exit_code": 0, "stdout": "Linux aisandbox 6.1.7", "stderr": ""})
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
    },
}
LANGCHAIN = """
import json, operator, sys
from functools import reduce
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

question, result = sys.argv[1:]

@tool
def run_command(command: str) -> str:
    "Run a command."
    return result

pieces = [piece.content for piece in llm.stream(question, temperature=0)]
agent = llm.bind_tools([run_command], temperature=0)
messages = [HumanMessage("run uname -a")]
streamed = reduce(operator.add, agent.stream(messages))
asked = agent.invoke(messages)
(call,) = asked.tool_calls
messages += [asked, run_command.invoke(call)]
said = agent.invoke(messages)
calls = [[call["name"], call["args"]] for message in (asked, streamed) for call in message.tool_calls]
print(json.dumps({"pieces": pieces, "calls": calls, "said": said.content}))
"""
LLAMA_INDEX = """
import json, sys
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

question, result = sys.argv[1:]

def run_command(command: str) -> str:
    return result

tools = [FunctionTool.from_defaults(run_command, description="Run a command.")]
pieces = [piece.delta for piece in llm.stream_complete(question, temperature=0)]
request = ChatMessage(role="user", content="run uname -a")
told = {"allow_parallel_tool_calls": True, "temperature": 0}
*_, streamed = llm.stream_chat_with_tools(tools, chat_history=[request], **told)
asked = llm.chat_with_tools(tools, chat_history=[request], **told)
(call,) = llm.get_tool_calls_from_response(asked)
returned = tools[0].call(**call.tool_kwargs).content
answer = ChatMessage(role="tool", content=returned, additional_kwargs={"tool_call_id": call.tool_id})
said = llm.chat_with_tools(tools, chat_history=[request, asked.message, answer], **told)
selected = [call, *llm.get_tool_calls_from_response(streamed)]
calls = [[call.tool_name, call.tool_kwargs] for call in selected]
print(json.dumps({"pieces": pieces, "calls": calls, "said": said.message.content}))
"""


@dataclass(frozen=True)
class Client:
    """What a client runs in: a folder, the environment with it, and no internet."""

    machine: Machine
    python: Path
    folder: Path
    internet: Closed

    @property
    def variables(self) -> dict[str, str]:
        refused = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), self.internet.url)
        # Nothing of the caller's: his keys, traces and caches of files that are downloaded at first use.
        own = {"HOME": str(self.folder), "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
        return {**own, **refused, "no_proxy": f"{self.machine.address},127.0.0.1"}

    def told(self, name: str) -> str:
        return output(self.machine, f"sudo aisandbox connect {name} 2>/dev/null") + "\n"

    def run(self, name: str, more: str, *arguments: str) -> tuple[str, dict[str, Any]]:
        """Run what is printed and go on with it: gives its output, and the line of JSON that ends that of the rest."""
        program = self.folder / f"{name}.py"
        program.write_text(self.told(name) + more)
        done = subprocess.run(
            [self.python, program, *arguments],
            cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed, _, last = done.stdout.strip().rpartition("\n")
        return printed, json.loads(last)


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("clients") / "bin" / "python"


@pytest.fixture
def client_of(machine: Machine, python: Path, tmp_path: Path) -> Iterator[Client]:
    with proxy.closed() as internet:
        yield Client(machine, python, tmp_path, internet)
        assert internet.asked == []


@pytest.mark.parametrize(("name", "more"), [("langchain", LANGCHAIN), ("llama-index", LLAMA_INDEX)])
def test_a_library_answers_streams_and_calls_a_tool(client_of: Client, known: Entry, name: str, more: str) -> None:
    printed, found = client_of.run(name, more, known.questions[0], RESULT)
    assert "AI Sandbox" in printed
    assert "".join(found["pieces"]) == known.answer and len(found["pieces"]) > 5
    assert found["calls"] == [[NAME, ARGUMENTS]] * 2
    assert "Linux aisandbox 6.1.7" in found["said"]


def test_litellms_proxy_answers_streams_and_calls_a_tool(client_of: Client, known: Entry) -> None:
    with _serving(client_of) as base, openai.OpenAI(base_url=base, api_key=KEY, max_retries=0, timeout=60) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        question: list[ChatCompletionMessageParam] = [{"role": "user", "content": known.questions[0]}]
        answer = client.chat.completions.create(model=MODEL, messages=question, temperature=0)
        assert answer.choices[0].message.content == known.answer
        assert answer.usage and answer.usage.completion_tokens > 10
        stream = client.chat.completions.create(model=MODEL, messages=question, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(pieces) == known.answer and len(pieces) > 5
        _call_a_tool(client)


@pytest.mark.xfail(
    reason="vLLM 0.32's guidance backend does not know the grammar of tool calls (vllm-project/vllm#55152)",
    raises=openai.APIError,
    strict=True,
)
def test_what_llama_index_sends_unless_told_otherwise(client: openai.OpenAI) -> None:
    """Without `allow_parallel_tool_calls=True` it asks for one call at a time."""
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "run uname -a"}],
        tools=[TOOL],
        parallel_tool_calls=False,
        temperature=0,
    )


@contextmanager
def _serving(client_of: Client) -> Iterator[str]:
    """LiteLLM's proxy with the printed file, started as its comment says; gives its address."""
    config, log, port = client_of.folder / "config.yaml", client_of.folder / "log", free_port()
    config.write_text(client_of.told("litellm"))
    command: list[str | Path] = [client_of.python, client_of.python.with_name("litellm"), "--config", config]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    variables = {**client_of.variables, "LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with (
        log.open("w") as written,
        subprocess.Popen(command, cwd=client_of.folder, env=variables, stdout=written, stderr=written) as process,
    ):
        try:
            wait_for("LiteLLM's proxy", lambda: process.poll() is not None or _answers(port))
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/readiness", timeout=5).is_success
    except httpx.TransportError:
        return False


def _call_a_tool(client: openai.OpenAI) -> None:
    """The model asks for a call, in one piece and streamed, gets the result and answers."""
    asked: dict[str, Any] = {"model": MODEL, "tools": [TOOL], "temperature": 0}
    messages: list[Any] = [{"role": "user", "content": "run uname -a"}]
    with client.chat.completions.stream(messages=messages, **asked) as events:
        streamed = events.get_final_completion().choices[0].message
    answer = client.chat.completions.create(messages=messages, **asked).choices[0].message
    for message in (streamed, answer):
        (call,) = message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == (NAME, ARGUMENTS)
    messages += [
        answer.model_dump(include={"role", "content", "tool_calls"}),
        {"role": "tool", "tool_call_id": call.id, "content": RESULT},
    ]
    said = client.chat.completions.create(messages=messages, **asked).choices[0]
    assert said.finish_reason == "stop" and "Linux aisandbox 6.1.7" in (said.message.content or "")
