"""Two runs compared in the real page; table, figure and settings taken home, and the settings given back."""

import csv
import io
import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ser_backend import home, ingest, jobs
from ser_backend.cli import main
from ser_backend.config import from_preset
from ser_backend.records import Status
from ser_backend.store import Store

pytestmark = pytest.mark.e2e

SAMPLES = home.ROOT / "data" / "samples"


@pytest.fixture
def two_runs(ser_home) -> list[str]:
    """Ids of two finished runs, the second without the gate."""
    store = Store.open()
    sets = {
        role: ingest.import_source(store, SAMPLES / f"sample-{role}.jsonl", role).dataset.id
        for role in ("seed", "pool", "heldout")
    }
    where = [part for role, id in sets.items() for part in (f"--{role}", id)]
    assert main(["run", *where, "--engine", "laptop", "--name", "with"]) == 0
    assert main(["run", *where, "--engine", "laptop", "--set", "gate=off", "--name", "without, =gate"]) == 0
    return [run.id for run in reversed(store.runs())]


def download_button(page, label: str):
    """The first of that label; a table of Streamlit's has a button of its own."""
    return page.get_by_test_id("stDownloadButton").filter(has_text=label).get_by_role("button").first


def download(page, press, to: Path) -> bytes:
    for _ in range(
        2
    ):  # a page opened with runs in its address is drawn twice, and files of the first time are gone then
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        page.wait_for_timeout(700)
    with page.expect_download() as coming:
        press()
    coming.value.save_as(to)
    return to.read_bytes()


def test_two_runs_are_compared_and_the_table_and_the_figure_are_taken_home(
    two_runs, server, open_page, tmp_path: Path
) -> None:
    asked = []
    page = open_page(
        f"compare?runs={','.join(two_runs)}", watch=lambda page: page.on("request", lambda r: asked.append(r.url))
    )
    page.get_by_text(re.compile(r"on 200 held-out pairs")).first.wait_for()
    page.get_by_text("Accuracy on held-out pairs, round by round").wait_for()

    content = download(page, download_button(page, "CSV").click, tmp_path / "table.csv")
    table = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    rounds = [Store.open().rounds(run) for run in two_runs]
    assert [row.get("id") for row in table] == two_runs, content
    assert [float(row["seed model"]) for row in table] == [found[0].heldout.value for found in rounds]
    assert float(table[1]["minus A low"]) <= float(table[1]["minus A"]) <= float(table[1]["minus A high"])
    latex = download(page, download_button(page, "LaTeX").click, tmp_path / "table.tex").decode()
    assert "\\begin{tabular}" in latex
    assert two_runs[1] in latex

    assert not any("PlotlyChart" in url for url in asked)  # so far its figures are pictures
    figures = page.locator("#picture")
    assert figures.count() == 4
    mark = figures.first.locator("circle[data-told]").first
    mark.hover()
    assert re.match(r"round 0, A\s+with\n\d+\.\d %", figures.first.locator("#told").inner_text())
    page.mouse.move(0, 0)
    figures.first.locator("#told").wait_for(state="detached")
    figures.last.press("Enter")
    page.locator(".js-plotly-plot .main-svg").nth(3).wait_for(state="attached")
    assert figures.count() == 0

    page.get_by_role("button", name="Download figure").click()
    dialog = page.get_by_role("dialog")
    dialog.locator(".js-plotly-plot .modebar-btn").first.wait_for(state="attached")
    dialog.get_by_text("Accuracy on held-out pairs, round by round").wait_for()
    svg = download(page, dialog.get_by_role("button", name="Download SVG").click, tmp_path / "figure.svg")
    drawn = ElementTree.fromstring(svg)
    assert drawn.tag.endswith("svg")
    assert drawn.get("width") == "900"
    words = " ".join(drawn.itertext())
    assert "A  with" in words.replace("\u00a0", " ")
    assert b"http" not in svg.replace(b"http://www.w3.org/", b"")
    dialog.get_by_role("radio", name="PNG").click()
    png = dialog.get_by_role("button", name="Download PNG")
    png.wait_for()
    page.wait_for_timeout(1500)  # the figure is drawn anew
    download(page, png.click, tmp_path / "figure.png")
    picture = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB"))
    assert picture.shape[1] == 1800
    assert (picture[0, 0] == 255).all()
    assert (picture < 128).any()  # ink
    assert all(url.startswith((server.url, "data:", "blob:")) for url in asked), asked


def test_settings_saved_on_train_come_back_to_the_bit(server, open_page, tmp_path: Path, ser_home) -> None:
    """Number fields show 0.3; the file holds what is really meant."""
    store = Store.open()
    sets = {
        role: ingest.import_source(store, SAMPLES / f"sample-{role}.jsonl", role).dataset.id
        for role in ("seed", "pool", "heldout")
    }
    settings = from_preset("careful", "laptop").changed({"tau_delta": 0.1 + 0.2, "rounds": 1, "random_seed": 4})
    run = jobs.submit(store, settings, sets["seed"], sets["pool"], sets["heldout"], "first", False)
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    assert main(["config", run.id, "--out", str(first)]) == 0
    page = open_page("train")
    page.get_by_role("radio", name="A file").click()
    page.locator('input[type="file"]').set_input_files(first)
    page.get_by_text("Nothing is changed: this would repeat first.toml.").wait_for()
    page.wait_for_timeout(1000)
    saved = download(page, download_button(page, "Save these settings").click, second)
    assert tomllib.loads(saved.decode())["settings"] == settings.as_dict()
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("heading", name="Is it getting better?").wait_for()
    again = store.runs()[0]
    assert again.id != run.id
    assert json.dumps(again.config) == json.dumps(run.config)
    assert (again.seed, again.pool, again.heldout) == (run.seed, run.pool, run.heldout)
    assert again.status != Status.FAILED
