"""What happens now: status, progress, time left, the loss of the training under way. Drawn again every EVERY_S."""

import time
from datetime import datetime

import charts
import components
import streamlit as st
import who
from picture import show_figure

from ser_backend import jobs
from ser_backend.cost import forecast
from ser_backend.records import PROGRESS, Event, Job, Round, Run, Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from watching import known

EVERY_S = 1.5
PACE_EVENTS = 60  # progress events that tell the speed, half a minute or more
LOSS_EVENTS = 500  # of the training under way, at most two a second
SILENT_S = 20  # a worker beats every two seconds


def draw(store: Store, run_id: str, was_active: bool, drawn: tuple[int, int]) -> None:
    """was_active, drawn: as the rest of the page was drawn; when they are out of date all of it is drawn once more."""
    who.keep_up(store)
    run = store.run(run_id)
    active = components.is_active(run)
    folder = RunFolder.of(run_id)
    if was_active and (not active or known.stamp(folder) != drawn):
        st.rerun()
    if active:
        jobs.ensure_supervisor()
    rounds = known.rounds(folder)
    _status(store, run, rounds)
    if active and run.config.get("fit", "head") != "head":
        _loss(store, run, rounds)


def _status(store: Store, run: Run, rounds: list[Round]) -> None:
    words = [components.badge(run.status)]
    if run.status == Status.QUEUED and (place := store.queue_position(run.id)):
        words.append(f"Number {place} in the queue.")
    if not components.is_active(run) and run.stopped_because:
        words.append(components.plain(run.stopped_because))
    st.markdown(" ".join(words))
    if run.error:
        st.error(components.plain(run.error), icon=":material/error:")
    if run.status not in (Status.RUNNING, Status.STOPPING):
        return
    job = store.jobs(run=run.id)[-1]
    share, text = _progress(store, run, rounds, job)
    st.progress(share, text)
    silent = time.time() - job.heartbeat if job.heartbeat else 0
    if silent > SILENT_S:
        st.warning(
            f"The worker has said nothing for {components.duration(silent)}. If its process is gone, the run goes on "
            "by itself after its last finished round.",
            icon=":material/warning:",
        )
    if job.attempts > 1 and (told := store.events(run.id, kinds=("job_interrupted",), last=1)):
        st.caption(components.plain(told[-1].payload["message"]))


def _progress(store: Store, run: Run, rounds: list[Round], job: Job) -> tuple[float, str]:
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


def _loss(store: Store, run: Run, rounds: list[Round]) -> None:
    """Where a model is trained step by step, as long as it is trained."""
    under_way = len(rounds)
    told = store.events(run.id, kinds=("training_progressed",), last=LOSS_EVENTS)
    live = [
        (event.payload["done"], event.payload["loss"])
        for event in told
        if event.round == under_way and event.payload["of"] == "model" and "loss" in event.payload
    ]
    if live or rounds:
        show_figure(charts.loss(rounds, live, under_way), "loss")


def estimate(store: Store, run: Run, rounds: list[Round]) -> None:
    """What was thought before the start, beside what it took."""
    if found := jobs.estimated(run.id):
        took = jobs.took(store, run.id)
        before = f"Estimated before the start: {forecast.in_words(found)}"
        st.caption(components.plain(forecast.compared(found, rounds, took) if took and rounds else before))
