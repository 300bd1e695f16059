"""Train: choose data and settings, see what a run would use, start it."""

from typing import Any

import components
import state
import streamlit as st

from ser_backend import config, jobs
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.records import Dataset, Role
from ser_backend.store import Store

UP_FRONT = ("method", "rounds")  # settings that are not folded away
NO_HELDOUT = "none: hold out a part of the seed"


def page() -> None:
    store = components.open_store()
    sets = {role: store.datasets(role) for role in components.ROLE_NAMES}
    missing = [components.ROLE_NAMES[role].lower() for role in ("seed", "pool") if not sets[role]]
    waiting = jobs.active(store)
    line = f"{components.count(len(waiting), 'run')} running or waiting." if waiting else "Nothing is running."
    action = components.head("What should the model learn from?", line)
    if missing:
        components.nothing_yet(
            f"A run needs a seed and a pool; there is no {' and no '.join(missing)} set yet.",
            "views/data.py",
            "Import data, or try the sample",
        )
        _queue(store)
        return
    left, right = st.columns([6, 4], gap="large")
    with left:
        seed = _pick("Seed", "seed", sets["seed"])
        pool = _pick("Pool", "pool", sets["pool"])
        heldout = _pick("Held-out", "heldout", sets["heldout"], optional=True)
        assert seed
        assert pool
        settings = _settings()
        name = st.text_input("Name of the run", placeholder=f"{seed.name} on {pool.name}")
    with right:
        chosen = _plan(store, settings, seed, pool, heldout)
    if chosen and action.button("Start training", type="primary", icon=":material/play_arrow:"):
        with components.errors_in_words():
            run = jobs.submit(store, chosen, seed.id, pool.id, heldout.id if heldout else None, name)
            components.show_run(run.id)
            st.switch_page("views/watch.py")
    _queue(store)


def _pick(label: str, role: Role, sets: list[Dataset], optional: bool = False) -> Dataset | None:
    by_id = {found.id: found for found in sets}
    options = [*by_id, NO_HELDOUT] if optional else list(by_id)
    wanted = state.session().chosen.get(role, "")

    def text(dataset_id: str) -> str:
        found = by_id.get(dataset_id)
        return f"{found.name} · {components.count(found.n_pairs, 'pair')}" if found else dataset_id

    index = options.index(wanted) if wanted in options else 0
    picked = st.selectbox(label, options, index, format_func=text, help=components.ROLE_HELP[role], key=f"pick-{role}")
    state.session().chosen[role] = picked
    return by_id.get(picked)


# ---- settings, all of them made from config.describe()


def _settings() -> dict[str, Any]:
    preset = st.radio(
        "Preset",
        list(config.PRESETS),
        index=list(config.PRESETS).index(config.DEFAULT_PRESET),
        format_func=lambda name: config.PRESETS[name].title,
        captions=[found.help for found in config.PRESETS.values()],
    )
    base = config.from_preset(preset)
    described = config.describe()
    values: dict[str, Any] = {}
    for column, name in zip(st.columns(len(UP_FRONT)), UP_FRONT, strict=True):
        with column:
            values[name] = _field(name, described[name], getattr(base, name), preset)
    changed = st.expander("Every setting", icon=":material/tune:")
    with changed:
        columns = st.columns(2)
        rest = [name for name in described if name not in UP_FRONT]
        for place, name in enumerate(rest):
            with columns[place % 2]:
                values[name] = _field(name, described[name], getattr(base, name), preset)
    return values


def _field(name: str, entry: dict[str, Any], value: Any, preset: str) -> Any:
    """One setting. The key names the preset, so that another preset begins with its own values."""
    key, label = f"setting-{preset}-{name}", f"`{name}`"
    if entry["among"]:
        return st.selectbox(label, entry["among"], entry["among"].index(value), help=entry["help"], key=key)
    if entry["type"] is str:
        return st.text_input(label, value, help=entry["help"], key=key)
    kind = entry["type"]
    return st.number_input(
        label,
        min_value=kind(entry["low"]),
        max_value=kind(entry["high"]),
        value=value,
        step=1 if kind is int else 0.01,
        format="%d" if kind is int else "%.2f",
        help=entry["help"],
        key=key,
    )


# ---- what it would use


@st.cache_data(show_spinner=False, max_entries=64)
def _plan_of(settings: dict[str, Any], seed: str, pool: str, heldout: str | None, _store: Store) -> jobs.Plan:
    return jobs.plan(_store, RunConfig().changed(settings), seed, pool, heldout)


def _plan(
    store: Store, settings: dict[str, Any], seed: Dataset, pool: Dataset, heldout: Dataset | None
) -> RunConfig | None:
    """The plan in words; None, with the reason shown, when this could not be started."""
    with st.container(border=True):
        st.subheader("What this run will use", anchor=False)
        try:
            plan = _plan_of(settings, seed.id, pool.id, heldout.id if heldout else None, store)
        except SerError as error:
            st.error(components.plain(str(error)), icon=":material/error:")
            return None
        counts = plan.counts
        of = "of the held-out set" if heldout else "held out from the seed"
        st.markdown(
            f"- **{counts['seed_trained']:,}** labelled seed pairs train the first model\n"
            f"- **{counts['heldout_pairs']:,}** labelled pairs {of} measure accuracy; nothing is trained on them\n"
            f"- **{counts['pool_open']:,}** of {counts['pool_pairs']:,} pool pairs are open to self-labels"
        )
        for note in plan.notes:
            st.caption(components.plain(note))
        st.caption(
            f"Up to {components.count(settings['rounds'], 'round')} after the seed model. Beside the model, a control "
            "gets the same people's labels and no self-labels, so that you see what self-labels add."
        )
    return RunConfig().changed(settings)


# ---- the queue


def _queue(store: Store) -> None:
    waiting = jobs.active(store)
    if not waiting:
        return
    names = {run.id: run.name for run in store.runs()}
    st.subheader("Running and waiting", anchor=False)
    for job in waiting:
        place = store.queue_position(job.run)
        with st.container(border=True, horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(
                f"**{components.plain(names[job.run])}** {components.badge(job.status)}"
                + (f" number {place} in the queue" if place else "")
            )
            if st.button("Watch", key=f"watch-{job.id}", icon=":material/monitoring:"):
                components.show_run(job.run)
                st.switch_page("views/watch.py")


page()
