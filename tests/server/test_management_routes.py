"""/models: list, show, load, activate, unload; with good and with bad requests."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.support import GOOD, Live, check_problem, numbers

from tests import graphs, tiny

_PART = b'--x\r\nContent-Disposition: form-data; name="entry"\r\n\r\n'
TRIPLED = [[3.0, 6.0, 9.0, 12.0]]


@pytest.fixture(autouse=True)
def _leaves_all_as_it_was(live: Live) -> Iterator[None]:
    """Models that a test loaded are unloaded; the first one is active; no uploaded file is left."""
    before = {model.name for model in live.server.models.all()}
    yield
    for model in live.server.models.all():
        if model.name not in before:
            live.unload(model.name)
    assert live.http.put("/models/double/activate").status_code == 200
    assert uploads() == []


def uploads() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("ovllama-upload-*"))


def upload(live: Live, entry: Any, **files: bytes | Path) -> httpx.Response:
    """``POST /models/load`` with the files themselves."""
    content = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    parts = [("entry", (None, content))] + [
        (
            role,
            (
                f"../../{role}.{'bin' if role == 'weights' else 'xml'}",
                file.read_bytes() if isinstance(file, Path) else file,
            ),
        )
        for role, file in files.items()
    ]
    return live.http.post("/models/load", files=parts)


def entry(name: str = "new", **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "tiny", "task": "double", "files": {"model": "triple.xml"}} | fields


def test_models_are_listed_with_their_specs(live: Live) -> None:
    """GET /models shows configuration, specs, state and route of each."""
    answer = live.http.get("/models").json()
    shown = {model["id"]: model for model in answer["models"]}
    assert shown["double"] == {
        "id": "double",
        "type": "tiny",
        "task": "double",
        "state": "ready",
        "route": "/infer/tiny",
        "device": "CPU",
        "files": {"model": "double.xml"},
        "active_for": "tiny",
        "config": {"refuse": "", "prepare_seconds": 0.0, "guest": ""},
        "inputs": [{"name": "x", "shape": [-1, 4], "data_type": "f32", "layout": None}],
        "outputs": [{"name": "y", "shape": [-1, 4], "data_type": "f32", "layout": None}],
    }
    assert "active_for" not in shown["triple"]
    assert answer["problems"] == {}


def test_one_model_is_shown(live: Live) -> None:
    """GET /models/{id} shows the same; 404 for one that is not there."""
    assert live.http.get("/models/triple").json()["id"] == "triple"
    check_problem(live.http.get("/models/nobody"), 404)
    check_problem(live.http.get("/models/%2e%2e%2fetc%2fpasswd"), 404)
    check_problem(live.http.get("/models/a%00b"), 404)


def test_load_serve_activate_unload(live: Live) -> None:
    """The whole life of a model, and what its plugin is told of it."""
    tiny.TOLD.clear()
    answer = live.http.post("/models/load", json=entry())
    assert (answer.status_code, answer.headers["location"]) == (201, "/models/new")
    assert answer.json()["state"] == "ready"
    assert numbers(live.infer(model="new")) == TRIPLED
    assert numbers(live.infer()) != TRIPLED
    assert live.http.put("/models/new/activate").json()["active_for"] == "tiny"
    assert numbers(live.infer()) == TRIPLED
    assert "active_for" not in live.http.get("/models/double").json()
    assert live.http.delete("/models/new").content == b""
    check_problem(live.infer(model="new"), 404)
    check_problem(live.infer(), 404)
    assert tiny.TOLD == [("loaded", "new"), ("activated", "new"), ("unloaded", "new")]


def test_a_model_to_load_needs_a_name(live: Live) -> None:
    """Whatever else is stated."""
    answer = live.http.post("/models/load", json={"model_id": "double"})
    assert check_problem(answer, 400)["detail"] == "field 'name': is required"


def test_load_and_activate_in_one(live: Live) -> None:
    """``activate`` makes the loaded model the active one."""
    assert live.http.post("/models/load", json=entry(activate=True)).json()["active_for"] == "tiny"
    assert numbers(live.infer()) == TRIPLED


def test_a_model_of_the_registry_is_loaded_by_its_name(live: Live) -> None:
    """A name alone is looked up in the registry, as it is on disk now."""
    live.unload("sums")
    assert live.http.post("/models/load", json={"name": "sums"}).json()["files"] == {"model": "sums.xml"}
    problem = check_problem(live.http.post("/models/load", json={"name": "nobody"}), 404)
    needed = "one that it does not have needs the fields 'type', 'task' and 'files', too"
    assert problem["detail"] == f"the registry has no model 'nobody'; {needed}"


def test_uploaded_files_are_served_and_deleted(live: Live, tiny_files: Path) -> None:
    """Files come with the request, lie in a folder of their own, and go with the model."""
    stated = {"name": "sent", "type": "tiny", "task": "double", "files": {}}
    answer = upload(live, stated, model=tiny_files / "triple.xml", weights=tiny_files / "triple.bin")
    assert answer.status_code == 201, answer.text
    assert answer.json()["files"] == {"model": "model.xml", "weights": "weights.bin"}
    assert numbers(live.infer(model="sent")) == TRIPLED
    assert len(uploads()) == 1
    live.unload("sent")
    assert uploads() == []


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"name": ""}, 400, "empty"),
        ({"name": "../etc"}, 400, "'/'"),
        ({"name": "a/../b"}, 400, "'/'"),
        ({"name": "../../etc/passwd"}, 400, "'/'"),
        ({"name": ".."}, 400, "folder"),
        ({"name": " .."}, 400, "blank"),
        ({"name": ".. "}, 400, "blank"),
        ({"name": "   "}, 400, "blank"),
        ({"name": "model/"}, 400, "'/'"),
        ({"name": "%2e%2e%2f"}, 400, "'%'"),
        ({"name": "a\0b"}, 400, "control"),
        ({"name": "Double"}, 400, "too much like"),
        ({"name": "\uff44ouble"}, 400, "too much like"),
        ({"name": "x" * 129}, 400, "128"),
        ({"name": 5}, 400, "field 'name': expected str, got 5"),
        ({"name": None}, 400, "field 'name': expected str, got null"),
        ({"activate": "yes"}, 400, "field 'activate': expected bool, got 'yes'"),
        ({"type": "vision-of-old"}, 400, "no installed plugin"),
        ({"task": "triple"}, 400, "tasks double"),
        ({"unknown": 1}, 400, "unknown"),
        ({"config": {"unknown": 1}}, 400, "unknown"),
        ({"config": {"refuse": 5}}, 400, "refuse"),
        ({"limits": {"queue_size": 0}}, 400, "queue_size"),
        ({"limits": {"memory_mib": 5000}}, 400, "memory_mib"),
        ({"limits": {"deadline_s": -1}}, 400, "deadline_s"),
        ({"batching": {"max_batch_size": 0}}, 400, "max_batch_size"),
        ({"isolation": "none"}, 400, "isolation"),
        ({"files": {}}, 400, "model"),
        ({"files": {"model": ""}}, 400, "empty"),
        ({"files": {"model": "../models/x.xml"}}, 400, "'..'"),
        ({"files": {"model": "/etc/passwd"}}, 400, "relative"),
        ({"files": {"model": "nothing.xml"}}, 400, "no such file"),
        ({"files": {"model": "a\0b"}}, 400, "NUL"),
        ({"files": {"model": "outside.xml"}}, 400, "outside"),
        ({"files": {"model": "https://example.com/model.xml"}}, 400, "no such file"),
        ({"files": {"model": "double.bin"}}, 422, "could not read"),
        ({"files": {"model": "broken.xml"}}, 422, "well-formed"),
        ({"files": {"model": "huge.xml"}}, 422, "claims"),
        ({"files": {"model": "entities.xml"}}, 422, "DOCTYPE"),
        ({"files": {"model": "truncated.xml"}}, 422, "weights"),
        ({"device": "TPU"}, 422, "no device 'TPU' on this machine"),
        ({"device": "/etc"}, 422, "no device '/etc' on this machine"),
        ({"properties": {"NO_SUCH_PROPERTY": 1}}, 400, "NO_SUCH_PROPERTY"),
        ({"inputs": [{"name": "x", "shape": [0], "data_type": "f32"}]}, 400, "dimension"),
        ({"inputs": [{"name": "z", "shape": [1, 4], "data_type": "f32"}]}, 400, "z"),
        ({"inputs": [{"name": "x", "shape": [2**40, 4], "data_type": "f32"}]}, 422, ""),
        ({"inputs": [{"name": "x", "shape": [2**62, 2**62], "data_type": "f32"}]}, 422, ""),
        ({"config": {"refuse": "ConfigError"}}, 400, ""),
        ({"config": {"guest": "00"}}, 422, "no WebAssembly"),
    ],
)
def test_entries_that_are_refused(live: Live, tiny_files: Path, fields: dict[str, Any], status: int, said: str) -> None:
    """A wrong entry names what is wrong with it, and leaves the other models as they are."""
    xml = (tiny_files / "double.xml").read_text()
    outside = tiny_files.parent / "outside-of-models.xml"
    outside.write_text(xml)
    if not (tiny_files / "outside.xml").is_symlink():
        (tiny_files / "outside.xml").symlink_to(outside)
    (tiny_files / "broken.xml").write_text(xml[:200])
    (tiny_files / "huge.xml").write_text(xml.replace('size="4"', 'size="4000000000000"'))
    (tiny_files / "entities.xml").write_text('<!DOCTYPE n [<!ENTITY e SYSTEM "file:///etc/passwd">]><net>&e;</net>')
    (tiny_files / "truncated.xml").write_text(xml)
    (tiny_files / "truncated.bin").write_bytes(b"")
    answer = live.http.post("/models/load", json=entry() | fields)
    if fields == {"config": {"refuse": "ConfigError"}}:  # what the plugin says itself may be anything
        assert answer.status_code == status
    else:
        assert said in check_problem(answer, status)["detail"]
    assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]


@pytest.mark.parametrize("name", ["...", "..my_model", "model..1", "model.version1", "Ünïcödé", "with blank"])
def test_names_that_are_allowed(live: Live, name: str) -> None:
    """Dots and letters of any language are no danger."""
    assert live.http.post("/models/load", json=entry(name)).status_code == 201
    assert numbers(live.infer(model=name)) == TRIPLED


@pytest.mark.parametrize("raised", ["SystemExit", "KeyboardInterrupt", "StopIteration", "ZeroDivisionError"])
def test_a_plugin_that_fails_to_load_a_model(live: Live, raised: str) -> None:
    """Whatever a hook raises is 500 for this load; the model is failed, can be seen, and can be loaded again."""
    check_problem(live.http.post("/models/load", json=entry(config={"refuse": raised})), 500)
    shown = live.http.get("/models/new").json()
    assert (shown["state"], shown["reason"]) == ("failed", "an unexpected error, which the log has")
    check_problem(live.infer(model="new"), 409)
    check_problem(live.http.put("/models/new/activate"), 409)
    assert live.http.post("/models/load", json=entry()).status_code == 201


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"name": "a", "name": ', "application/json", 400),
        (b'{"name": "a", "config": ' + b'{"a":' * 101 + b"1" + b"}" * 101 + b"}", "application/json", 400),
        (b'{"name":' + b"[" * 500_000, "application/json", 400),
        (b'{"name": "\xff"}', "application/json", 400),
        (b" " * ((1 << 20) + 1), "application/json", 413),
        (b"{}", "text/plain", 415),
        (b"{}", "", 415),
        (b"x", "multipart/form-data", 400),
        (b"\r\n" * 100_000, "multipart/form-data; boundary=x", 400),
        (b"--x--", "multipart/form-data; boundary=x", 400),
        (bytes(9 << 20), "multipart/form-data; boundary=x", 413),
        (
            b'--x\r\nContent-Disposition: form-data; name="entry"\r\n\r\n' + bytes(9 << 20),
            "multipart/form-data; boundary=x",
            413,
        ),
    ],
)
def test_bodies_that_are_no_entries(live: Live, body: bytes, media_type: str, status: int) -> None:
    """Neither parser is fooled, or kept busy."""
    headers = {"Content-Type": media_type} if media_type else {}
    check_problem(live.http.post("/models/load", content=body, headers=headers, timeout=10), status)


@pytest.mark.parametrize(
    ("stated", "files", "status"),
    [
        (b"", {"model": b"x"}, 400),
        (b"{", {"model": b"x"}, 400),
        (entry(files={}), {}, 400),
        (entry(files={}), {"labels": b"x"}, 400),
        (entry(files={}), {"MODEL": b"x"}, 400),
        (entry(files={}), {"../model": b"x"}, 400),
        (entry("a/b", files={}), {"model": b"x"}, 400),
        (entry("double", files={}), {"model": b"x"}, 422),
        (entry(files={}), {"model": b""}, 422),
        (entry(files={}), {"model": b"<net></net>"}, 422),
        (entry(files={}), {"model": b'<?xml version="1.0"?><!DOCTYPE n [<!ENTITY e "x">]><n>&e;</n>'}, 422),
    ],
)
def test_uploads_that_are_refused(live: Live, stated: Any, files: dict[str, bytes], status: int) -> None:
    """A wrong upload leaves no file and no model behind."""
    check_problem(upload(live, stated, **files), status)
    assert uploads() == []


def test_uploaded_models_are_read_in_a_child_first(live: Live, tiny_files: Path) -> None:
    """A graph that would take all memory is refused by a process that may be lost."""
    model = graphs.double()
    graphs.save(model, tiny_files / "greedy.xml")
    xml = (tiny_files / "greedy.xml").read_text().replace('shape="?,4"', 'shape="2147483647,2147483647"')
    answer = upload(live, entry(files={}), model=xml.encode(), weights=(tiny_files / "greedy.bin").read_bytes())
    check_problem(answer, 422)


def test_the_same_name_twice(live: Live) -> None:
    """A model that is there, or is being loaded, is not loaded again: 409."""
    check_problem(live.http.post("/models/load", json=entry("double")), 409)
    later = live.later(lambda client: client.post("/models/load", json=entry(config={"prepare_seconds": 1.0})))
    while not any(model.name == "new" for model in live.server.models.all()):
        pass
    check_problem(live.http.post("/models/load", json=entry()), 409)
    check_problem(live.http.delete("/models/new"), 409)
    check_problem(live.infer(model="new"), 503)
    check_problem(live.http.put("/models/new/activate"), 503)
    assert live.http.get("/models/new").json()["state"] == "loading"
    assert numbers(live.infer()) == [[2.0, 4.0, 6.0, 8.0]]
    assert later.result().status_code == 201


@pytest.mark.parametrize(("method", "path"), [("PUT", "/models/nobody/activate"), ("DELETE", "/models/nobody")])
def test_what_is_not_there_cannot_be_changed(live: Live, method: str, path: str) -> None:
    """404."""
    check_problem(live.http.request(method, path), 404)


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/models"), ("POST", "/models/double"), ("GET", "/models/double/activate")]
)
def test_wrong_methods(live: Live, method: str, path: str) -> None:
    """405, with what is allowed."""
    answer = live.http.request(method, path)
    check_problem(answer, 405)
    assert answer.headers["allow"]


def test_unloading_finishes_what_was_accepted(live: Live) -> None:
    """DELETE waits for running and queued requests; new ones get 503, then 404; none hangs."""
    live.load("drained", "double.xml", limits={"workers": 1}, batching={"max_batch_size": 1})
    accepted = [live.infer_later(GOOD | {"gate": "drain"}, "drained") for _ in range(5)]
    tiny.GATES.await_waiting("drain")
    while live.server.models.get("drained").queue_length < 4:
        pass
    gone = live.later(lambda client: client.delete("/models/drained"))
    while live.http.get("/models/drained").json()["state"] != "unloading":
        pass
    refused = live.infer(model="drained")
    check_problem(refused, 503)
    assert refused.headers["retry-after"] == "1"
    check_problem(live.http.delete("/models/drained"), 409)
    assert not gone.done()
    tiny.GATES.open("drain")
    assert [numbers(each.result()) for each in accepted] == [[[2.0, 4.0, 6.0, 8.0]]] * 5
    assert gone.result().status_code == 204
    check_problem(live.infer(model="drained"), 404)


def test_activating_under_load_fails_no_request(live: Live) -> None:
    """Fifty activations while eight clients send: every answer is that of one of the two models."""
    stop, answered = threading.Event(), threading.Semaphore(0)

    def send(client: httpx.Client) -> httpx.Response:
        while True:
            answer = client.post("/infer/tiny", json=GOOD)
            assert numbers(answer)[0][0] in (2.0, 3.0)
            answered.release()
            if stop.is_set():
                return answer

    clients = [live.later(send) for _ in range(8)]
    for turn in range(50):
        assert answered.acquire(timeout=20)
        assert live.http.put(f"/models/{('triple', 'double')[turn % 2]}/activate").status_code == 200
    stop.set()
    assert {each.result().status_code for each in clients} == {200}


def test_a_file_replaced_while_it_is_served(live: Live, tiny_files: Path) -> None:
    """Overwritten or truncated on disk, a loaded model stays what it was; loaded anew, it is the new one."""
    for suffix in ("xml", "bin"):
        (tiny_files / f"moving.{suffix}").write_bytes((tiny_files / f"double.{suffix}").read_bytes())
    live.load("moving", "moving.xml")
    (tiny_files / "moving.bin").write_bytes(b"")
    assert numbers(live.infer(model="moving")) == [[2.0, 4.0, 6.0, 8.0]]
    for suffix in ("xml", "bin"):
        (tiny_files / f"moving.{suffix}").write_bytes((tiny_files / f"triple.{suffix}").read_bytes())
    assert numbers(live.infer(model="moving")) == [[2.0, 4.0, 6.0, 8.0]]
    live.unload("moving")
    live.load("moving", "moving.xml")
    assert numbers(live.infer(model="moving")) == TRIPLED
