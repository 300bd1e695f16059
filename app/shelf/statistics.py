"""What one data set holds, before a run uses it: warnings first, then every figure with what it means."""

import charts
import components
import streamlit as st
from picture import show_figure

from ser_backend import profile
from ser_backend.pairs import PairSet
from ser_backend.profile import Finding, Profile, apart
from ser_backend.records import Dataset
from ser_backend.votes_file import defused

TOKENS = 512  # that a run reads by default
LOOK_AT = {
    "same": "one text twice",
    "near": "repeats an earlier pair",
    "contradiction": "contradicts another pair",
}
USES = {
    "seed": "training on this set",
    "pool": "labelling this set and training on it",
    "heldout": "measuring by this set",
}
NAME_WIDTH = 160  # pixels


@st.cache_resource(show_spinner=False, max_entries=32)
def _known(dataset_id: str, at: str) -> list[Profile]:
    """In a list that is filled once it is known: a stored set never changes. at: of which installation."""
    found = profile.known(dataset_id)
    return [found] if found else []


def known(dataset: Dataset) -> Profile | None:
    kept = _known(dataset.id, dataset.created_at)
    if not kept and (found := profile.known(dataset.id)):
        kept.append(found)
    return kept[0] if kept else None


def badge(dataset: Dataset) -> str:
    """How many warnings there are, as Markdown; "" where there is none or nothing was counted yet."""
    found = known(dataset)
    n = sum(one.level == "warning" for one in profile.findings(found, dataset.role)) if found else 0
    return f":orange-badge[:material/warning: {components.count(n, 'warning')}]" if n else ""


def statistics(dataset: Dataset) -> None:
    """Folded; what is in it is drawn only when it is opened."""
    # one label whatever was found: with another the fold would close under the reader's hand
    with st.expander(
        "Statistics", icon=":material/bar_chart:", key=f"statistics-{dataset.id}", on_change="rerun"
    ) as opened:
        if not opened.open:
            return
        found = known(dataset) or _count(dataset)
        if found:
            _all(dataset, found)


def _count(dataset: Dataset) -> Profile | None:
    large = dataset.n_pairs > profile.AT_ONCE
    if large:
        seconds = dataset.n_pairs / profile.PAIRS_A_SECOND
        st.markdown(
            f"To count {dataset.n_pairs:,} pairs takes about {components.duration(seconds)}; every text is read once, a "
            "batch at a time, and the result is kept."
        )
        if not st.button("Count now", icon=":material/calculate:", key=f"count-{dataset.id}"):
            return None
    bar = st.progress(0.0, "Reading the texts ...")
    found = (apart.counted if large else profile.profile)(
        dataset.id, lambda done, n: bar.progress(done / n, f"Reading the texts: {done:,} of {n:,} responses")
    )
    bar.empty()
    _known.clear(dataset.id, dataset.created_at)
    return found


def _all(dataset: Dataset, found: Profile) -> None:
    told = profile.findings(found, dataset.role)
    warnings = [one for one in told if one.level == "warning"]
    for one in warnings:
        _finding(one, ":orange[:material/warning:] ")
    if not warnings:
        st.markdown(f":green[:material/check_circle:] Nothing here speaks against {USES[dataset.role]}.")
    names = ["All figures", "Lengths"]
    names += ["By domain"] if len(found.domains) > 1 else []
    names += ["Personal data"] if found.personal else []
    names += ["Pairs to look at"] if (rows := _rows(found)) else []
    tabs = dict(zip(names, st.tabs(names), strict=True))
    with tabs["All figures"]:
        fine = [one for one in told if one.level != "warning"]
        half = (len(fine) + 1) // 2
        for column, part in zip(st.columns(2), (fine[:half], fine[half:]), strict=True):
            with column:
                for one in part:
                    _finding(one)
    with tabs["Lengths"]:
        limit = (TOKENS * profile.CHARS_A_TOKEN, f"about {TOKENS} tokens")
        show_figure(charts.lengths(found.histogram, profile.EDGES, limit), f"lengths-{dataset.id}")
        cut = ", ".join(f"{100 * share:.1f} % at {int(tokens):,}" for tokens, share in found.cut.items())
        st.caption(
            f"Prompts and responses together that are longer than a base model's max_length in tokens: {cut}. Estimated by "
            f"{profile.CHARS_A_TOKEN} characters a token, as in English."
        )
    if "By domain" in tabs:
        with tabs["By domain"]:
            _domains(dataset, found)
    if "Personal data" in tabs:
        with tabs["Personal data"]:
            _personal(found)
    if rows:
        with tabs["Pairs to look at"]:
            _look(dataset, rows)


def _finding(one: Finding, icon: str = "") -> None:
    st.markdown(f"{icon}**{one.title}.** {components.plain(one.found)}")
    st.caption(components.plain(one.meaning))


def _domains(dataset: Dataset, found: Profile) -> None:
    if found.labels is None:
        return
    shown = [
        ("all pairs", found.labels.longer),
        *((part.name or "(none named)", part.longer) for part in found.domains),
    ]
    show_figure(charts.longer_preferred(shown), f"longer-{dataset.id}")
    st.dataframe(
        [
            {
                "domain": defused(part.name) or "(none named)",
                "pairs": part.n_pairs,
                "ties": part.n_ties,
                "a preferred": str(part.a),
                "longer preferred": str(part.longer),
                "equally long": part.n_equal,
            }
            for part in found.domains
        ],
        hide_index=True,
        column_config={"domain": st.column_config.Column(pinned=True, width=NAME_WIDTH)},
    )
    if found.n_domains > len(found.domains):
        st.caption(f"The {len(found.domains)} largest of {found.n_domains:,} domains.")


def _personal(found: Profile) -> None:
    st.dataframe(
        [
            {
                "what": one.kind,
                "pairs": one.n_pairs,
                "places": one.n_places,
                "masked": example.masked,
                "file and row": defused(example.source),
            }
            for one in found.personal
            for example in one.examples
        ],
        hide_index=True,
        column_config={
            "pairs": st.column_config.NumberColumn(help="Pairs with at least one such place."),
            "places": st.column_config.NumberColumn(help="In distinct prompts and responses."),
        },
    )
    st.caption("Up to five pairs of each kind, masked. Pairs to look at shows them as they are.")


def _rows(found: Profile) -> list[tuple[int, str]]:
    rows = [(row, LOOK_AT["contradiction"]) for row in found.contradicting_rows]
    rows += [(row, LOOK_AT["same"]) for row in found.same_rows]
    rows += [(row, LOOK_AT["near"]) for row in found.near_rows]
    rows += [(example.row, one.kind) for one in found.personal for example in one.examples]
    return rows


def _look(dataset: Dataset, rows: list[tuple[int, str]]) -> None:
    source = PairSet.open(dataset.id)
    names = source.sources([row for row, _ in rows])
    chosen = st.selectbox(
        "Pair",
        range(len(rows)),
        format_func=lambda k: f"{rows[k][1]} · {names[k]}",
        key=f"look-{dataset.id}",
    )
    row = rows[chosen][0]
    (pair,) = source.pairs([row])
    said = 2 if source.role == "pool" else int(source.preferred()[row])
    better = {1: "left", -1: "right"}.get(said, "")
    names_of = (f"Response a{' · preferred' * (said == 1)}", f"Response b{' · preferred' * (said == -1)}")
    st.html(
        components.pair_html(
            pair.response_a.prompt, pair.response_a.text, pair.response_b.text, names_of, "card", better
        )
    )
