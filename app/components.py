"""Parts that several pages share: heads, badges, pair cards, tables, and facts put into words. Decides nothing."""

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import state
import streamlit as st
import who

from ser_backend import pairs
from ser_backend.alarms import Alarm
from ser_backend.errors import Forbidden, SerError
from ser_backend.health.checks import WORST_FIRST, Check, in_words, worst
from ser_backend.records import ACTIVE, Dataset, Problem, Round, Run, Status
from ser_backend.report import in_force
from ser_backend.store import DatabaseTrouble, Store
from ser_backend.votes_file import defused

ROLE_NAMES = {"seed": "Seed", "pool": "Pool", "heldout": "Held-out"}
ROLE_HELP = {
    "seed": "Pairs with a human preference. The first model learns from them; a few hundred are enough to begin.",
    "pool": "Pairs to be labelled by the model. Labels in the source, if there are any, are dropped.",
    "heldout": "Pairs with a human preference that are only used to measure accuracy.",
}
STATUS = {
    Status.QUEUED: ("waiting", ":material/schedule:", "gray"),
    Status.RUNNING: ("running", ":material/play_circle:", "blue"),
    Status.STOPPING: ("stopping", ":material/pending:", "orange"),
    Status.STOPPED: ("stopped", ":material/stop_circle:", "gray"),
    Status.SUCCEEDED: ("finished", ":material/check_circle:", "green"),
    Status.FAILED: ("failed", ":material/error:", "red"),
}
OUTCOMES = {
    "ok": ("fine", ":material/check_circle:", "green"),
    "warning": ("warning", ":material/warning:", "orange"),
    "failed": ("failed", ":material/error:", "red"),
    "skipped": ("skipped", ":material/remove:", "gray"),
}
TABLE_ROWS = 100
LOG_BYTES, LOG_LINES = 16_000, 60
MOST_ALARMS = 3  # more are folded

STYLE = """<style>
.stMainBlockContainer { max-width: 1240px; padding-top: 4rem; padding-bottom: 3rem; }
.stMainBlockContainer h1 { padding: 0 0 .15rem; }
.st-key-corner { position: fixed; top: .6rem; right: 3.4rem; width: auto; z-index: 999991; }
.st-key-corner button { color: inherit !important; }
.st-key-corner button p { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 6rem; }
.st-key-door { max-width: 400px; margin: 9vh auto 0; }
button[data-variant][data-selected="true"] { color: inherit !important; font-weight: 600; }
.st-key-charts [data-testid="stColumn"] { min-width: min(350px, 100%); }
.ser-pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: .6rem .8rem; }
.ser-desk { height: clamp(320px, calc(100vh - 372px), 900px); grid-template-rows: fit-content(36%) minmax(0, 1fr); }
.ser-prompt { grid-column: 1 / -1; }
.ser-pane {
  display: flex; flex-direction: column; min-height: 0; border-radius: .5rem; padding: .55rem .8rem .65rem;
  border: 1px solid color-mix(in srgb, currentColor 18%, transparent);
}
.ser-prompt { background: color-mix(in srgb, currentColor 5%, transparent); }
.ser-name { font-size: .78rem; font-weight: 600; opacity: .72; padding-bottom: .2rem; flex: none; }
.ser-text { white-space: pre-wrap; overflow-wrap: anywhere; overflow: auto; min-height: 0; line-height: 1.5; }
.ser-card .ser-text { max-height: 11rem; font-size: .93rem; }
.ser-better { border-color: #2F86C6; box-shadow: inset 3px 0 0 #2F86C6; }
</style>"""


@st.cache_resource(show_spinner=False)
def _store_of(where: str) -> Store:
    return Store.open()


def any_store() -> Store:
    """One handle for all sessions (and one for each data folder, which matters to tests only); it acts for nobody."""
    from ser_backend import home

    return _store_of(str(home.home()))


def open_store() -> Store:
    """The store, acting for whoever is signed in; for nobody in particular, who may do all, where there are no users.

    Reads anew who that is: a button's callback runs before the frame does. Raises Forbidden.
    """
    store = any_store()
    if not who.known(store):
        raise Forbidden("Nobody is signed in here any more, so nothing was done. Sign in, then do it again.")
    return store.acting(state.session().user)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """A SerError is a sentence for the user: show it as it stands."""
    try:
        yield
    except SerError as error:
        st.error(plain(str(error)), icon=":material/error:")
    except DatabaseTrouble as error:
        sentence = f"The database did not answer ({str(error).splitlines()[0]}). Check the disk, then reload the page."
        st.error(plain(sentence), icon=":material/error:")


def plain(text: str) -> str:
    """Text for a place that reads Markdown, to be shown as it is."""
    text = re.sub(r"(?i)www(?=\.)|:(?=//)", "\\g<0>\u2060", text)  # a word joiner: or addresses become links
    return re.sub(r"([\\`*_\[\]<>$~:#|])", r"\\\1", text)


def head(question: str, line: str) -> "st.delta_generator.DeltaGenerator":
    """The question a page answers and its state in one line; returns the place of the primary action."""
    left, right = st.columns([6, 4], vertical_alignment="bottom")
    with left:
        st.title(question, anchor=False)
        st.markdown(line)
    return right.container(horizontal=True, horizontal_alignment="right")


def nothing_yet(sentence: str, page: str | None = None, label: str = "") -> None:
    """An empty state: what is missing and where to get it."""
    with st.container(border=True):
        st.markdown(sentence)
        if page and who.may_open(page):
            st.page_link(page, label=label, icon=":material/arrow_forward:")


# ---- runs


def badge(status: Status) -> str:
    """Markdown of a status: icon, word and colour."""
    word, icon, colour = STATUS[status]
    return f":{colour}-badge[{icon} {word}]"


def run_picker(store: Store) -> Run | None:
    """The run that this session looks at; ?run=... in the address names it too. None when there is none yet."""
    runs = {run.id: run for run in store.runs()}
    if not runs:
        return None
    session = state.session()
    wanted = session.run or st.query_params.get("run", "")
    # set anew each time: on another page this is another widget, which would begin with the newest run
    st.session_state[state.RUN_PICKER] = wanted if wanted in runs else next(iter(runs))

    def label(run_id: str) -> str:
        run = runs[run_id]
        return f"{run.name} · {when(run.created_at)} · {run.id}"

    session.run = st.selectbox(
        "Run",
        list(runs),
        format_func=label,
        key=state.RUN_PICKER,
        label_visibility="collapsed",
        on_change=lambda: show_run(st.session_state[state.RUN_PICKER]),
    )
    st.query_params["run"] = session.run
    return runs[session.run]


def show_run(run_id: str) -> None:
    """Make this the run that the pages show."""
    state.session().run = run_id
    st.session_state.pop(state.RUN_PICKER, None)


def is_active(run: Run) -> bool:
    return run.status in ACTIVE


# ---- pairs and problems


def pair_html(prompt: str, left: str, right: str, names: tuple[str, str], kind: str, better: str = "") -> str:
    """Prompt over two equal panes. The texts are escaped: nothing in them is markup, and none of it is changed.

    kind: "desk" fills the height of the window and scrolls inside, "card" is short. better: "left", "right" or "".
    """
    shown = [f'<div class="ser-pair ser-{kind}">']
    if prompt:
        shown.append(_pane("Prompt", prompt, "ser-prompt"))
    shown.append(_pane(names[0], left, "ser-better" if better == "left" else ""))
    shown.append(_pane(names[1], right, "ser-better" if better == "right" else ""))
    return "".join(shown) + "</div>"


def _pane(name: str, text: str, kind: str) -> str:
    return (
        f'<div class="ser-pane {kind}"><div class="ser-name">{html.escape(name)}</div>'
        f'<div class="ser-text" dir="auto">{html.escape(text)}</div></div>'
    )


def problem_table(problems: Sequence[Problem]) -> None:
    st.dataframe(
        [{"row": p.row, "field": p.field, "reason": p.message, "as it stood": defused(p.raw)} for p in problems],
        hide_index=True,
        column_config={
            "row": st.column_config.NumberColumn(width=60, help="Line of a text file, record number of a table."),
            "field": st.column_config.TextColumn(width=110),
            "reason": st.column_config.TextColumn(width="large"),
            "as it stood": st.column_config.TextColumn(width="medium"),
        },
    )


def problems_of(dataset: Dataset, key: str) -> None:
    """The rejected rows of a data set: the first hundred as a table, all of them as a file."""
    found = pairs.problems(dataset.id, TABLE_ROWS)
    problem_table(found)
    if dataset.n_problems > len(found):
        st.caption(f"The first {len(found):,} of {dataset.n_problems:,}; the file holds all.")
    path = pairs.export_problems(dataset.id)
    st.download_button(
        f"Download {dataset.n_problems:,} rejected rows",
        path.read_bytes,
        file_name=f"{dataset.name}-rejected.jsonl",
        mime="application/jsonl",
        icon=":material/download:",
        on_click="ignore",
        key=key,
    )


# ---- the doctor


def doctor_card(parts: Sequence[tuple[str, Sequence[Check]]]) -> None:
    """What the doctor found, trouble first and with its remedy; folded unless a check failed. parts: title and checks."""
    made = [check for _, checks in parts for check in checks]
    found = worst(made)
    _, icon, _ = OUTCOMES[found]
    with st.expander(f"Doctor: {in_words(made)}", icon=icon, expanded=found == "failed"):
        for title, checks in parts:
            if checks:
                st.markdown(f"**{title}**")
            for check in sorted(checks, key=lambda check: WORST_FIRST.index(check.outcome)):
                word, icon, colour = OUTCOMES[check.outcome]
                badge = f":{colour}-badge[{icon} {word}]"
                st.markdown(f"{badge} **{plain(check.title)}** {plain(check.found)}")
                if check.remedy:
                    st.caption(f"What to do: {plain(check.remedy)}")


def alarm_list(found: Sequence[Alarm]) -> None:
    """One line an alarm, folded when they are many; nothing where there is none."""
    if not found:
        return
    lines = [f":orange[:material/warning:] {plain(alarm.sentence)}" for alarm in found]
    folded = len(found) > MOST_ALARMS
    place = (
        st.expander(f"{count(len(found), 'alarm')}: look before you go on", icon=":material/warning:")
        if folded
        else st.container(border=True, gap="small")
    )
    with place:
        for line in lines:
            st.markdown(line)


# ---- facts in words


def when(iso: str) -> str:
    """Local time of an ISO time stamp, to the minute."""
    return datetime.fromisoformat(iso).astimezone().strftime("%d %b %H:%M")


def duration(seconds: float) -> str:
    """'40 s', '3 min', '2 h 05 min'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(n: int, one: str, many: str = "") -> str:
    """'1 pair', '1,200 pairs'."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def points(difference: tuple[float, float, float]) -> str:
    """A difference of accuracies with its interval, in percentage points."""
    value, low, high = (100 * x for x in difference)
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


def outcome(rounds: Sequence[Round]) -> str | None:
    """ "better", "worse" or "open" for the model in force against the control; None before the first round."""
    if len(rounds) < 2:
        return None
    model, is_control = in_force(rounds)
    if is_control or not model.index or model.difference is None:
        return "open"
    _, low, high = model.difference
    return "better" if low > 0 else "worse" if high < 0 else "open"


def log_end(path: Path, nothing: str) -> None:
    """The last lines of a worker's log, and where it lies."""
    if not path.exists():
        st.caption(nothing)
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    st.code("\n".join(lines), language=None, height=320)
    st.caption(plain(str(path)))
