"""The auxiliary service behind the gateway: embeddings, transcripts and documents, by the official client."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import httpx
import numpy
import openai
import psutil
import pytest

from tests.gateway.stack import Gateway, running_gateway
from tests.gateway.upstream import Upstream
from tests.support import auxiliary
from tests.support.office import READABLE, REFUSED, SENTENCE, Maker

IDLE_S = 4
SPOKEN = "Please open the window and bring me a glass of water."
ALIKE = "A kitten naps on the couch."
TEXTS = ["The cat sleeps on the sofa.", ALIKE, "Interest rates rose again."]


@pytest.fixture(scope="module")
def service(gateway: Gateway) -> Iterator[psutil.Process]:
    with auxiliary.running(gateway.manifest, IDLE_S) as process:
        yield psutil.Process(process.pid)


@pytest.fixture(scope="module")
def client(gateway: Gateway, service: psutil.Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.url("api", "/v1"), api_key="none", max_retries=0, timeout=400) as client:
        yield client


@pytest.fixture
def vllm(gateway: Gateway) -> Iterator[Upstream]:
    with Upstream(gateway.port("api_upstream")) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def names(gateway: Gateway) -> tuple[str, str]:
    models = gateway.manifest.auxiliary_models
    return models.embedding.id, models.speech.id


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return auxiliary.speech(SPOKEN, tmp_path_factory.mktemp("speech") / "spoken.wav")


def refusal(call: openai.APIStatusError) -> str:
    """What the error says, which has the shape of OpenAI's."""
    error = call.response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return f"{call.status_code} {error['code']}: {error['message']}"


def words(text: str) -> list[str]:
    return "".join(char for char in text.lower() if char.isalpha() or char == " ").split()


def workers(service: psutil.Process) -> list[psutil.Process]:
    """Its processes that have a model."""
    found = []
    for child in service.children():
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


# At first nothing is loaded


def test_it_is_small_until_it_is_needed(service: psutil.Process) -> None:
    assert workers(service) == []
    rss = service.memory_info().rss / 2**20
    print(f"the service that waits: {rss:.0f} MiB")
    assert rss < 100


# Embeddings


def test_like_texts_have_like_vectors(client: openai.OpenAI, names: tuple[str, str]) -> None:
    answer = client.embeddings.create(model=names[0], input=TEXTS, encoding_format="float")
    vectors = numpy.array([entry.embedding for entry in answer.data])
    assert vectors.shape == (3, 384) and [entry.index for entry in answer.data] == [0, 1, 2]
    assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    assert vectors[0] @ vectors[1] > 0.5 > 0.2 > vectors[0] @ vectors[2]
    assert (answer.model, answer.usage.prompt_tokens) == (names[0], answer.usage.total_tokens)
    assert 20 < answer.usage.total_tokens < 40


def test_both_encodings_say_the_same(gateway: Gateway, client: openai.OpenAI, names: tuple[str, str]) -> None:
    """One text alone, too; and the client's own default is base64."""
    floats = client.embeddings.create(model=names[0], input=ALIKE, encoding_format="float").data[0].embedding
    default = client.embeddings.create(model=names[0], input=ALIKE).data[0].embedding
    body = {"model": names[0], "input": TEXTS, "encoding_format": "base64"}
    packed = httpx.post(gateway.url("api", "/v1/embeddings"), json=body, timeout=60).json()["data"][1]["embedding"]
    unpacked = numpy.frombuffer(base64.b64decode(packed), dtype="<f4")
    assert numpy.allclose(floats, default, atol=1e-6) and numpy.allclose(floats, unpacked, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"input": ["short", "word " * 300]}, "400 context_length_exceeded: Input 2 has 302 tokens"),
        ({"input": [1, 2, 3]}, "400 invalid_value: input: one text, or a list"),
        ({"input": ["a"] * 2049}, "400 array_above_max_length: The request has 2049 inputs; at most 2048"),
        ({"input": []}, "400 invalid_value: input: one text, or a list"),
        ({"input": ""}, "400 invalid_value: Input 1 is empty"),
        ({"input": ["a", ""]}, "400 invalid_value: Input 2 is empty"),
        ({"input": "a", "dimensions": 64}, "400 invalid_value: sentence-transformers/all-MiniLM-L6-v2 makes vectors"),
    ],
)
def test_what_cannot_be_embedded_is_told(
    client: openai.OpenAI, names: tuple[str, str], asked: dict[str, object], told: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/embeddings", body={"model": names[0], **asked}, cast_to=object)
    assert refusal(refused.value).startswith(told)


def test_while_the_model_server_is_away_the_embedding_model_is_named(
    client: openai.OpenAI, names: tuple[str, str]
) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        client.embeddings.create(model="owner/embedder", input="x")
    assert refusal(refused.value).startswith("503 model_loading") and names[0] in refusal(refused.value)
    assert refused.value.response.headers["Retry-After"] == "5"


def test_other_models_are_asked_of_the_model_server(gateway: Gateway, service: psutil.Process, vllm: Upstream) -> None:
    body = {"model": "owner/embedder", "input": "x"}
    answer = httpx.post(gateway.url("api", "/v1/embeddings"), json=body)
    assert answer.status_code == 200 and vllm.seen[-1].json() == body and vllm.seen[-1].path == "/v1/embeddings"
    for broken in (b"{", b"[" * 100_000):
        assert httpx.post(gateway.url("api", "/v1/embeddings"), content=broken).status_code == 200
        assert vllm.seen[-1].body == broken


# Transcripts


@pytest.mark.parametrize("form", ["wav", "mp3", "ogg", "webm", "m4a", "flac"])
def test_speech_is_written_down(client: openai.OpenAI, names: tuple[str, str], tmp_path: Path, form: str) -> None:
    with auxiliary.speech(SPOKEN, tmp_path / f"spoken.{form}").open("rb") as file:
        answer = client.audio.transcriptions.create(model=names[1], file=file)
    assert words(answer.text) == words(SPOKEN)


def test_every_form_of_a_transcript(client: openai.OpenAI, names: tuple[str, str], recording: Path) -> None:
    said = {}
    for form in ("text", "srt", "vtt"):
        with recording.open("rb") as file:
            said[form] = str(client.audio.transcriptions.create(model=names[1], file=file, response_format=form))
    assert words(said["text"]) == words(SPOKEN)
    assert said["srt"].startswith("1\n00:00:0") and "," in said["srt"].splitlines()[1]
    assert said["vtt"].startswith("WEBVTT\n\n00:00:0") and "window" in said["vtt"]
    with recording.open("rb") as file:
        verbose = client.audio.transcriptions.create(model=names[1], file=file, response_format="verbose_json")
    assert verbose.segments and words("".join(part.text for part in verbose.segments)) == words(SPOKEN)
    assert 2 < float(verbose.duration) < 6 and verbose.language == "english"
    assert 0 <= verbose.segments[0].start < verbose.segments[-1].end <= float(verbose.duration) + 1


def test_a_longer_recording_is_written_down_in_order(
    client: openai.OpenAI, names: tuple[str, str], tmp_path: Path
) -> None:
    """The model hears half a minute at once."""
    text = (
        f"{SPOKEN} What is the capital of France? The children play in the garden with a small dog. My brother went to "
        "the station to meet his friends. My father has a red car and a blue bicycle. The book is on the table beside "
        "the lamp. In summer we swim in the river near the old bridge. The doctor came to the house at ten o'clock. In "
        "winter there is snow on the mountains. The farmer sells milk and eggs at the market. My sister plays the "
        "piano every evening."
    )
    with auxiliary.speech(text, tmp_path / "long.mp3").open("rb") as file:
        heard = client.audio.transcriptions.create(model=names[1], file=file, response_format="verbose_json")
    expected = ["water", "france", "garden", "station", "table", "river", "doctor", "market", "piano"]
    assert float(heard.duration) > 31 and [word for word in words(heard.text) if word in expected] == expected
    assert heard.segments and all(one.end <= other.start + 0.5 for one, other in pairwise(heard.segments))


def test_the_same_recording_gives_the_same_words(client: openai.OpenAI, names: tuple[str, str], tmp_path: Path) -> None:
    """Also where what repeats itself is heard once more with some chance in it."""
    path = auxiliary.speech("The teacher wrote a long letter to the parents. " * 5, tmp_path / "again.mp3")
    heard = [client.audio.transcriptions.create(model=names[1], file=path).text for _ in range(3)]
    assert heard[0] and heard == heard[:1] * 3


def test_silence_says_nothing(client: openai.OpenAI, names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "3", path], check=True
    )
    with path.open("rb") as file:
        assert client.audio.transcriptions.create(model=names[1], file=file).text == ""


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"language": "de"}, "400 invalid_value: openai/whisper-tiny.en understands English only"),
        ({"model": "whisper-1"}, "404 model_not_found: No such model here. openai/whisper-tiny.en writes down"),
        ({"response_format": "docx"}, "400 invalid_value: response_format"),
        ({"timestamp_granularities": ["word"]}, "400 invalid_value: Times are known of segments"),
        ({"file": ("a.wav", b"no sound at all")}, "400 invalid_value: No sound could be read"),
        ({"file": ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")}, "400 invalid_value: No sound"),
        ({"file": ("list.txt", b"ffconcat version 1.0\nfile /etc/passwd\n")}, "400 invalid_value: No sound"),
    ],
)
def test_what_cannot_be_written_down_is_told(
    client: openai.OpenAI, names: tuple[str, str], recording: Path, asked: dict[str, object], told: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.audio.transcriptions.create(**{"model": names[1], "file": recording, **asked})  # type: ignore[call-overload]
    assert refusal(refused.value).startswith(told)


def test_a_request_without_a_file_is_told(gateway: Gateway, client: openai.OpenAI, names: tuple[str, str]) -> None:
    answer = httpx.post(gateway.url("api", "/v1/audio/transcriptions"), data={"model": names[1]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


# Documents, as Open WebUI asks for them


def process(gateway: Gateway, name: str, content: bytes) -> httpx.Response:
    url = gateway.url("auxiliary_upstream", "/documents/process")
    return httpx.put(url, content=content, headers={"X-Filename": name}, timeout=120)


@pytest.mark.parametrize(("name", "make"), READABLE.items(), ids=READABLE)
def test_documents_give_their_text(gateway: Gateway, service: psutil.Process, name: str, make: Maker) -> None:
    answer = process(gateway, name, make())
    assert answer.status_code == 200, answer.text
    assert SENTENCE in " ".join(part["page_content"] for part in answer.json())


@pytest.mark.parametrize(("name", "make", "told"), [(name, *entry) for name, entry in REFUSED.items()], ids=REFUSED)
def test_others_are_refused_in_words(
    gateway: Gateway, service: psutil.Process, name: str, make: Maker, told: str
) -> None:
    answer = process(gateway, name, make())
    assert answer.status_code == 422 and told in answer.text, answer.text
    assert "pip" not in answer.text and "Traceback" not in answer.text


def test_pages_are_numbered(gateway: Gateway, service: psutil.Process) -> None:
    answer = process(gateway, "pages.pdf", READABLE["paper.pdf"]())
    assert [part["metadata"] for part in answer.json()] == [{"page": 0, "page_label": "1"}]


def test_documents_have_a_bound_on_parts_at_once(
    gateway: Gateway, service: psutil.Process, names: tuple[str, str]
) -> None:
    body = {"model": names[0], "input": ["a"] * 2049}
    answer = httpx.post(gateway.url("auxiliary_upstream", "/documents/v1/embeddings"), json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "array_above_max_length")


def test_parts_of_documents_are_shortened_rather_than_refused(
    gateway: Gateway, service: psutil.Process, names: tuple[str, str]
) -> None:
    body = {"model": names[0], "input": ["word " * 400]}
    answer = httpx.post(gateway.url("auxiliary_upstream", "/documents/v1/embeddings"), json=body, timeout=60)
    assert answer.status_code == 200 and answer.json()["usage"]["total_tokens"] == 256


# When something ends


def test_a_killed_worker_is_followed_by_another(
    client: openai.OpenAI, names: tuple[str, str], service: psutil.Process
) -> None:
    client.embeddings.create(model=names[0], input="x")
    (worker,) = workers(service)
    worker.kill()
    worker.wait(10)
    for _ in range(2):
        try:
            answer = client.embeddings.create(model=names[0], input="x")
            break
        except openai.InternalServerError as error:
            assert "Trace id: " in refusal(error)
    assert len(answer.data) == 1


def test_what_nobody_needs_any_more_is_given_back(
    client: openai.OpenAI, names: tuple[str, str], service: psutil.Process
) -> None:
    client.embeddings.create(model=names[0], input="x")
    assert workers(service)
    deadline = time.monotonic() + 30 * IDLE_S
    while workers(service):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/audio/transcriptions"])
def test_without_the_service_the_gateway_says_so(tmp_path: Path, path: str) -> None:
    with running_gateway(tmp_path) as gateway:
        answer = httpx.post(gateway.url("api", path), json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
    assert answer.headers["Retry-After"] == "5" and "aisandbox status" in answer.json()["error"]["message"]
