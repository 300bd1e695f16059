"""What a user does, in the real page: upload, run, watch, review by keyboard, retrain, export."""

import json
import re
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ser_backend import home
from ser_backend.records import Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store, in_force

pytestmark = pytest.mark.e2e

SAMPLES = home.ROOT / "data" / "samples"
PATIENCE_S = 120


def wait_for(what: Callable[[], object], words: str) -> object:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{words} did not happen within {PATIENCE_S} s")


def go(page, name: str, question: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()
    page.get_by_role("heading", name=question).wait_for()


def upload(page, role: str, path: Path) -> None:
    page.get_by_role("radio", name=role, exact=True).click()
    page.wait_for_timeout(500)
    page.locator('input[type="file"]').set_input_files(path)
    page.get_by_role("button", name=re.compile(f"Import as {role}", re.I)).click()
    page.get_by_text(re.compile("^Imported: ")).wait_for()


def start(page, rounds: int = 3) -> str:
    """From any page: start a run and return its id, with Watch open."""
    before = {run.id for run in Store.open().runs()}
    go(page, "Train", "What should the model learn from?")
    page.get_by_text("open to self-labels").wait_for()
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name="Is it getting better?").wait_for()
    (run_id,) = {run.id for run in Store.open().runs()} - before
    return run_id


def on_desk(page) -> str:
    """Name of the showing on the review desk, once there is one."""
    return page.locator(".desk:not([data-token=''])").get_attribute("data-token")


def try_the_sample(page) -> None:
    page.get_by_role("button", name="Try the sample").click()
    page.get_by_role("heading", name="What should the model learn from?").wait_for()


def test_from_upload_to_export(server, open_page, tmp_path: Path) -> None:
    page = open_page("data")
    for role in ("Seed", "Pool", "Held-out"):
        upload(page, role, SAMPLES / f"sample-{role.lower().replace('-', '')}.jsonl")
    run_id = start(page)
    store = Store.open()

    # the accuracy of each round appears by itself: no reload, no click
    page.evaluate("window.same = true")
    page.get_by_text(re.compile(r"Accuracy now: \d+\.\d % \(\d+\.\d to \d+\.\d, n = 200\)")).wait_for(
        timeout=PATIENCE_S * 1000
    )
    page.get_by_text("What self-labels added: model minus control").wait_for()
    page.locator(".stMarkdownBadge", has_text="finished").wait_for()
    assert page.evaluate("window.same") is True
    rounds = store.rounds(run_id)
    assert len(rounds) >= 2
    assert page.get_by_text(str(rounds[0].heldout)).count() >= 1

    # ten pairs by keyboard alone
    page.get_by_role("button", name="Review pairs").click()
    page.get_by_role("heading", name="Which response is better?").wait_for()
    for number, key in enumerate(["1", "2", "3", "0", "s", "1", "2", "1", "2", "1"]):
        on_desk(page)
        page.wait_for_timeout(700)  # a person reads
        page.keyboard.press(key)
        if key == "s":
            page.keyboard.press("Enter")  # no reason
        wait_for(lambda n=number: len(store.reviews(run_id)) == n + 1, f"vote {number + 1}")
    verdicts = [review.verdict for review in store.reviews(run_id)]
    assert verdicts == ["left", "right", "tie", "both_bad", "skip", "left", "right", "left", "right", "left"]
    page.wait_for_timeout(700)
    page.keyboard.press("u")
    wait_for(lambda: len(in_force(store.reviews(run_id))) == 9, "undo")

    # what comes next says what it will use
    page.get_by_text("The next round will use 6 new preferences").wait_for()
    page.get_by_role("button", name="Retrain now").click()
    page.get_by_role("heading", name="Is it getting better?").wait_for()
    wait_for(lambda: len(store.rounds(run_id)) == len(rounds) + 1, "one more round")
    wait_for(lambda: store.run(run_id).status == Status.SUCCEEDED, "the end of the run")
    assert store.rounds(run_id)[-1].details["n_reviews"] == 6

    go(page, "Export", "What do you take home?")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Download everything").click()
    coming.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        names = {name.split("/", 1)[1] for name in archive.namelist()}
        lines = archive.read(f"ser-studio-{run_id}/preferences.jsonl").decode().splitlines()
    assert {"preferences.jsonl", "preferences.parquet", "report.json", "reward_model/head.safetensors"} <= names
    assert sum(json.loads(line)["origin"] == "review" for line in lines) == 6


def test_closing_the_tab_and_restarting_the_server_do_nothing_to_a_run(server, open_page) -> None:
    page = open_page()
    try_the_sample(page)
    run_id = start(page)
    store = Store.open()
    wait_for(lambda: store.jobs()[0].pid, "the start of the worker")
    page.context.close()
    server.stop(signal.SIGKILL)
    worker = store.jobs()[0].pid
    server.start()
    page = open_page(f"watch?run={run_id}")
    wait_for(lambda: store.run(run_id).status == Status.SUCCEEDED, "the end of the run")
    assert [job.pid for job in store.jobs()] == [worker]
    assert "job_interrupted" not in {event.kind for event in store.events(run_id)}
    page.locator(".stMarkdownBadge", has_text="finished").wait_for()
    page.get_by_text(str(RunFolder.of(run_id).rounds().__next__().heldout)).first.wait_for()
    page.locator("#picture svg").first.wait_for()


def test_two_tabs_a_reload_and_a_held_key(server, open_page) -> None:
    first = open_page()
    try_the_sample(first)
    run_id = start(first)
    store = Store.open()
    wait_for(lambda: store.run(run_id).status == Status.SUCCEEDED, "the end of the run")
    go(first, "Review", "Which response is better?")
    second = open_page(f"review?run={run_id}")
    assert on_desk(first) == on_desk(second)
    first.wait_for_timeout(700)
    first.keyboard.press("1")
    wait_for(lambda: len(store.reviews(run_id)) == 1, "the first tab's vote")
    second.keyboard.press("2")
    refused = "You answered this pair in another tab (left is better), so this vote was not counted."
    second.locator(".last", has_text=refused).wait_for()
    assert len(store.reviews(run_id)) == 1
    second.reload()
    on_desk(second)
    second.wait_for_timeout(700)
    second.keyboard.press("2")
    wait_for(lambda: len(store.reviews(run_id)) == 2, "the vote after the reload")
    assert len({review.pair for review in store.reviews(run_id)}) == 2

    second.wait_for_timeout(1500)
    for _ in range(30):  # what a keyboard sends while a key is held: repeats, and no release
        second.keyboard.down("1")
        second.wait_for_timeout(40)
    second.keyboard.up("1")
    second.wait_for_timeout(1500)
    assert len(store.reviews(run_id)) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", b"", "empty"),
        ("cut.jsonl.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abc", "gzip"),
        ("names.csv", b"x,y\n1,2\n", "layout"),
        ("utf16.csv", "prompt,chosen,rejected\na,b,c\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_bad_file_gets_a_sentence_and_no_traceback(
    server, open_page, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    page = open_page("data")
    path = tmp_path / name
    path.write_bytes(content)
    page.locator('input[type="file"]').set_input_files(path)
    page.get_by_test_id("stAlert").filter(has_text=re.compile(message, re.I)).first.wait_for()
    assert page.get_by_text("Traceback").count() == 0
    assert Store.open().datasets() == []


def test_hostile_text_is_shown_as_it_is(server, open_page, tmp_path: Path) -> None:
    hostile = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> $x^2$ :red[no] **not bold** ![](http://x/y.png)"
    path = tmp_path / "seed.jsonl"
    rows = [
        {"prompt": f"{hostile} {i}", "chosen": f"{hostile} yes {i}", "rejected": f"{hostile} no {i}"} for i in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = open_page("data")
    page.locator('input[type="file"]').set_input_files(path)
    page.get_by_role("button", name="Import as seed").wait_for()
    assert rows[0]["prompt"] in page.locator(".ser-text").all_inner_texts()
    assert page.evaluate("window.hacked") is None
    assert page.locator(".ser-text img, .ser-text script").count() == 0
