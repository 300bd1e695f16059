"""Calls when a run ends, against a server of our own: what is sent, what is refused, and that no run suffers from it."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ser_backend import notify
from ser_backend.calibration import lower_bound, spent
from ser_backend.cli import main
from ser_backend.errors import Forbidden, SerError
from ser_backend.records import Interval, Round, Status, User
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from ser_backend.supervisor import MOST_ATTEMPTS, Supervisor
from ser_backend.worker import Worker


class Listener:
    def __init__(self) -> None:
        self.bodies: list[dict] = []
        self.paths: list[str] = []
        self.answers: list[int] = []  # for the next calls; then 200
        self.to = ""
        self.wait = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.paths.append(self.path)
                time.sleep(outer.wait)
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.bodies.append(json.loads(body))
                self.send_response(status)
                if outer.to:
                    self.send_header("Location", outer.to)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/very-secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "PAUSE_S", 0.01)
    monkeypatch.setattr(notify, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(notify, "DEADLINE_S", 2.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def a_round(index: int, **details: object) -> Round:
    facts = {"model_round": index, "model_is_control": False, **details}
    known = Interval(0.71, 0.64, 0.77, 200)
    return Round(index, 9, 9, 500, 200, 0, 0, known, known, (0.0, 0.0, 0.0), None, "new", "", 1.0, facts)


@pytest.fixture
def run(store: Store, sets) -> str:
    config = {"method": "calibrated", "target_precision": 0.8, "risk": 0.1}
    store.add_run("r", "night <!channel> & day", config, sets["seed"].id, sets["pool"].id, None, 1)
    store.put_round("r", a_round(0))
    store.put_round("r", a_round(1, n_self_labels=200))
    store.note_outcome("r", "All 1 rounds are done.", 1)
    return "r"


# ---- whom to tell


@pytest.mark.parametrize("url", ["https://hooks.example.org/a/b?c=d", "http://10.0.0.1:8080/x", " https://a.b/c "])
def test_web_addresses_are_kept(url: str) -> None:
    assert notify.checked(url) == url.strip()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.org/a",
        "ftp://example.org/a",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https://example.org:port/",
        "https://[::1",
        "https://ann:pw@example.org/a",
        "https://example.org/a b",
        "https://example.org/a\r\nX-Header: 1",
        "https://exämple.org/",
        "https://example.org/" + "a" * notify.LONGEST,
    ],
)
def test_other_things_are_not(url: str) -> None:
    with pytest.raises(SerError, match="Give one like"):
        notify.checked(url)


def test_only_an_owner_sets_the_address(store: Store) -> None:
    owner = store.acting(store.add_user(User("Ada", "owner", "", True, ""), "a long password"))
    engineer = store.acting(store.add_user(User("Eve", "engineer", "", True, ""), "a long password"))
    assert notify.change(owner, "https://example.org/hook") == "https://example.org/hook"
    with pytest.raises(Forbidden):
        notify.change(engineer, "https://evil.example.org/")
    assert store.setting(notify.SETTING) == "https://example.org/hook"
    notify.change(owner, "  ")
    assert store.setting(notify.SETTING) == ""


# ---- what is said


def test_what_is_said_of_a_run_that_ended(store: Store, run: str) -> None:
    body = notify.ended(store, run, Status.SUCCEEDED)
    assert set(body) == {"text", "kind", "run", "name", "sentence", "accuracy"}
    assert (body["kind"], body["run"], body["name"]) == ("ended", "r", "night <!channel> & day")
    assert body["accuracy"] == {"value": 0.71, "low": 0.64, "high": 0.77, "n": 200}
    assert "has finished. Accuracy on held-out pairs: 71.0 % (64.0 to 77.0, n = 200)." in body["sentence"]
    assert body["text"].startswith("The run night &lt;!channel&gt; &amp; day has finished.")  # rings nobody's bell
    failed = notify.ended(store, run, Status.FAILED, "The disk is full.")
    assert (failed["kind"], failed["sentence"][-17:]) == ("failed", "The disk is full.")


def test_a_run_without_rounds_has_no_accuracy(store: Store, sets) -> None:
    store.add_run("new", "new", {}, sets["seed"].id, sets["pool"].id, None, 1)
    body = notify.ended(store, "new", Status.FAILED, "No.")
    assert body["accuracy"] is None
    assert body["sentence"] == "The run new has failed. No."


def test_checks_due_are_those_that_could_bear_the_target_out() -> None:
    config = {"method": "calibrated", "target_precision": 0.8, "risk": 0.1}
    rounds = [a_round(0), a_round(1, n_self_labels=200)]
    n = notify.due(rounds, config, {})
    share = spent(0.1, 1)
    assert lower_bound(n, n, share) >= 0.8 > lower_bound(n - 1, n - 1, share)
    assert notify.due(rounds, config, {1: Interval(1, 0, 1, n - 3)}) == 3
    assert notify.due(rounds, config, {1: Interval(1, 0, 1, n + 5)}) == 0
    assert notify.due([a_round(0), a_round(1, n_self_labels=4)], config, {}) == 4  # there are no more
    assert notify.due([a_round(0), a_round(1, n_self_labels=0)], config, {}) == 0
    assert notify.due([], config, {}) == 0
    assert notify.due(rounds, {"method": "paper"}, {1: Interval(1, 0, 1, 5)}) == notify.FEWEST_AUDITS - 5


# ---- telling


def test_an_end_is_told_and_that_checks_are_due(store: Store, run: str, listener: Listener, capsys) -> None:
    notify.after_job(store, run, Status.SUCCEEDED)
    assert listener.bodies == []  # no address is set
    notify.change(store, listener.url)
    notify.after_job(store, run, Status.SUCCEEDED)
    assert [body["kind"] for body in listener.bodies] == ["ended", "audits_due"]
    assert listener.bodies[0] == notify.ended(store, run, Status.SUCCEEDED)
    assert listener.paths == ["/hook/very-secret"] * 2
    assert capsys.readouterr().out == ""


def test_a_second_try_where_it_may_help(listener: Listener) -> None:
    listener.answers = [503]
    assert notify.deliver(listener.url, notify.a_test()) == ""
    assert len(listener.paths) == 2
    listener.answers = [500, 500, 500]
    assert notify.deliver(listener.url, notify.a_test()) == "127.0.0.1 answered 500."
    assert len(listener.paths) == 4
    listener.answers = [404]
    assert "answered 404" in notify.deliver(listener.url, notify.a_test())
    assert len(listener.paths) == 5


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["file:///etc/passwd", "/elsewhere", "http://127.0.0.1:9/"])
def test_nothing_is_followed(listener: Listener, status: int, to: str) -> None:
    listener.answers, listener.to = [status], to
    assert "sends elsewhere" in notify.deliver(listener.url, notify.a_test())
    assert len(listener.paths) == 1
    assert listener.bodies == []


def test_who_does_not_answer_is_not_waited_for(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    listener.wait = 30
    began = time.monotonic()
    assert "could not be reached" in notify.deliver(listener.url, notify.a_test())
    monkeypatch.setattr(notify, "TIMEOUT_S", 60)
    assert "did not answer within 2 s" in notify.deliver(listener.url, notify.a_test())
    assert time.monotonic() - began < 6
    assert "could not be reached" in notify.deliver("http://127.0.0.1:9/", notify.a_test())


def test_what_goes_wrong_is_printed_without_the_secret_and_ends_nothing(
    store: Store, run: str, listener: Listener, capsys
) -> None:
    notify.change(store, listener.url)
    listener.answers = [404, 404]
    notify.after_job(store, run, Status.SUCCEEDED)
    said = capsys.readouterr().out
    assert "Nobody was told that the run ended (ended): 127.0.0.1 answered 404." in said
    assert "very-secret" not in said
    notify.after_job(store, "no such run", Status.SUCCEEDED)
    assert "Nobody was told" in capsys.readouterr().out


def test_a_worker_tells_how_its_job_ended(store: Store, sets, config, listener: Listener) -> None:
    settings = config.as_dict() | {"rounds": 1}
    store.add_run("w", "w", settings, sets["seed"].id, sets["pool"].id, sets["heldout"].id, 1)
    notify.change(store, listener.url)
    job = store.claim_job("cpu")
    assert job
    RunFolder.of("w").path.mkdir(parents=True)  # as the supervisor does
    assert Worker(store, job).main() == Status.SUCCEEDED
    kinds = [body["kind"] for body in listener.bodies]
    assert kinds[0] == "ended"
    assert listener.bodies[0]["accuracy"]["n"] > 0
    sent = json.dumps(listener.bodies)
    assert "topic" not in sent  # every prompt of these sets holds the word
    assert RunFolder.of("w").json("resources")["peak"]["memory"] > 0


def test_a_worker_that_cannot_tell_ends_as_well(store: Store, sets, config, capsys) -> None:
    store.add_run("w", "w", config.as_dict() | {"components": -1}, sets["seed"].id, sets["pool"].id, None, 1)
    notify.change(store, "http://127.0.0.1:9/very-secret")
    job = store.claim_job("cpu")
    assert job
    assert Worker(store, job).main() == Status.FAILED
    assert store.run("w").status == Status.FAILED
    assert "Nobody was told that the run ended (failed)" in capsys.readouterr().out


def test_the_supervisor_tells_of_a_worker_that_was_killed_too_often(store: Store, run: str, listener: Listener) -> None:
    notify.change(store, listener.url)
    boss = Supervisor(store)
    for _ in range(MOST_ATTEMPTS):
        job = store.claim_job("cpu")
        assert job
        boss._ended(store.job(job.id))  # its process is gone without a word
    assert store.run(run).status == Status.FAILED
    deadline = time.monotonic() + 5
    while not listener.bodies and time.monotonic() < deadline:
        time.sleep(0.02)
    (body,) = listener.bodies
    assert body["kind"] == "failed"
    assert "ended unexpectedly" in body["sentence"]


def test_the_command_line_sets_tries_and_ends_it(store: Store, listener: Listener, capsys) -> None:
    assert main(["notify", "test"]) == 1
    assert "No address is set" in capsys.readouterr().err
    assert main(["notify", listener.url]) == 0
    assert store.setting(notify.SETTING) == listener.url
    assert "very-secret" not in capsys.readouterr().out
    assert main(["notify", "test"]) == 0
    assert [body["kind"] for body in listener.bodies] == ["test"]
    listener.answers = [404]
    assert main(["notify", "test"]) == 1
    assert "The test did not arrive" in capsys.readouterr().err
    assert main(["notify", "off"]) == 0
    assert store.setting(notify.SETTING) == ""
    assert main(["notify", "ftp://example.org"]) == 1
