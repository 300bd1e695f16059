"""The report tells the run's own figures, holds nothing that could fetch or run, and shows a user's text as text."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import charts
import html_report
import numpy as np
import pytest
import sheet
from charts.drawing import svg
from fabricate import APP, KEPT, N_POOL, a_picture, a_round, certified, end, write_jsonl, write_rounds

from ser_backend import ingest, jobs
from ser_backend.cli import parser
from ser_backend.config import RunConfig
from ser_backend.errors import Forbidden
from ser_backend.records import Interval, Status, User
from ser_backend.review import Desk, vote
from ser_backend.run_folder import RunFolder

HOSTILE = (
    "</style></title><script>window.hacked = 1</script><img src=x onerror='hacked()'>\" onload=\"x\u202e &amp; 'q'"
)
CURVE = {
    "in_words": "The next 100 human labels are expected to bring +2.0 points (0.5 to 4.6).",
    "path": [[10, 0.55, 0.5, 0.6], [120, 0.7, 0.65, 0.75], [300, 0.73, 0.66, 0.8]],
    "curve": {"labels": 120, "n": [10, 50, 87], "accuracy": [0.55, 0.61, 0.68], "se": [0.02, 0.02, 0.03]},
}


class Read(HTMLParser):
    """What a browser would make of it: elements with their attributes, and the text outside <style>."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] != "style":
            self.said.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.said))

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def calibrated(store, sets, name="my run", **settings):
    details = certified(learning_curve=CURVE)
    return end(
        store,
        sets,
        Status.SUCCEEDED,
        [a_round(0), a_round(1, details=details)],
        **{"method": "calibrated", "random_seed": 7, **settings},
    )


def check_a_pair(store, run, annotator):
    return vote(store, Desk(store, run.id).next(annotator, "audit"), "left", seen_ms=9_000)


def test_it_tells_the_figures_of_the_run(store, sets):
    run = calibrated(store, sets)
    read = Read(html_report.made(store, run.id))
    last = store.rounds(run.id)[-1]
    for said in (
        "No clear effect of the self-labels: +1.0 points",
        str(last.heldout),
        str(last.control),
        "+1.0 (-2.0 to +4.0)",
        f"{KEPT} of {N_POOL} open pairs are labelled; with 95 % confidence at least 80 % of these labels are right",
        "88.0 %",  # claimed
        "3.1 %",  # calibration error
        "A note on the data.",
        CURVE["in_words"],
        "0.05 at most",
    ):
        assert said in read.text, said
    assert [found for found, _ in read.elements].count("figure") == 7


def test_settings_are_told_where_they_differ_and_the_command_does_it_again(store, sets):
    run = calibrated(store, sets, target_precision=0.7)
    content = html_report.made(store, run.id)
    differing = content.split("Settings that differ")[1].split("</table>")[0]
    assert set(re.findall(r"<tr><td><bdi>(\w+)</bdi>", differing)) == {
        "method",
        "target_precision",
        "rounds",
        "random_seed",
    }
    command = next(words for words in re.findall(r"<pre>(.*?)</pre>", content, re.S) if words.startswith("python"))
    told = parser().parse_args(shlex.split(command)[3:])
    assert RunConfig().changed(dict(part.split("=", 1) for part in told.set)) == RunConfig(**run.config)
    assert [store.dataset(name).id for name in (told.seed, told.pool, told.heldout)] == [
        run.seed,
        run.pool,
        run.heldout,
    ]


def test_versions_are_those_of_the_run_not_those_of_now(store, finished):
    assert "not written down" in Read(html_report.made(store, finished.id)).text
    RunFolder.of(finished.id).write_json("report", {"versions": {"torch": "1.2.3-of-then"}})
    assert "torch 1.2.3-of-then" in Read(html_report.made(store, finished.id)).text


def test_nothing_in_it_can_fetch_or_run(store, finished):
    read = Read(html_report.made(store, finished.id, sample=3))
    assert "Some self-labels" in read.text
    assert not read.tags() & {"script", "iframe", "object", "embed", "img", "form", "base", "audio", "video", "a"}
    policy = next(found["content"] for tag, found in read.elements if found.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy  # so default-src forbids scripts
    for _, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "data"):
            assert attributes.get(name) in (None, "data:,")
    style = sheet.STYLE.read_text()
    assert "url(" not in style
    assert "@import" not in style
    assert {"prefers-color-scheme: dark", "@media print"} <= set(
        re.findall(r"prefers-color-scheme: dark|@media print", style)
    )


def test_a_users_text_stays_text(store, sets, tmp_path):
    pool = [{"prompt": f"{HOSTILE} {i}", "chosen": f"{HOSTILE} yes {i}", "rejected": f"no {i}"} for i in range(N_POOL)]
    hostile = ingest.import_source(store, write_jsonl(tmp_path / "p.jsonl", pool), "pool", name=HOSTILE).dataset
    run = jobs.submit(
        store, RunConfig(rounds=1), sets["seed"].id, hostile.id, sets["heldout"].id, HOSTILE, False, project=HOSTILE
    )
    write_rounds(store, run, [a_round(0), a_round(1, why=HOSTILE)])
    store.note_outcome(run.id, HOSTILE, 1)
    plain = Read(html_report.made(store, run.id))
    read = Read(html_report.made(store, run.id, sample=2))
    for found in (plain, read):
        assert not found.tags() & {"script", "img"}
        assert [tag for tag, _ in found.elements].count("style") == 1
        assert run.name[:60] in found.text  # as it is
    assert "yes 1" not in plain.text  # the texts of pairs only when asked for
    assert re.sub(r"\s+", " ", f"{HOSTILE} yes") in read.text


def test_half_a_character_and_control_characters_do_not_break_the_file():
    shown = sheet.text("a\ud800b\x00c\x1b[31m")
    assert shown.encode("utf-8").decode() == "a\ufffdb\ufffdc\ufffd[31m"


def test_a_run_without_a_round_says_so_and_why(store, failed):
    read = Read(html_report.made(store, failed.id))
    assert "No round of this run is finished yet" in read.text
    assert failed.error in read.text
    assert "svg" not in read.tags()
    assert '"tau_delta"' in read.text


def test_a_seed_model_alone_makes_a_report(store, sets):
    run = end(store, sets, Status.STOPPED, [a_round(0, difference=(0.0, 0.0, 0.0))])
    read = Read(html_report.made(store, run.id))
    assert str(a_round(0).heldout) in read.text
    assert "The first self-labelling round is not finished yet." in read.text


def test_runs_of_before_newer_details_and_files_still_make_one(store, sets):
    run = end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1, crossfit=None, heldout=None, control=None)])
    folder = RunFolder.of(run.id)
    folder.write_json("data", {"counts": {}, "notes": []})
    (folder.round_path(1) / "picture.json").unlink()
    old = {key: value for key, value in run.config.items() if key not in ("gate", "thresholds", "precision")}
    read = Read(html_report.made(_with_config(store, old), run.id))
    assert "not known" in read.text
    assert [found for found, _ in read.elements].count("figure") == 3


def _with_config(store, config):
    class Older(type(store)):
        def run(self, name):
            return replace(super().run(name), config=config)

    return Older(store.engine)


def test_people_are_counted_not_named(store, finished):
    for name in ("Anna Bolena", "Bert Brecht"):
        assert check_a_pair(store, finished, name)
    content = html_report.made(store, finished.id)
    assert "2 by 2 people" in Read(content).text
    assert "Anna" not in content
    assert "Brecht" not in content


def test_an_annotator_gets_none(store, finished):
    store.add_user(User("Ada", "owner", "", True, ""), "correct horse")
    ben = store.add_user(User("Ben", "annotator", "", True, ""), "correct horse")
    with pytest.raises(Forbidden):
        html_report.made(store.acting(ben), finished.id)


def test_few_held_out_pairs_are_called_few(store, sets):
    few = end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1)])
    assert "200 held-out pairs are few" in Read(html_report.made(store, few.id)).text
    many = [
        a_round(i, heldout=Interval(0.7, 0.68, 0.72, 2_000), control=Interval(0.7, 0.68, 0.72, 2_000)) for i in (0, 1)
    ]
    run = end(store, sets, Status.SUCCEEDED, many)
    assert "pairs are few" not in Read(html_report.made(store, run.id)).text


def test_from_the_command_line_without_streamlit(store, finished, tmp_path):
    out = tmp_path / "r.html"
    code = (
        f"import runpy, sys; sys.argv = ['html_report.py', 'my run', {str(out)!r}]; sys.path.insert(0, {str(APP)!r})\n"
        f"try:\n    runpy.run_path({str(APP / 'html_report.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code, 'streamlit' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"Written: {out}", "0 False False"], done.stderr
    assert out.read_text().startswith("<!doctype html>")
    wrong = subprocess.run(
        [sys.executable, str(APP / "html_report.py"), "nobody", str(out)], capture_output=True, text=True
    )
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "There is no run 'nobody'. `python -m ser_backend runs` lists the runs.\n",
    )


# ---- pictures


def figures():
    details = certified()
    told = [a_round(0), a_round(1, details=details), a_round(2, promoted="previous", details=details)]
    stepped = [a_round(i, details={"loss": [0.7, 0.6, 0.5], "steps": 40}) for i in (0, 1)]
    config = RunConfig().as_dict()
    return {
        "accuracy": charts.accuracy(told),
        "difference": charts.difference(told),
        "one value only": charts.difference([a_round(0), a_round(1, difference=(0.0, 0.0, 0.0))]),
        "kept by tests": charts.kept(told),
        "kept": charts.kept(told, False),
        "precision": charts.precision(told, {1: Interval(0.85, 0.7, 0.93, 40)}),
        "confidence": charts.confidence(details),
        "reliability": charts.reliability(details),
        "origins": charts.origins({"human": 3, "self": 5}),
        "zones": charts.zones(a_picture(), config),
        "gaps": charts.gaps(a_picture(), config),
        "learning curve": charts.learning_curve(CURVE),
        "loss": charts.loss(stepped),
    }


@pytest.mark.parametrize("name", figures())
def test_a_still_picture_holds_all_that_the_figure_has(name):
    figure = figures()[name]
    drawn = svg(figure)
    numbers = [float(n) for n in re.findall(r'(?:\bx|\by|cx|cy)="(-?[\d.]+)"', drawn)]
    assert all(np.isfinite(numbers))
    assert "nan" not in drawn.lower()
    for trace in figure.data:
        shown = trace.name and trace.showlegend is not False and len(figure.data) > 1
        assert not shown or f">{sheet.text(trace.name)}</text>" in drawn
    n_bars = sum(len(trace.x) for trace in figure.data if trace.type == "bar")
    assert len(re.findall(r"<rect[^>]*>(?:<title>.*?</title>)?</rect>", drawn, re.S)) == n_bars
    told = sum(
        sum(value is not None for value in trace.x)
        for trace in figure.data
        if trace.hovertemplate and (trace.type == "bar" or "markers" in (trace.mode or ""))
    )
    assert drawn.count("<title>") == told


def test_a_still_picture_puts_values_where_they_belong():
    """Two known values fix the axis; every other mark and interval must lie on it."""
    rounds = [
        a_round(i, heldout=Interval(v, v - 0.1, v + 0.05, 9), control=None) for i, v in enumerate((0.5, 0.6, 0.9))
    ]
    drawn = svg(charts.accuracy(rounds))
    marks = [
        (float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4.5"[^>]*><title>', drawn)
    ]
    assert len(marks) == 3
    (x0, y0), (x1, y1), (x2, y2) = marks
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.2)
    per_point = (y0 - y1) / 10
    assert y1 - y2 == pytest.approx(30 * per_point, abs=0.3)
    low, high = (float(n) for n in re.findall(r'd="M[\d.]+ ([\d.]+)V([\d.]+)', drawn)[0])
    assert low - y0 == pytest.approx(10 * per_point, abs=0.3)
    assert y0 - high == pytest.approx(5 * per_point, abs=0.3)


def test_stacked_bars_stand_on_one_another():
    drawn = svg(charts.kept([a_round(0), a_round(1)]))
    boxes = [
        tuple(float(n) for n in found)
        for found in re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"[^>]*><title>', drawn)
    ]
    tops, heights = [top for top, _ in boxes], [height for _, height in boxes]
    assert heights[0] / heights[2] == pytest.approx((KEPT - 2) / (N_POOL - KEPT), rel=0.02)
    assert tops[1] + heights[1] == pytest.approx(tops[0], abs=0.2)
    assert tops[2] + heights[2] == pytest.approx(tops[1], abs=0.2)


def test_a_trace_that_cannot_be_drawn_is_not_left_out_in_silence():
    figure = charts.accuracy([a_round(0)])
    figure.add_heatmap(z=[[1]])
    with pytest.raises(ValueError, match="'heatmap' is not known"):
        svg(figure)


def test_what_the_charts_escape_for_plotly_is_escaped_once():
    found = svg(charts.agreement("How often", "share", [("<b>Ann & Co", 0.7, 0.6, 0.8, 30)], 20))
    assert "&lt;b&gt;Ann &amp; Co</text>" in found
    assert "&amp;lt;" not in found
