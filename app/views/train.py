"""Train: choose data and settings, see what a run would use and how long it would take, start it."""

from collections.abc import Mapping
from typing import Any

import beginning
import charts
import components
import guide
import setting_field
import state
import streamlit as st
from beginning import Beginning
from picture import show_figure

from ser_backend import config, jobs, matching, report
from ser_backend.config import RunConfig
from ser_backend.cost import forecast, machine
from ser_backend.errors import SerError
from ser_backend.records import Dataset, Role
from ser_backend.store import Store

UP_FRONT = ("rounds",)  # settings that are not folded away
LOOK_S = 1.5
NO_HELDOUT = "none: hold out a part of the seed"


def page() -> None:
    store = components.open_store()
    sets = {role: store.datasets(role) for role in components.ROLE_NAMES}
    missing = [components.ROLE_NAMES[role].lower() for role in ("seed", "pool") if not sets[role]]
    waiting = jobs.active(store)
    line = f"{components.count(len(waiting), 'job')} running or waiting." if waiting else "Nothing is running."
    action = components.head("What should the model learn from?", line)
    guide.strip(store, "train")
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
        begin = beginning.choose(store)
        first = _first(store, sets)
        seed = _pick("Seed", "seed", sets["seed"], begin, first)
        pool = _pick("Pool", "pool", sets["pool"], begin, first)
        heldout = _pick("Held-out", "heldout", sets["heldout"], begin, first)
        assert seed
        assert pool
        _strangers(store, sets, seed, pool, heldout)
        settings, name = _settings(f"{seed.name} on {pool.name}", begin)
        picked: dict[Role, Dataset] = {"seed": seed, "pool": pool, **({"heldout": heldout} if heldout else {})}
        if begin:
            beginning.changes(begin, settings, picked)
        with components.errors_in_words():
            project = st.session_state.get(state.PROJECT) or ""
            beginning.save(RunConfig().changed(settings), picked, name, project)
        _of_seed(store, seed)
    with right:
        chosen = _plan(store, settings, seed, pool, heldout)
    waits = begin is None and st.session_state.get(beginning.WAY, beginning.PRESET) != beginning.PRESET
    help = "Give the run or file to begin with first, or begin with a preset." if waits else None
    if chosen and action.button(
        "Start training", type="primary", icon=":material/play_arrow:", disabled=waits, help=help
    ):
        with components.errors_in_words():
            run = jobs.submit(
                store,
                chosen,
                seed.id,
                pool.id,
                heldout.id if heldout else None,
                name,
                project=st.session_state.get(state.PROJECT) or "",
            )
            components.show_run(run.id)
            st.switch_page("views/watch.py")
    _queue(store)


def _of_seed(store: Store, seed: Dataset) -> None:
    """Before more is labelled or trained: are there labels enough, and are they right?"""
    with st.expander("Are there labels enough, and are they right?", icon=":material/query_stats:"):
        found = report.of_seed(store, seed.id)
        for name, one in found.items():
            st.markdown(components.plain(one["in_words"]))
            if name == "learning_curve" and one.get("path"):
                show_figure(charts.learning_curve(one), "learning-curve")
        if found:
            st.caption("As of the newest run with this seed. The Review page lists the labels that look wrong.")
        else:
            st.markdown(
                "No run has looked at this seed yet. Start one with `rounds` at 0: it trains the seed model only, and says "
                "what more labels would bring and which of yours look wrong."
            )


def _first(store: Store, sets: dict[Role, list[Dataset]]) -> dict[Role, str]:
    """What the form begins with: what was picked here or imported last, and what belongs to it."""
    session = state.session()
    known = {found.id: found for role in sets for found in sets[role]}
    picked = {role: name for role, name in session.picked.items() if name in known}
    if not picked:  # the newest import, not one of each role: they may have nothing to do with each other
        imported = [known[name] for name in session.chosen.values() if name in known]
        picked = {newest.role: newest.id} if (newest := max(imported, key=_age, default=None)) else {}
    found = matching.together(sets, store.runs(), picked)
    if session.picked.get("heldout") == NO_HELDOUT:
        found["heldout"] = None
    return {role: one.id if one else NO_HELDOUT for role, one in found.items()}


def _strangers(
    store: Store, sets: dict[Role, list[Dataset]], seed: Dataset, pool: Dataset, heldout: Dataset | None
) -> None:
    """Where there is a choice, and nothing says that this one is meant."""
    known, runs = [found for role in sets for found in sets[role]], store.runs()
    if (len(sets["seed"]) > 1 or len(sets["pool"]) > 1) and not matching.belong(seed, pool, runs, known):
        st.caption(
            "Neither their names nor a run say that this seed and this pool belong together. Check before you start."
        )
    if (
        heldout
        and len(sets["heldout"]) > 1
        and not any(matching.belong(heldout, one, runs, known) for one in (seed, pool))
    ):
        st.caption(
            "Neither its name nor a run says that this held-out set belongs to this seed and pool: on other data it measures "
            "something else. Check before you start."
        )


def _age(dataset: Dataset) -> str:
    return dataset.created_at


def _pick(
    label: str, role: Role, sets: list[Dataset], begin: Beginning | None, first: dict[Role, str]
) -> Dataset | None:
    by_id = {found.id: found for found in sets}
    options = [*by_id, NO_HELDOUT] if role == "heldout" else list(by_id)
    wanted, key = first.get(role, ""), f"pick-{role}"
    if begin:
        key = f"pick-{role}-{begin.scope}"
        wanted = begin.wanted(role, NO_HELDOUT) if role not in begin.missing else wanted
    if not begin or key not in st.session_state:  # what belongs together may change with another seed
        st.session_state[key] = wanted if wanted in options else options[0]

    def text(dataset_id: str) -> str:
        found = by_id.get(dataset_id)
        return f"{found.name} · {components.count(found.n_pairs, 'pair')}" if found else dataset_id

    def keep() -> None:
        state.session().picked[role] = state.session().chosen[role] = st.session_state[key]

    picked = st.selectbox(label, options, format_func=text, help=components.ROLE_HELP[role], key=key, on_change=keep)
    return by_id.get(picked)


# ---- settings, all of them made from config.describe()


def _settings(usual_name: str, begin: Beginning | None) -> tuple[dict[str, Any], str]:
    """The two presets, unless another beginning was chosen, what is asked of everybody, and the rest folded away. Returns
    settings and the run's name."""
    form = _Form(begin.settings, begin.scope, begin.scope) if begin else _by_presets()
    few, wide, filed = st.columns([1, 2, 1.5])
    with few:
        for name in UP_FRONT:
            form.field(name)
    name = wide.text_input("Name of the run", placeholder=usual_name)
    with filed:
        _project()
    with st.expander("Every setting", icon=":material/tune:"):
        for section, about in config.SECTIONS.items():
            form.section(section, about)
    return form.values, name


def _by_presets() -> "_Form":
    here = machine.this_machine()
    left, right = st.columns(2)
    with left:
        preset = st.selectbox(
            "How pairs are labelled",
            list(config.PRESETS),
            list(config.PRESETS).index(config.DEFAULT_PRESET),
            format_func=lambda name: config.PRESETS[name].title,
            help="A preset of the self-labelling settings below.",
            key="preset",
        )
        st.caption(config.PRESETS[preset].help)
    with right:
        engine = st.selectbox(
            "What is trained",
            list(config.ENGINES),
            list(config.ENGINES).index(machine.engine_for(here)),
            format_func=lambda name: config.ENGINES[name].title,
            help=f"A preset of the model's settings below. This machine: {here}.",
            key="engine",
        )
        st.caption(config.ENGINES[engine].help)
        if engine == machine.engine_for(here):
            st.caption(components.plain(machine.why(here)))
        elif against := machine.warning(engine, here):
            st.warning(components.plain(against), icon=":material/warning:")
    return _Form(config.from_preset(preset, engine).as_dict(), preset, engine)


def _project() -> None:
    """Kept under its key: what one is working on stays the same from run to run."""
    st.selectbox(
        "Project",
        components.open_store().projects(),
        None,
        accept_new_options=True,
        key=state.PROJECT,
        placeholder="None",
        help="A name that runs are filed under on Home. Choose one, or type a new one.",
    )


class _Form:
    """Settings as fields. A field's key names the preset (or run, or file) that decides it, so that another one begins with
    its own."""

    def __init__(self, values: Mapping[str, Any], preset: str, engine: str) -> None:
        self.preset, self.engine = preset, engine
        self.described = config.describe()
        self.values = dict(values)

    def section(self, section: str, about: str) -> None:
        """The settings of a section that mean something with the chosen fit and method."""
        names = [name for name, entry in self.described.items() if entry["section"] == section and name not in UP_FRONT]
        if section != config.TRAINED and not any(self._means_something(name) for name in names):
            return
        st.markdown(f"**{section}**")
        st.caption(about)
        columns = st.columns(2)
        place = 0
        for name in names:
            if self._means_something(name):
                with columns[place % 2]:
                    self.field(name)
                place += 1

    def _means_something(self, name: str) -> bool:
        entry = self.described[name]
        return all(not entry[of] or self.values[by] in entry[of] for of, by in (("fits", "fit"), ("methods", "method")))

    def field(self, name: str) -> None:
        entry, value = self.described[name], self.values[name]
        scope = self.preset if entry["section"] == config.LABELS else self.engine
        self.values[name] = setting_field.draw(name, entry, value, f"setting-{scope}-{name}")


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
            f"- **{counts['seed_trained']:,}** of {seed.n_pairs:,} labelled seed pairs train the first model\n"
            f"- **{counts['heldout_pairs']:,}** labelled pairs {of} measure accuracy; nothing is trained on them\n"
            f"- **{counts['pool_open']:,}** of {counts['pool_pairs']:,} pool pairs are open to self-labels"
        )
        for note in plan.notes:
            st.caption(components.plain(note))
        by_teacher = settings["method"] == "calibrated"
        st.caption(
            f"Up to {components.count(settings['rounds'], 'round')} after the seed model"
            + ("; one labels the whole pool, each further one waits for answers in Review. " if by_teacher else ". ")
            + "Beside the model, a control gets the same people's labels and no self-labels, so that you see what "
            "self-labels add."
        )
        st.markdown("**How long it will take**")
        chosen = RunConfig().changed(settings)
        asked = (chosen, seed.id, pool.id, heldout.id if heldout else None)
        on_its_way = jobs.estimate(store, *asked).is_on_its_way
        st.fragment(_estimate, run_every=LOOK_S if on_its_way else None)(store, asked, on_its_way)
    return chosen


def _estimate(store: Store, asked: tuple[RunConfig, str, str, str | None], was_on_its_way: bool) -> None:
    """Drawn again and again until the dry run is done; a run may be started meanwhile."""
    with components.errors_in_words():
        estimate = jobs.estimate(store, *asked)
        if estimate.found:
            first, colon, rest = forecast.in_words(estimate.found).partition(": ")
            st.markdown(f"**{components.plain(first)}**{components.plain(colon + rest)}")
            for sentence in forecast.warnings(estimate.found):
                st.warning(components.plain(sentence), icon=":material/memory:")
            st.caption(components.plain(" ".join(estimate.found.notes)))
        elif estimate.state == "failed":
            st.warning(components.plain(estimate.said), icon=":material/timer_off:")
            if st.button("Estimate again", icon=":material/refresh:"):
                jobs.estimate(store, *asked, again=True)
                st.rerun()
        else:
            said = estimate.said or "Trying out a few steps on this machine. You need not wait for it."
            st.caption(f":material/hourglass_top: {components.plain(said)}")
        if was_on_its_way and not estimate.is_on_its_way:
            st.rerun()  # the whole page once more: no timer


# ---- the queue


def _queue(store: Store) -> None:
    waiting = jobs.active(store)
    if not waiting:
        return
    names = {run.id: run.name for run in store.runs()}
    st.subheader("Running and waiting", anchor=False)
    for job in waiting:
        place = store.queue_position(job.run, job.policy)
        with st.container(border=True, horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(
                f"**{components.plain(names[job.run] if job.run else f'Policy {job.policy}')}** "
                f"{components.badge(job.status)}" + (f" number {place} in the queue" if place else "")
            )
            if st.button("Watch", key=f"watch-{job.id}", icon=":material/monitoring:"):
                if job.policy:
                    state.session().policy = job.policy
                    st.switch_page("views/policy.py")
                components.show_run(str(job.run))
                st.switch_page("views/watch.py")


page()
