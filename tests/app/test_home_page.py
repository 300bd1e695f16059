"""Home: what needs a person, the first steps, and every run at a glance; the steps on the other pages."""

import time

import pytest
import state
from fabricate import APP, a_round, end, texts, write_rounds
from streamlit.testing.v1 import AppTest

from ser_backend import home, jobs
from ser_backend.config import RunConfig
from ser_backend.records import Interval, Status, User
from ser_backend.review import Desk, vote, votes

WORD = "correct horse"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(votes, "FASTEST_S", 0.0)


def button(page: AppTest, label: str):
    return next(found for found in page.button if found.label == label)


def labels(page: AppTest) -> list[str]:
    return [found.label for found in page.button]


def html(page: AppTest) -> str:
    return "".join(getattr(found.proto, "body", "") for found in page.get("html"))


def steps(page: AppTest) -> list[str]:
    """What the strip says of each step; empty where there is no strip."""
    strip = next((found.proto.body for found in page.get("html") if "ser-steps" in found.proto.body), "")
    return [part.split('"')[0] for part in strip.split('<li class="')[1:]]


def answered(store, run, n=3):
    for _ in range(n):
        vote(store, Desk(store, run.id).next("me", "learn"), "left")


def title_of(page: AppTest) -> str:
    return page.title[0].value


# ---- first steps


def test_a_first_visitor_is_led_by_the_sample(open_page, store):
    page = open_page("home")
    assert title_of(page) == "What needs you?"
    assert steps(page) == ["now", "next", "next", "next", "next"]
    assert labels(page) == ["Try the sample", "I know my way"]
    assert [found.label for found in page.get("page_link")] == [] or page.get("page_link")
    page = button(page, "Try the sample").click().run()
    assert {found.role for found in store.datasets()} == {"seed", "pool", "heldout"}
    assert title_of(page) == "What should the model learn from?"
    assert steps(page) == ["done", "now", "next", "next", "next"]
    assert "Press **Start training**." in texts(page)


def test_a_run_under_way_is_waited_for(open_page, store, sets):
    run = jobs.submit(store, RunConfig(), sets["seed"].id, sets["pool"].id, None, "r", False)
    page = open_page("home")
    assert steps(page) == ["done", "now", "next", "next", "next"]
    assert "go on when it has finished" in texts(page)
    store.claim_job("cpu")
    write_rounds(store, run, [a_round(0)])
    assert steps(open_page("watch")) == ["done", "done", "now", "next", "next"]


def test_the_steps_go_on_with_answers_a_retraining_and_an_export(open_page, store, finished):
    page = open_page("home")
    assert steps(page)[2] == "now"
    assert title_of(button(page, "Review pairs").click().run()) == "Which response is better?"
    answered(store, finished)
    page = open_page("review")
    assert steps(page) == ["done", "done", "done", "now", "next"]
    page = open_page("home")
    page = page.button(key="guide-now").click().run()
    assert title_of(page) == "Is it getting better?"
    assert [job.rounds for job in store.jobs(run=finished.id)] == [1, 2]
    assert "go on when it has finished" in texts(page)
    store.finish_job(store.claim_job("cpu").id, Status.SUCCEEDED)
    write_rounds(store, finished, [a_round(2, details=a_round(2).details | {"n_reviews": 3})])
    for view in ("home", "watch"):
        page = open_page(view)
        assert steps(page) == ["done", "done", "done", "done", "now"]
        assert [found.label for found in page.get("download_button")] == ["Download everything"]
    assert "Press **Download everything**" in texts(open_page("export"))
    (home.runs_dir() / finished.id / "exports").mkdir()
    (home.runs_dir() / finished.id / "exports" / "all.zip").touch()
    for view in ("home", "watch", "export"):
        assert steps(open_page(view)) == []


def test_the_steps_can_be_taken_away_for_good(open_page, store):
    page = button(open_page("home"), "I know my way").click().run()
    assert steps(page) == []
    assert steps(open_page("data")) == []


# ---- runs


def test_without_runs_home_leads_to_the_data(open_page, store):
    page = open_page("home")
    assert "No run yet." in texts(page)
    assert "bring" in texts(page).lower()


def test_one_run_is_told_and_is_one_click_from_its_pages(open_page, store, finished):
    said = texts(open_page("home"))
    assert "**my run** :green-badge[:material/check_circle: finished]" in said
    assert str(a_round(1).heldout) in said
    assert 'alt="Held-out accuracy by round: 70.0 %, 71.0 %; control now 70.0 %"' in html(open_page("home"))
    for view, title in (
        ("watch", "Is it getting better?"),
        ("review", "Which response is better?"),
        ("export", "home?"),
    ):
        page = open_page("home")
        page = page.button(key=f"{view}-{finished.id}").click().run()
        assert title in title_of(page)
        assert page.session_state[state.KEY].run == finished.id


def test_a_failed_run_stands_first_with_its_reason(open_page, store, sets, failed):
    page = open_page("home")
    assert "1 thing needs you" in texts(page)
    assert f"The run failed. {failed.error}" in texts(page)
    assert page.button(key=f"review-{failed.id}").disabled
    page = page.button(key=f"need-failed-{failed.id}").click().run()
    assert title_of(page) == "Is it getting better?"
    assert page.session_state[state.KEY].run == failed.id


def test_when_nothing_is_due_it_is_said(open_page, store, sets):
    nothing_kept = a_round(1, n_kept=0, details={"model_round": 0, "model_is_control": False, "n_self_labels": 0})
    end(store, sets, Status.SUCCEEDED, [a_round(0), nothing_kept], method="paper")
    page = open_page("home")
    assert "Nothing needs you" in texts(page)
    assert "Nothing needs you · 1 run, none under way." in texts(page)


def test_answers_nobody_used_are_retrained_with_from_here(open_page, store, finished):
    answered(store, finished)
    page = open_page("home")
    assert "3 answers that no round has used yet." in texts(page)
    page = page.button(key=f"need-unused-{finished.id}").click().run()
    assert title_of(page) == "Is it getting better?"
    assert [job.rounds for job in store.jobs(run=finished.id)] == [1, 2]


def test_checks_lead_to_their_queue(open_page, store, sets):
    run = end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1)])
    page = open_page("home")
    assert "12 self-labels in force, none of them checked yet." in texts(page)
    page = page.button(key=f"need-audits-{run.id}").click().run()
    assert title_of(page) == "Which response is better?"
    assert page.session_state[state.QUEUE] == "audit"


def test_seed_labels_that_may_all_be_right_are_offered_below_and_not_counted(open_page, store, sets):
    facts = {"model_round": 0, "model_is_control": False, "n_self_labels": 0}
    facts["seed_audit"] = {"share": [0.1, 0.0, 0.3, 30], "in_words": ""}
    run = end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1, n_kept=0, details=facts)], method="paper")
    page = open_page("home")
    assert "Nothing needs you" in texts(page)
    assert "Not due, but worth a look (1)" in page.expander[0].label
    assert "Perhaps no seed label is wrong, perhaps up to 9 of 30 are." in texts(page)
    page = page.button(key=f"need-suspects-{run.id}").click().run()
    assert title_of(page) == "Which response is better?"


def test_many_runs_are_folded_and_drawn_in_time(open_page, store, sets):
    for number in range(20):
        heldout = Interval(0.7 + number / 1000, 0.6, 0.8, 200)
        run = end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1, heldout=heldout)])
        store.move_run(run.id, ["", "Safety"][number % 2])
    page = open_page("home")
    watch = [found.key for found in page.button if (found.key or "").startswith("watch-")]
    assert len(watch) == 12
    said = texts(page)
    assert "10 runs" in said
    assert said.index("Safety") < said.index("Runs not in a project"), "that with the newest run first"
    page = button(page, "Show all 10 runs").click().run()
    watch = [found.key for found in page.button if (found.key or "").startswith("watch-")]
    assert len(watch) == 16
    began = time.perf_counter()
    page.run()
    assert time.perf_counter() - began < 5, "what was counted is not counted again"


def test_names_are_shown_as_they_are(open_page, store, sets):
    run = end(store, sets, Status.FAILED, [], "It ended with <b>$x$</b>.")
    store.move_run(run.id, "*P* <script>")
    page = open_page("home")
    assert page.subheader[-1].value == r"\*P\* \<script\>"
    assert all("<script>" not in found.proto.body for found in page.get("html"))
    assert any(r"\<b\>\$x\$\</b\>" in found.value for found in page.markdown)


# ---- projects


def test_runs_are_filed_under_a_project_and_taken_out_again(open_page, store, sets, finished):
    other = end(store, sets, Status.FAILED, [], "x")
    store.move_run(other.id, "Help  *ful*")  # a test of a page can choose what is there, and type nothing new
    page = open_page("home")
    page.multiselect(key=state.FILED).set_value([finished.id]).run()
    page.selectbox(key=state.FILED_UNDER).set_value("Help  *ful*").run()
    page = button(page, "File").click().run()
    assert store.run(finished.id).project == "Help *ful*", "kept in one line"
    page.multiselect(key=state.FILED).set_value([other.id, finished.id]).run()
    page.selectbox(key=state.FILED_UNDER).set_value("").run()
    page = button(page, "File").click().run()
    assert store.projects() == []
    assert button(page, "File").disabled


def test_a_run_is_started_under_a_project(open_page, store, finished):
    store.move_run(finished.id, "Safety")
    page = open_page("train")
    page.selectbox(key=state.PROJECT).set_value("Safety").run()
    page = button(page, "Start training").click().run()
    assert [run.project for run in store.runs()] == ["Safety", "Safety"]


# ---- roles


def sign_in(page: AppTest, name: str) -> AppTest:
    next(found for found in page.text_input if found.label == "Name").set_value(name)
    next(found for found in page.text_input if found.label == "Password").set_value(WORD)
    page = button(page, "Sign in").click().run()
    assert not page.exception
    return page


def test_an_annotator_is_sent_to_review_and_sees_no_reward_and_no_steps(store, finished):
    store.add_user(User("Ada", "owner", "", True, ""), WORD)
    store.add_user(User("Ben", "annotator", "", True, ""), WORD)
    page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30).run()
    page = sign_in(page, "Ben")
    assert title_of(page) == "Which response is better?"
    assert steps(page) == []
    assert str(a_round(1).heldout) not in texts(page)
    assert "ser-run" not in html(page)


def test_an_engineer_cannot_take_the_steps_away_from_everybody(store, finished):
    store.add_user(User("Ada", "owner", "", True, ""), WORD)
    store.add_user(User("Eve", "engineer", "", True, ""), WORD)
    page = sign_in(AppTest.from_file(str(APP / "frame.py"), default_timeout=30).run(), "Eve")
    assert title_of(page) == "What needs you?"
    assert steps(page)
    assert "I know my way" not in labels(page)
