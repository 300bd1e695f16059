"""The report from the real page, opened as a file in a browser that has no network."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import desk_run
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

pytestmark = pytest.mark.e2e

HOSTILE = "<script>window.hacked = 1</script><img src=http://127.0.0.1:9/x onerror='window.hacked = 1'>"


def opened(browser, path: Path, dark: bool):
    """The file's page, what it asked for, and what it complained of."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="dark" if dark else "light")
    asked: list[str] = []
    said: list[str] = []

    def refuse(route) -> None:
        asked.append(route.request.url)
        if route.request.url == path.as_uri():
            route.continue_()
        else:
            route.abort()

    context.route("**/*", refuse)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(path.as_uri())
    page.wait_for_timeout(500)
    return page, asked, said


def test_the_report_opens_from_a_file_without_a_network(server, open_page, browser, tmp_path: Path) -> None:
    store = Store.open()
    hostile = [dict(row, prompt=f"{HOSTILE} {row['prompt']}") for row in desk_run.texts(120, (5, 20))]
    run = desk_run.finished_run(store, hostile, desk_run.texts(40, (5, 20), random_seed=1), name=HOSTILE)
    folder = RunFolder.of(run.id)  # what the page wants of the model
    folder.write_arrays("basis", {"mean": np.zeros(4, np.float32), "directions": np.eye(4, dtype=np.float32)})
    folder.write_json("encoder", {"base_model": "bundled", "fingerprint": "f", "max_length": 512})
    page = open_page(f"export?run={run.id}")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Report (HTML)").click()
    plain = tmp_path / "plain.html"
    coming.value.save_as(plain)
    assert coming.value.suggested_filename == f"report-{run.id}.html"
    page.get_by_text("Include texts").click()
    page.wait_for_timeout(1500)
    with page.expect_download() as coming:
        page.get_by_role("button", name="Report (HTML)").click()
    with_texts = tmp_path / "with texts.html"
    coming.value.save_as(with_texts)

    grounds = set()
    for path in (plain, with_texts):
        for dark in (False, True):
            report, asked, said = opened(browser, path, dark)
            assert asked == [path.as_uri()]
            assert said == []
            assert report.evaluate("window.hacked") is None
            assert report.locator("h1").inner_text() == HOSTILE
            assert report.locator("script, img").count() == 0
            figures = report.locator("figure svg")
            assert figures.count() >= 3
            for number in range(figures.count()):
                box = figures.nth(number).bounding_box()
                assert box["width"] > 300
                assert box["height"] > 100
            assert report.locator("td", has_text=str(store.rounds(run.id)[-1].heldout)).first.is_visible()
            assert report.get_by_text("Some self-labels").count() == (path == with_texts)
            wide = report.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0
            ink, ground = report.evaluate(
                "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
            )
            light = [sum(int(n) for n in re.findall(r"\d+", colour)[:3]) for colour in (ink, ground)]
            assert (light[0] > light[1] + 300) if dark else (light[1] > light[0] + 300)
            grounds.add(ground)
            report.context.close()
    assert len(grounds) == 2


def test_what_the_file_tries_to_fetch_would_be_refused(browser, tmp_path: Path) -> None:
    """The policy in its head holds: a picture and a script that somebody puts into the file do nothing."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "app"))
    import sheet

    bad = '<script>window.hacked = 1</script><img src="http://127.0.0.1:9/x.png"><p id="there">there</p>'
    path = tmp_path / "bad.html"
    path.write_text(sheet.page("t", bad))
    page, asked, said = opened(browser, path, False)
    assert page.locator("#there").is_visible()
    assert page.evaluate("window.hacked") is None
    assert asked == [path.as_uri()]
    assert len(said) == 2  # the browser says what it refused: the script and the picture
    page.context.close()
