import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny

from ser_backend.cli import main
from ser_backend.errors import SerError
from ser_backend.records import Response
from ser_backend.scorer import api, server
from ser_backend.scorer.batcher import Batcher
from ser_backend.scorer.checking import Limits
from ser_backend.scorer.model import Shelf
from ser_backend.scoring import score_file

ROOT = Path(__file__).parents[2]
TOKEN = "a token of enough characters"
WORDS = np.array([*tiny.GOOD, *tiny.BAD, *tiny.PLAIN])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.build("bert", tmp_path_factory.mktemp("model"), head=True)


@contextlib.contextmanager
def served(model, limits=Limits(), token="", shelf=None):  # noqa: B008
    batcher = Batcher(shelf or Shelf(threads=1), limits.waiting)
    bound = server.bind("127.0.0.1", 0)
    made = server.server(api.make_app(batcher, model, limits, token))
    thread = threading.Thread(target=made.run, kwargs={"sockets": [bound]})
    thread.start()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", headers=headers, timeout=60) as client:
            client.batcher = batcher
            yield client
    finally:
        made.should_exit = True
        thread.join()
        batcher.close()


@pytest.fixture(scope="module")
def open_server(model):
    with served(model) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(model):
    with served(model, Limits(items=5, characters=200, body=2_000, responses=3), TOKEN) as client:
        yield client


def offline(model, responses, tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": r.prompt, "response": r.text}) + "\n" for r in responses))
    score_file(model, str(source), out)
    return np.array([json.loads(line)["reward_response"] for line in out.read_text().splitlines()])


def items(responses):
    return {"items": [{"prompt": r.prompt, "response": r.text} for r in responses]}


def test_a_thousand_at_once_each_get_their_own_answer(model, open_server, tmp_path):
    random = np.random.default_rng(0)
    texts = [Response("", f"q {i % 9}", " ".join(random.choice(WORDS, random.integers(1, 30)))) for i in range(1_000)]
    expected = offline(model, texts, tmp_path)
    before = open_server.batcher.passes

    host, port = open_server.base_url.host, open_server.base_url.port

    async def one(text):
        """By hand: a client's pool of a thousand connections takes longer than the answers."""
        reader, writer = await asyncio.open_connection(host, port)
        body = json.dumps(items([text])).encode()
        head = f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        told, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert b" 200 " in told.splitlines()[0]
        return json.loads(answer)["rewards"][0]

    async def all_of_them():
        return np.array(await asyncio.gather(*(one(text) for text in texts)))

    found = asyncio.run(all_of_them())
    assert np.abs(found - expected).max() < 1e-5
    assert open_server.batcher.passes - before < 500  # they were read together


def test_compare_ranks_and_says_what_was_cut(open_server):
    answer = open_server.post("/compare", json={"prompt": "what", "responses": ["clear", "vague " * 500]})
    found = answer.json()
    assert found["cut"] == [1]
    assert sorted(found["rank"]) == [1, 2]
    assert found["preferred"][0][1] == pytest.approx(1 - found["preferred"][1][0])
    assert sum(found["best"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"{}", 400),
        (b'{"items": []}', 400),
        (b'{"items": [3]}', 400),
        (b'{"items": [{"prompt": 1, "response": "x"}]}', 400),
        (b'{"items": [{"prompt": "p"}]}', 400),
        (b'{"items": [{"prompt": "p", "response": null}]}', 400),
        (b'{"items": {"prompt": "p"}}', 400),
    ],
)
def test_a_malformed_body_is_refused_with_a_sentence(open_server, body, status):
    answer = open_server.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")


def test_odd_texts_are_answered(open_server):
    odd = ["", " ", "\x00", "\ud800", "你好", "[SEP] [CLS]", "x" * 5_000]
    body = json.dumps({"items": [{"prompt": "p", "response": text} for text in odd]})
    answer = open_server.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert np.isfinite(answer.json()["rewards"]).all()


def test_what_is_too_long_is_refused_before_it_is_read(guarded):
    assert guarded.post("/score", json=items([Response("", "p", "x")] * 5)).status_code == 200
    assert guarded.post("/score", json=items([Response("", "p", "x")] * 6)).status_code == 413
    long = guarded.post("/score", json=items([Response("", "p", "x" * 201)]))
    assert long.status_code == 413
    assert "at most 200" in long.json()["error"]
    assert guarded.post("/score", content=b"x" * 3_000, headers={"Content-Type": "application/json"}).status_code == 413
    assert guarded.post("/compare", json={"responses": ["a"] * 4}).status_code == 400

    def endless():  # no Content-Length: counted as it comes
        for _ in range(100):
            yield b"x" * 1_000

    answer = guarded.post("/score", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe9"])
def test_without_the_token_nothing_is_answered(guarded, header):
    given = {"Authorization": header.encode("latin-1")}
    for path, body in (("/score", items([Response("", "p", "x")])), ("/compare", {"responses": ["a", "b"]})):
        answer = httpx.post(f"{guarded.base_url}{path}", json=body, headers=given)
        assert answer.status_code == 401
        assert "rewards" not in answer.text
    assert httpx.get(f"{guarded.base_url}/health", headers=given).json().keys() == {"status", "version"}


def test_the_token_opens(guarded):
    assert guarded.post("/compare", json={"responses": ["a", "b"]}).status_code == 200
    assert guarded.get("/health").json()["waiting"] == 0


def test_a_page_in_a_browser_cannot_ask_in_its_owners_name(open_server):
    """Neither as a form, which needs no leave of the browser, nor under another name for this machine."""
    text = open_server.post("/score", content=b'{"items": []}', headers={"Content-Type": "text/plain"})
    assert text.status_code == 415
    rebound = open_server.post("/compare", json={"responses": ["a", "b"]}, headers={"Host": "evil.example"})
    assert rebound.status_code == 403
    assert "access-control-allow-origin" not in open_server.get("/health").headers


def test_when_too_many_wait_one_is_told_when_to_come_back(model):
    go = threading.Event()

    class Waits(Shelf):
        def model(self, name):
            go.wait(20)
            return super().model(name)

    with served(model, Limits(waiting=10), shelf=Waits(threads=1)) as client:
        found = {}

        def one(place):
            found[place] = httpx.post(f"{client.base_url}/score", json=items([Response("", "p", "x")] * 8), timeout=60)

        threads = [threading.Thread(target=one, args=(place,)) for place in range(6)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 20
        while len(found) < 4 and time.monotonic() < until:
            time.sleep(0.05)
        go.set()
        for thread in threads:
            thread.join()
        statuses = sorted(answer.status_code for answer in found.values())
        assert set(statuses) == {200, 503}
        for answer in found.values():
            if answer.status_code == 503:
                assert int(answer.headers["Retry-After"]) >= 1


def test_a_body_that_never_ends_is_given_up(model):
    with served(model, Limits(body_s=0.3)) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
            slow.sendall(
                b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            slow.settimeout(10)
            assert b" 408 " in slow.recv(1_000).splitlines()[0]
        assert client.get("/health").status_code == 200


def test_bodies_that_arrive_together_take_no_more_memory_than_is_allowed(model):
    """All came in before the first byte of a body; 300 of 8 MiB took 2.4 GiB where 64 MiB were the limit."""
    body = b'{"items": [{"response": "' + b"x " * 1_900 + b'"}]}'
    with served(model, Limits(body=4_000, in_flight=6_000)) as client, contextlib.ExitStack() as stack:
        at = (client.base_url.host, client.base_url.port)
        sockets = [stack.enter_context(socket.create_connection(at, timeout=20)) for _ in range(5)]
        head = f"Host: {at[0]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        for one in sockets:
            one.sendall(b"POST /score HTTP/1.1\r\n" + head.encode())
        time.sleep(0.3)
        for one in sockets:
            one.sendall(body[:-1])
            time.sleep(0.05)
        answers = [one.recv(12) for one in sockets[1:]]
        assert answers == [b"HTTP/1.1 503"] * 4
        sockets[0].sendall(body[-1:])
        assert sockets[0].recv(12) == b"HTTP/1.1 200"
        assert client.post("/score", json=items([Response("", "p", "x")])).status_code == 200  # nothing is held


def test_a_connection_without_a_request_is_let_go_and_one_that_asks_now_and_then_is_not(model, monkeypatch):
    monkeypatch.setattr(server, "HEAD_S", 1.5)
    with served(model) as client, contextlib.ExitStack() as stack:
        at = (client.base_url.host, client.base_url.port)
        asking, silent, slow = (stack.enter_context(socket.create_connection(at, timeout=20)) for _ in range(3))
        began, head = time.monotonic(), f"GET /health HTTP/1.1\r\nHost: {at[0]}\r\n".encode()
        slow.sendall(head)  # and never the empty line
        for _ in range(8):
            asking.sendall(head + b"\r\n")
            assert asking.recv(12) == b"HTTP/1.1 200"
            while asking.recv(4_096)[-1:] != b"}":
                pass
            time.sleep(0.6)
        assert silent.recv(1) == slow.recv(1) == b""
        assert time.monotonic() - began < 15


def test_the_manual_needs_nothing_from_elsewhere(open_server, guarded):
    for client, with_token in ((open_server, False), (guarded, True)):
        page = client.get("/docs").text
        assert not re.findall(r"""(?:src|href)=["'](?!/openapi)""", page)
        assert "<script" not in page
        assert ("Authorization" in page) == with_token
        assert "default-src 'none'" in client.get("/docs").headers["content-security-policy"]
        facts = client.get("/openapi.json").json()
        assert set(facts["paths"]) == {"/score", "/compare", "/health"}
        for path in ("/score", "/compare"):  # its examples are true
            example = facts["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
            answer = client.post(path, json=example)
            assert answer.status_code == 200
            told = facts["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
            assert set(answer.json()) == set(told["properties"])
    assert client.get("/nothing").json()["error"]
    assert client.get("/score").status_code == 405


# ---- the command


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org"])
def test_it_does_not_listen_for_others_without_a_token(host):
    with pytest.raises(SerError, match="no token"):
        server.check_host(host, "")
    server.check_host(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_for_this_machine_it_needs_none(host):
    server.check_host(host, "")


def test_a_token_is_long_enough_and_read_from_its_file(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert server.token_of(None, tmp_path / "token") == TOKEN
    assert server.token_of(None, None) == ""
    (tmp_path / "empty").write_text("\n")
    for token, file in (("short", None), ("", None), (None, tmp_path / "empty"), (None, tmp_path / "missing")):
        with pytest.raises(SerError):
            server.token_of(token, file)


def test_the_command_refuses_in_words(model, capsys):
    assert main(["serve", model, "--host", "0.0.0.0"]) == 1
    assert main(["serve", "/no/such/model", "--port", "0"]) == 1
    assert main(["serve", model, "--port", "99999"]) == 1  # the system would listen on it less 65,536
    with server.bind("127.0.0.1", 0) as taken:
        assert main(["serve", model, "--port", str(taken.getsockname()[1])]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 4
    assert "The port is 99999" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_in_good_order(model, number, ser_home):
    command = [sys.executable, "-m", "ser_backend", "serve", model, "--port", "0", "--threads", "1"]
    environment = {**os.environ, "SER_HOME": str(ser_home), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as child:
        line = next(line for line in child.stdout if "http://" in line)
        address = re.search(r"http://\S+", line).group()
        assert httpx.post(f"{address}/score", json=items([Response("", "p", "x")]), timeout=60).status_code == 200
        child.send_signal(number)
        _, said = child.communicate(timeout=30)
        assert child.returncode == 0, said
        assert "Stopped after 1 texts" in said


def test_the_reward_function_of_the_docs_runs(model, open_server, monkeypatch):
    """As trl's GRPO and RLOO trainers call it: reward_func(prompts, completions, completion_ids, **columns)."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    space = {}
    exec(code.replace("http://127.0.0.1:8000", str(open_server.base_url)), space)
    found = space["reward"](prompts=["p", "q"], completions=["clear", "vague"], completion_ids=[[1], [2]], other=[0, 0])
    direct = open_server.post("/score", json=items([Response("", "p", "clear"), Response("", "q", "vague")])).json()
    assert found == direct["rewards"]
