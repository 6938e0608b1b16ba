"""What the OpenAPI document says of the server with its own plugins: every route, and so that it can be tried."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from openvino_llama.plugins import load_plugins
from openvino_llama.server.app import create_app
from openvino_llama.server.settings import Settings
from openvino_llama_text.classification import ClassificationRequest
from openvino_llama_text.embedding import EmbeddingRequest
from openvino_llama_text.openai.bodies import ChatBody, CompletionBody, EmbeddingBody, RerankBody
from openvino_llama_text.requests import GenerationRequest
from openvino_llama_text.rerank import RerankRequest

JSON = "application/json"
PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    schema = create_app(Settings(), load_plugins()).openapi_schema.to_schema()
    decoded: dict[str, Any] = json.loads(json.dumps(schema))
    return decoded


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By method and path."""
    return {(method, path): each for path, item in document["paths"].items() for method, each in item.items()}


def test_it_is_openapi(document: dict[str, Any]) -> None:
    """By the specification's own schema."""
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(document)


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    """It has a tag, each answer has a schema, and no error has the shape of Litestar's own."""
    for name, operation in operations(document).items():
        assert operation["tags"], name
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                assert content["schema"], (name, status, media_type)
        assert "status_code" not in str(operation), name


def test_query_parameters_are_described(document: dict[str, Any]) -> None:
    """Each one, by the plugins that read them."""
    for name, operation in operations(document).items():
        for each in operation.get("parameters", ()):
            assert each["in"] == "path" or each["description"], (name, each["name"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ChatBody),
        ("/v1/completions", CompletionBody),
        ("/v1/embeddings", EmbeddingBody),
        ("/v1/rerank", RerankBody),
    ],
)
def test_the_routes_for_openais_clients(document: dict[str, Any], path: str, body: type[msgspec.Struct]) -> None:
    """Body, answer and error, and a body to try."""
    operation = operations(document)["post", path]
    schema = operation["requestBody"]["content"][JSON]["schema"]
    assert set(schema["properties"]) == set(body.__struct_fields__)
    assert msgspec.convert(schema["examples"][0], body)
    assert operation["responses"]["200"]["content"][JSON]["schema"]["properties"]["model"] == {"type": "string"}
    assert "error" in operation["responses"]["default"]["content"][JSON]["schema"]["properties"]
    assert ("text/event-stream" in operation["responses"]["200"]["content"]) == ("stream" in schema["properties"])


def test_the_bodies_of_texts(document: dict[str, Any]) -> None:
    """One for each task, with one to try; for streams, that of what streams."""
    kinds: dict[str, type[msgspec.Struct]] = {
        "generation": GenerationRequest,
        "embedding": EmbeddingRequest,
        "classification": ClassificationRequest,
        "rerank": RerankRequest,
    }
    content = operations(document)["post", "/infer/text"]["requestBody"]["content"]
    assert [each["title"] for each in content[JSON]["schema"]["anyOf"]] == [each.__name__ for each in kinds.values()]
    for task, example in content[JSON]["examples"].items():
        assert msgspec.convert(example["value"], kinds.pop(task))
    assert not kinds
    assert content["text/plain"]["schema"] == {"type": "string"}
    streamed = operations(document)["post", "/infer/text/stream"]["requestBody"]["content"]
    assert streamed[JSON]["schema"]["title"] == "GenerationRequest"


def test_the_prompt_of_an_event_source(document: dict[str, Any]) -> None:
    """In the query stand the parameters, and of a form's fields what a query can state; each once."""
    parameters = operations(document)["get", "/infer/text/stream"]["parameters"]
    names = [each["name"] for each in parameters]
    assert [each["name"] for each in parameters if "example" in each] == ["prompt"]
    assert {"model", "temperature", "prompt"} <= set(names)
    assert "messages" not in names
    assert len(names) == len(set(names))


def test_a_model_is_loaded_by_its_name_alone(document: dict[str, Any]) -> None:
    """The rest of an entry may be left out; files are sent with theirs."""
    content = operations(document)["post", "/models/load"]["requestBody"]["content"]
    assert (content[JSON]["schema"]["required"], content[JSON]["schema"]["examples"]) == (["name"], [{"name": "mine"}])
    assert content["multipart/form-data"]["schema"]["required"] == ["entry"]


def test_problems_have_their_statuses(document: dict[str, Any]) -> None:
    """Those that a client has to expect of a model by its name; and that a server is not ready."""
    found = operations(document)
    assert set(found["get", "/models/{model_id}"]["responses"]) == {"200", "404", "default"}
    assert set(found["delete", "/models/{model_id}"]["responses"]) == {"204", "404", "409", "default"}
    assert set(found["get", "/health/ready"]["responses"]) == {"200", "503"}
    missing = found["get", "/models/{model_id}"]["responses"]["404"]["content"][PROBLEM]["schema"]
    assert {"status", "title", "detail"} <= set(missing["properties"])
