"""Somebody who has never been here: five clicks, some answers between them, and a zip on their disk."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from ser_backend.store import Store

pytestmark = pytest.mark.e2e

PATIENCE_MS = 120_000
ANSWERS = 10
READ_MS = 600  # longer than the desk's guard against held keys


def click(page, label: str) -> None:
    page.get_by_role("button", name=label, exact=True).first.click()


def at(page, question: str) -> None:
    page.get_by_role("heading", name=question).wait_for()


def steps(page, now: int) -> None:
    """Wait for the strip to say that this step, from 1, is the next one to take."""
    page.locator(f".ser-steps li:nth-child({now})[aria-current=step]").wait_for(timeout=PATIENCE_MS)
    assert page.locator(".ser-steps li.done").count() == now - 1


def test_five_clicks_lead_from_nothing_to_a_zip(server, open_page, tmp_path: Path) -> None:
    page = open_page()
    at(page, "What needs you?")
    steps(page, 1)
    assert page.locator(".ser-steps li").all_inner_texts()[0].startswith("1 · now")

    click(page, "Try the sample")
    at(page, "What should the model learn from?")
    page.get_by_text("open to self-labels").wait_for()
    steps(page, 2)

    click(page, "Start training")
    at(page, "Is it getting better?")
    page.locator(".stMarkdownBadge", has_text="finished").wait_for(timeout=PATIENCE_MS)
    steps(page, 3)

    click(page, "Review pairs")
    at(page, "Which response is better?")
    store = Store.open()
    run = store.runs()[0]
    for number in range(ANSWERS):
        token = page.locator(".desk:not([data-token=''])").get_attribute("data-token")
        page.wait_for_timeout(READ_MS)  # a person reads
        page.keyboard.press("1" if number % 2 else "2")
        page.locator(f".desk:not([data-token='{token}'])").wait_for()
    steps(page, 4)

    page.get_by_text(re.compile("The next round will use")).wait_for()
    click(page, "Retrain now")
    at(page, "Is it getting better?")
    steps(page, 5)

    with page.expect_download() as coming:
        click(page, "Download everything")
    coming.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        lines = archive.read(f"ser-studio-{run.id}/preferences.jsonl").decode().splitlines()
        assert f"ser-studio-{run.id}/reward_model/head.safetensors" in archive.namelist()
    assert sum(json.loads(line)["origin"] == "review" for line in lines) == len(
        {row.pair for row in store.reviews(run.id) if row.queue not in ("gold", "repeat", "seed")}
    )

    page.mouse.move(640, 880)  # what the button says while one points at it may lie over the menu
    page.get_by_role("link", name="Home", exact=True).click()
    at(page, "What needs you?")
    page.locator(".ser-run").wait_for()
    assert page.locator(".ser-steps").count() == 0
    assert page.locator(".ser-run img").get_attribute("alt").startswith("Held-out accuracy by round: ")


def test_the_menu_fits_and_every_page_is_in_it(server, open_page) -> None:
    page = open_page(width=1280)
    for name in ("Home", "Data", "Train", "Watch", "Review", "Export"):
        box = page.get_by_role("link", name=name, exact=True).bounding_box()
        assert box
        assert box["x"] + box["width"] < 1280
    page.get_by_role("button", name="More").click()
    for name in ("Compare", "Playground", "Agreement", "Users"):
        page.get_by_role("menuitem").filter(has_text=name).wait_for()
