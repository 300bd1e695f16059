"""Watch: is it getting better, is that due to the self-labels, and what is happening right now."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import charts
import components
import streamlit as st
import who

from ser_backend import forecast, jobs, report
from ser_backend.alarms import alarms
from ser_backend.checks import from_dicts
from ser_backend.records import PROGRESS, Event, Interval, Round, Run, Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

EVERY_S = 1.5
PACE_EVENTS = 60  # progress events that tell the speed, half a minute or more
LOSS_EVENTS = 500  # of the training under way, at most two a second
SILENT_S = 20  # a worker beats every two seconds
NEWEST = "newest"
VERDICT_HELP = (
    "Judged by people's training labels only, each by a model that never saw it, so that the held-out pairs stay untouched. "
    "A round that does not hold up is rolled back."
)
RULES = {
    "all": "every pair in which the model prefers one response",
    "confident": "those of which it was sure enough",
    "more confident than the mean": "those of which it was surer than of the pool on average",
}
DOCTOR = {"before": "Before training", "after": "After training"}
WHERE_KNOWN = ("certified", "flips")  # columns of the table that not every method has
LOG_BYTES, LOG_LINES = 16_000, 60
OUTCOMES = {
    "better": (st.success, ":material/trending_up:"),
    "open": (st.info, ":material/trending_flat:"),
    "worse": (st.warning, ":material/trending_down:"),
}


def page() -> None:
    store = components.open_store()
    action = components.head("Is it getting better?", _line(store))
    run = components.run_picker(store)
    if run is None:
        components.nothing_yet("There is no run yet.", "views/train.py", "Start one")
        return
    with components.errors_in_words():
        with action:
            _actions(store, run)
        active = components.is_active(run)
        st.fragment(_live, run_every=EVERY_S if active else None)(store, run.id, active)


def _line(store: Store) -> str:
    runs = store.runs()
    n = sum(components.is_active(run) for run in runs)
    under_way = f"{n} of them under way" if n else "none under way"
    return f"{components.count(len(runs), 'run')}, {under_way}." if runs else "No runs yet."


# ---- what can be done


def _actions(store: Store, run: Run) -> None:
    """What can be done now, the most likely first; where to go next when the run has ended."""
    if components.is_active(run):
        stopping = run.status == Status.STOPPING
        help = "Finished rounds stay, and the run can be resumed."
        if st.button("Stop", icon=":material/stop_circle:", help=help, disabled=stopping):
            jobs.stop(store, run.id)
            st.rerun()
        return
    has_rounds = bool(RunFolder.of(run.id).finished())
    left = jobs.rounds_left(store, run.id)
    unfinished = run.status != Status.SUCCEEDED and left > 0
    help = f"Goes on after the last finished round: {components.count(left, 'model')} left to train."
    if unfinished and st.button("Resume", type="primary", icon=":material/play_arrow:", help=help):
        jobs.resume(store, run.id)
        st.rerun()
    if not has_rounds:
        return
    kind: Literal["primary", "secondary"] = "secondary" if unfinished else "primary"
    if st.button("Review pairs", type=kind, icon=":material/rate_review:"):
        st.switch_page("views/review.py")
    help = "Queues one more round, which uses every answer given in Review so far."
    if not unfinished and st.button("Retrain", icon=":material/replay:", help=help):
        jobs.retrain(store, run.id)
        st.rerun()
    if st.button("Export", icon=":material/ios_share:"):
        st.switch_page("views/export.py")


# ---- what is drawn again and again while the run is active


def _live(store: Store, run_id: str, was_active: bool) -> None:
    who.keep_up(store)
    run = store.run(run_id)
    active = components.is_active(run)
    if was_active and not active:
        st.rerun()  # the whole page once more: other buttons, no timer
    if active:
        jobs.ensure_supervisor()
    rounds = store.rounds(run_id)
    folder = RunFolder.of(run_id)
    audited = report.audited(store, run_id)
    _status(store, run, rounds)
    _result(rounds, folder)
    components.alarm_list(alarms(rounds, run.config, audited))
    with st.container(key="charts"):
        _charts(store, run, rounds, folder, audited)
    _round_table(rounds)
    _doctor(folder)
    _log(folder)


def _status(store: Store, run: Run, rounds: list[Round]) -> None:
    words = [components.badge(run.status)]
    if place := store.queue_position(run.id):
        words.append(f"Number {place} in the queue.")
    if not components.is_active(run) and run.stopped_because:
        words.append(components.plain(run.stopped_because))
    st.markdown(" ".join(words))
    if found := jobs.estimated(run.id):
        took = jobs.took(store, run.id)
        before = f"Estimated before the start: {forecast.in_words(found)}"
        st.caption(components.plain(forecast.compared(found, rounds, took) if took and rounds else before))
    if run.error:
        st.error(components.plain(run.error), icon=":material/error:")
    if run.status in (Status.RUNNING, Status.STOPPING):
        share, text = _progress(store, run, rounds)
        st.progress(share, text)
        job = store.jobs(run=run.id)[-1]
        silent = time.time() - job.heartbeat if job.heartbeat else 0
        if silent > SILENT_S:
            st.warning(
                f"The worker has said nothing for {components.duration(silent)}. If its process is gone, the run goes on "
                "by itself after its last finished round.",
                icon=":material/warning:",
            )
        if job.attempts > 1 and (told := store.events(run.id, kinds=("job_interrupted",), last=1)):
            st.caption(components.plain(told[-1].payload["message"]))


def _progress(store: Store, run: Run, rounds: list[Round]) -> tuple[float, str]:
    """Share done and what is being done, with the time left where it can be told."""
    if run.status == Status.STOPPING:
        return 0.0, "Stopping; finished rounds are kept."
    started = store.events(run.id, kinds=("job_started",), last=1)
    since = started[-1].seq if started else 0
    now = store.events(run.id, after=since, last=1)
    last = now[-1] if now else None
    if last is None:
        return 0.0, "Starting."
    if last.kind in PROGRESS:
        told = store.events(run.id, after=since, kinds=(last.kind,), last=PACE_EVENTS)
        return _under_way([event for event in told if _same_work(event, last)])
    job = store.jobs(run=run.id)[-1]
    wanted, done = job.rounds + 1, len(rounds)
    if last.kind in ("data_prepared", "job_started", "texts_encoded", "basis_started", "features_projected"):
        words = {"texts_encoded": "Texts are encoded.", "basis_started": "Finding the features that matter."}
        return done / wanted, words.get(last.kind, "Loading the base model.")
    left = wanted - done
    pace = [round_.seconds for round_ in rounds if round_.index][-3:] or [round_.seconds for round_ in rounds]
    rest = f", about {components.duration(left * sum(pace) / len(pace))} left" if pace and left else ""
    now_in = f"Round {last.round}" if last.round is not None else "Rounds"
    return min(1.0, done / wanted), f"{now_in}: {done} of {wanted} models trained, the seed model included{rest}"


def _same_work(event: Event, last: Event) -> bool:
    return event.round == last.round and event.payload.get("of") == last.payload.get("of")


def _under_way(told: list[Event]) -> tuple[float, str]:
    """What the worker is in the middle of, with its pace; told: its newest progress events."""
    first, last = told[0], told[-1]
    facts = last.payload
    done, total = facts["done"], facts["total"]
    words = PROGRESS[last.kind].format(of=facts.get("of", "model"))
    text = f"Round {last.round}: {words}" if last.round is not None else words[0].upper() + words[1:]
    text += f"{'' if words.endswith('step') else ':'} {done:,} of {total:,}"
    if "accuracy" in facts:
        text += f"; loss {facts['loss']:.3f}, {facts['accuracy']:.0%} of its training pairs told right lately"
    seconds = (datetime.fromisoformat(last.at) - datetime.fromisoformat(first.at)).total_seconds()
    if seconds > 0 and done > first.payload["done"]:
        speed = (done - first.payload["done"]) / seconds
        text += f"; {speed:,.0f} a second" if speed >= 2 else f"; {1 / speed:,.1f} s each"
        text += f", about {components.duration((total - done) / speed)} left"
    return done / max(1, total), text


def _result(rounds: list[Round], folder: RunFolder) -> None:
    """Where the run stands and whether self-labels had a part in it."""
    now = components.accuracy_in_use(rounds)
    if now is None or not rounds:
        return
    facts = folder.json("data") or {"counts": {}, "notes": []}
    seed = rounds[0].heldout
    st.markdown(f"**Accuracy now: {now}**" + (f" · seed model: {seed}" if len(rounds) > 1 else ""))
    if (kind := components.outcome(rounds)) and (sentence := report.verdict(rounds)):
        show, icon = OUTCOMES[kind]
        show(components.plain(sentence), icon=icon)
    for note in facts["notes"]:
        st.caption(components.plain(note))


def _loss(store: Store, run: Run, rounds: list[Round]) -> None:
    """Only where a model is trained step by step."""
    if run.config.get("fit", "head") == "head":
        return
    live: list[tuple[int, float]] = []
    under_way = len(rounds)
    if components.is_active(run):
        told = store.events(run.id, kinds=("training_progressed",), last=LOSS_EVENTS)
        live = [
            (event.payload["done"], event.payload["loss"])
            for event in told
            if event.round == under_way and event.payload["of"] == "model" and "loss" in event.payload
        ]
    if live or rounds:
        st.plotly_chart(charts.loss(rounds, live, under_way), key="loss", config=charts.CONFIG)


def _charts(store: Store, run: Run, rounds: list[Round], folder: RunFolder, audited: Mapping[int, Interval]) -> None:
    """What can be drawn so far; nothing is drawn empty while the first model is trained."""
    if not rounds:
        _loss(store, run, rounds)
        return
    later = [round_.index for round_ in rounds if round_.index]
    left, right = st.columns(2)
    left.plotly_chart(charts.accuracy(rounds), key="accuracy", config=charts.CONFIG)
    right.plotly_chart(charts.difference(rounds), key="difference", config=charts.CONFIG)
    _loss(store, run, rounds)
    if not later:
        return
    left, right = st.columns(2)
    method = run.config.get("method", "paper")
    left.plotly_chart(charts.kept(rounds, method == "paper"), key="kept", config=charts.CONFIG)
    if method == "calibrated" and any(r.n_kept for r in rounds):
        right.plotly_chart(charts.precision(rounds, audited), key="precision", config=charts.CONFIG)
        _verdicts(rounds)
    else:
        with right:
            _verdicts(rounds)
    st.subheader("How a round chose its pairs", anchor=False)
    picked: int | str = NEWEST
    if len(later) > 1:
        options = [NEWEST, *later]
        picked = st.segmented_control(
            "Round", options, default=NEWEST, required=True, key=f"picture-{run.id}", format_func=str
        )
    round_ = next(r for r in rounds if r.index == (later[-1] if picked == NEWEST else picked))
    if method == "calibrated":
        _certified(rounds, round_, audited)
        return
    picture = folder.picture(round_.index)
    left, right = st.columns(2)
    left.plotly_chart(charts.zones(picture, run.config), key="zones", config=charts.CONFIG)
    right.plotly_chart(charts.gaps(picture, run.config), key="gaps", config=charts.CONFIG)
    st.caption(components.plain(_selection(round_, run)))


def _certified(rounds: list[Round], round_: Round, audited: Mapping[int, Interval]) -> None:
    """What a calibrated round claims of its labels, what that rests on, and whether it is true."""
    if sentence := report.claim(round_, audited.get(round_.index)):
        st.markdown(components.plain(sentence))
    if report.shares_nothing(round_):
        st.info(components.plain(report.NOTHING_SHARED), icon=":material/info:")
    left, right = st.columns(2)
    left.plotly_chart(charts.confidence(round_.details), key="confidence", config=charts.CONFIG)
    right.plotly_chart(charts.reliability(round_.details), key="reliability", config=charts.CONFIG)
    st.caption(components.plain(_temperature(rounds, round_)))


def _temperature(rounds: list[Round], round_: Round) -> str:
    """What the temperature did, and how settled the labels are."""
    facts = round_.details
    if "temperature" not in facts:
        return ""
    earlier = [r.details["temperature"] for r in rounds[: round_.index] if "temperature" in r.details]
    was = f" (round before: {earlier[-1]:.2f})" if earlier else ""
    before, after = (Interval(**facts[key]["ece"]) for key in ("reliability_before", "reliability"))
    words = (
        f"The teacher's confidence is judged on {after.n:,} of people's labels, each by a teacher without it. "
        f"Temperature {facts['temperature']:.2f}{was} makes it {_sureness(facts['temperature'])}: calibration "
        f"error {100 * before.value:.1f} % before, {100 * after.value:.1f} % after."
    )
    if "flips" in facts:
        words += f" Of the labels kept in this round and before, {100 * facts['flips']:.1f} % turned round."
    return words


def _sureness(temperature: float) -> str:
    return "surer" if temperature < 1 else "less sure"


def _verdicts(rounds: list[Round]) -> None:
    """Why each round was kept or rolled back, the newest first."""
    st.markdown("**Did each round hold up?**")
    st.caption(VERDICT_HELP)
    with st.container(height=260 if len(rounds) > 5 else "content", border=False):
        for round_ in reversed(rounds[1:]):
            icon = ":material/check:" if round_.promoted == "new" else ":material/undo:"
            st.markdown(f"{icon} **Round {round_.index}** {components.plain(round_.why)}")


def _selection(round_: Round, run: Run) -> str:
    """What passed in this round, and why."""
    looked = f"Round {round_.index} looked at {round_.n_pool:,} open pairs and kept {round_.n_kept:,}"
    drawn = "At most 2,000 pairs are drawn."
    if rule := RULES.get(round_.details.get("stage") or ""):
        return f"{looked}: {rule}. {drawn}"
    what = "ranks" if run.config.get("thresholds") == "percentile" else "probabilities"
    c = run.config
    clear = f"clear (one of the two {what} above {c['tau_high']:g}, the other below {c['tau_low']:g})"
    wide = f"wide (further than {c['tau_delta']:g} apart)"
    words = {
        "clear": f". Only pairs that are {clear} pass in this round.",
        "wide": f". Pairs that are {wide} pass in this round.",
    }
    both = f": {round_.n_kept_status_1:,} {clear} and {round_.n_kept_status_2:,} {wide} but not clear."
    return f"{looked}{words.get(round_.details.get('stage') or '', both)} {drawn}"


def _round_table(rounds: list[Round]) -> None:
    if not rounds:
        return
    with st.expander("Every round in figures", icon=":material/table_rows:"):
        table = [_row(r) for r in rounds]
        shown = [name for name in table[0] if name not in WHERE_KNOWN or any(row[name] for row in table)]
        st.dataframe([{name: row[name] for name in shown} for row in table], hide_index=True)


def _row(r: Round) -> dict[str, object]:
    certificate, flips = r.details.get("certificate"), r.details.get("flips")
    certified = ""
    if certificate:
        certified = f"at least {100 * certificate['target']:.3g} % right" if r.n_kept else "nothing"
    return {
        "round": r.index,
        "trained on": r.n_train,
        "people's labels": r.n_human,
        "kept": r.n_kept,
        "certified": certified,
        "flips": f"{100 * flips:.1f} %" if flips is not None else "",
        "open before": r.n_pool,
        "accuracy": str(r.heldout) if r.heldout else "",
        "control": str(r.control) if r.control else "",
        "difference": components.points(r.difference) if r.difference and r.index else "",
        "verdict": r.why,
        "seconds": round(r.seconds, 1),
    }


def _doctor(folder: RunFolder) -> None:
    """What was checked before and after training; runs of before have nothing of it."""
    found = folder.json("doctor") or {}
    parts = [(title, from_dicts(found.get(key))) for key, title in DOCTOR.items()]
    if any(checks for _, checks in parts):
        components.doctor_card(parts)


def _log(folder: RunFolder) -> None:
    path = folder.log()
    with st.expander("Log", icon=":material/terminal:"):
        if not path.exists():
            st.caption("Nothing is written yet.")
            return
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
        st.code("\n".join(lines), language=None, height=320)


page()
