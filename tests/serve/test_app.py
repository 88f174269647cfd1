"""What is served is what `predict` says; what is too much, or asked by strangers, is refused."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import featcache as fc
from featcache.errors import ClassifierError, MissingExtraError, ServeError
from featcache.serve import app as serving
from featcache.serve.guarding import is_loopback, names_of
from featcache.serve.uploads import uploaded

HOST = "http://127.0.0.1:8000"
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def client(saved: Path) -> Iterator[TestClient]:
    with TestClient(fc.classifier_app(saved, most_bytes=LIMIT), base_url=HOST) as client:
        yield client


def as_json(*predictions: fc.Prediction) -> list[dict[str, Any]]:
    return [p.to_json() for p in predictions]


def same(answered: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Equal but for paths, which are names here, and the last bits of probabilities."""
    flat = [[(e["label"], e["probability"]) for e in row["top"]] for row in answered]
    theirs = [[(e["label"], e["probability"]) for e in row["top"]] for row in expected]
    return len(flat) == len(theirs) and all(
        [label for label, _ in a] == [label for label, _ in b]
        and [p for _, p in a] == pytest.approx([p for _, p in b], abs=1e-6)
        for a, b in zip(flat, theirs, strict=True)
    )


def test_the_bytes_of_a_picture(client: TestClient, saved: Path, photos: Any) -> None:
    done = client.post("/predict", content=photos[0].read_bytes())
    assert done.status_code == 200
    assert same(done.json(), as_json(*fc.predict(saved, photos[0], engine="torch")))
    one = client.post("/predict?top=1", content=photos[0].read_bytes()).json()
    assert len(one[0]["top"]) == 1
    assert one[0]["label"] == done.json()[0]["label"]


def test_a_form_of_several(client: TestClient, saved: Path, photos: Any) -> None:
    files = [("any", (path.name, path.read_bytes())) for path in photos]
    done = client.post("/predict", files=files)
    assert done.status_code == 200
    answered = done.json()
    assert [row["path"] for row in answered] == ["cat.jpg", "cup.png", "text.jpg"]
    assert same(answered[:2], as_json(*fc.predict(saved, photos[:2], engine="torch")))
    assert answered[2]["label"] is None
    assert "not a picture" in answered[2]["error"]


def test_a_picture_that_cannot_be_read_says_why(client: TestClient, photos: Any) -> None:
    for content, reason in ((photos[2].read_bytes(), "not a picture"), (b"", "an empty file")):
        done = client.post("/predict", content=content)
        assert done.status_code == 422
        assert reason in done.json()[0]["error"]
    cut = photos[0].read_bytes()[:5000]
    assert "truncated" in client.post("/predict", content=cut).json()[0]["error"]


def chunks(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(100_000)


def test_uploads_are_bounded_while_they_come(client: TestClient) -> None:
    declared = client.post("/predict", content=bytes(LIMIT + 1))
    streamed = client.post("/predict", content=chunks(11))
    lied = client.post("/predict", content=chunks(11), headers={"content-length": "100"})
    form = client.post("/predict", files={"a": ("a.jpg", bytes(LIMIT))})
    field = client.post("/predict", files={"a": (None, bytes(LIMIT // 2))})
    for done in (declared, streamed, lied, form):
        assert done.status_code == 413
        assert done.json() == {"error": "too large: at most 1 MB a request are taken"}
    assert field.status_code in (400, 413)
    assert client.post("/predict", content=chunks(10)).status_code == 422


def test_no_more_is_read_than_is_allowed(saved: Path) -> None:
    taken: list[int] = []

    def endless() -> Iterator[bytes]:
        while len(taken) < 1000:
            taken.append(1)
            yield bytes(10_000)

    sent = endless()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(sent), "more_body": True}

    scope = {"type": "http", "method": "POST", "headers": [], "path": "/", "query_string": b""}
    with pytest.raises(Exception, match="413"):
        asyncio.run(uploaded(Request(scope, receive), LIMIT))
    assert len(taken) == 101


def test_nothing_is_written(
    client: TestClient, photos: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file")

    opened = builtins.open

    def only_reading(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        assert set(mode) <= set("rbt"), f"{file} {mode}"
        return opened(file, mode, *rest, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    monkeypatch.setattr(tempfile, "_mkstemp_inner", refuse)
    monkeypatch.setattr(builtins, "open", only_reading)
    large = photos[1].read_bytes() + bytes(400_000)
    assert client.post("/predict", files={"a": ("a.png", large)}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:8000"}, 403),
        ({"host": "192.168.0.7"}, 403),
        ({"host": "["}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost", "origin": "http://localhost"}, 200),
        ({"host": "localhost:8000", "origin": "http://evil.example"}, 403),
        ({"host": "localhost:8000", "origin": "http://localhost:9000"}, 403),
        ({"host": "localhost:8000", "origin": "null"}, 403),
    ],
)
def test_who_may_ask(client: TestClient, headers: dict[str, str], status: int) -> None:
    done = client.get("/info", headers=headers)
    assert done.status_code == status
    assert ("error" in done.json()) == (status == 403)
    assert "access-control-allow-origin" not in done.headers


def test_names_of_a_server() -> None:
    everywhere = names_of("0.0.0.0", ["Pets.Local"])
    assert all(
        map(everywhere.hold, ("192.168.0.7:8000", "pets.local", "[fe80::1]:80", "localhost"))
    )
    assert everywhere.hold(socket.gethostname())
    assert not everywhere.hold("evil.example")
    assert not names_of("127.0.0.1").hold("10.0.0.1")
    assert list(map(is_loopback, ("localhost", "127.9.9.9", "::1", "0.0.0.0", "::", "pets"))) == [
        *(True, True, True),
        *(False, False, False),
    ]


def test_info_health_and_what_is_not_there(client: TestClient, saved: Path) -> None:
    told = client.get("/info").json()
    assert told["classifier"] == "drinks.fc"
    assert (told["size"], told["most_bytes"]) == ([32, 32], LIMIT)
    assert len(told["classes"]) == 2
    assert str(saved.parent) not in json.dumps(told)
    assert client.get("/health").json() == {"status": "ok"}
    for path, method, status in (("/x", "GET", 404), ("/predict", "GET", 405)):
        done = client.request(method, path)
        assert done.status_code == status
        assert "error" in done.json()
    for path in ("/predict?top=0", "/predict?top=x", "/predict?top=-1", "/predict?top=9999999999"):
        assert client.post(path, content=b"x").status_code == 400
    wrong = {"content-type": "multipart/form-data"}
    assert client.post("/predict", content=b"x", headers=wrong).status_code == 400
    assert client.post("/predict", files={"a": (None, "text")}).status_code == 400


def test_the_page_takes_nothing_from_elsewhere(client: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "javascript"), ("/page.css", "text/css")):
        done = client.get(path)
        assert kind in done.headers["content-type"]
        assert "://" not in done.text
        policy = done.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert done.headers["x-content-type-options"] == "nosniff"


def test_names_of_any_bytes(saved: Path) -> None:
    from featcache.serve.answering import answer

    assert json.loads(bytes(answer({"a": "caf\udce9"}).body)) == {"a": "caf\udce9"}


def test_too_many_at_once_are_told(saved: Path, photos: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(serving, "_SLOTS", 0)
    monkeypatch.setattr(serving, "_PATIENCE", 0.05)
    with TestClient(fc.classifier_app(saved), base_url=HOST) as client:
        done = client.post("/predict", content=photos[0].read_bytes())
    assert (done.status_code, done.json()) == (503, {"error": "busy: try again in a moment"})


def test_many_at_once_wait_for_one_another(client: TestClient, saved: Path, photos: Any) -> None:
    (expected,) = fc.predict(saved, photos[0], engine="torch")
    content = photos[0].read_bytes()
    with ThreadPoolExecutor(3 * serving._SLOTS) as asking:
        done = list(asking.map(lambda _: client.post("/predict", content=content), range(40)))
    assert all(same(one.json(), as_json(expected)) for one in done)


def test_who_sends_slowly_is_told(saved: Path, photos: Any, monkeypatch: Any) -> None:
    async def slow(*_: Any) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(serving, "_SECONDS", 0.05)
    monkeypatch.setattr(serving, "uploaded", slow)
    with TestClient(fc.classifier_app(saved), base_url=HOST) as client:
        assert client.post("/predict", content=photos[0].read_bytes()).status_code == 408


def test_what_nobody_foresaw_is_told_where_it_runs(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("of /home/me")

    monkeypatch.setattr(serving, "uploaded", broken)
    app = fc.classifier_app(saved)
    with TestClient(app, base_url=HOST, raise_server_exceptions=False) as client:
        done = client.post("/predict", content=b"a picture")
        assert client.get("/health").status_code == 200
    assert done.status_code == 500
    assert done.json() == {"error": "the server failed; where it runs it says why"}


def test_a_port_in_use_is_named(saved: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"127.0.0.1:{port}: Address already in use; give"):
            fc.serve_classifier(saved, port=port)
    with pytest.raises(ServeError, match="give another --port"):
        fc.serve_classifier(saved, host="no.such.host.invalid")


def test_what_cannot_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClassifierError, match="no such classifier"):
        fc.classifier_app(tmp_path / "none.fc")
    monkeypatch.setattr("featcache.extras.find_spec", lambda name: None)
    import featcache.serve

    with pytest.raises(MissingExtraError, match=r"needs starlette, uvicorn.* 'featcache\[serve\]'"):
        featcache.serve.serve_classifier  # noqa: B018 - the attribute is the test


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(saved: Path, photos: Any) -> None:
    import httpx

    command = "from featcache_cli.app import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", str(saved), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    told = process.stdout.readline()
    url = told.rpartition(" ")[2].strip()
    with httpx.Client(trust_env=False, timeout=60) as client:
        done = client.post(f"{url}/predict", content=photos[0].read_bytes())
    process.send_signal(signal.SIGINT)
    _, remarks = process.communicate(timeout=30)
    assert told.startswith(f"{saved} is served at http://127.0.0.1:")
    assert done.json()[0]["label"] == "cat"
    assert (process.returncode, remarks) == (0, "Ctrl-C ends it\n")
