"""Where the model is wrong: its accuracy on parts of the held-out pairs, and how far it may be believed."""

import charts
import components
import streamlit as st
from picture import show_figure

from ser_backend.buckets import Heldout
from ser_backend.errors import NotFound
from ser_backend.records import Round, Run
from ser_backend.report import in_force
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from watching import known
from watching.answer import short

IN_USE = "in use"
MEASURE_ONLY = (
    "Held-out labels only measure; nothing here is asked by a run. Each bar is the 95 % interval of that part alone, so among "
    "many parts one may look bad by chance."
)
NO_MARGINS = "This round left no margins of the held-out pairs: it was run by an earlier version."


@st.fragment
def draw(store: Store, run: Run, rounds: list[Round]) -> None:
    with components.errors_in_words():
        round_, control = _pick(run, rounds)
        try:
            truth = known.truth(run.id, store)
        except NotFound as error:
            components.nothing_yet(components.plain(str(error)))
            return
        found = known.heldout(run.id, round_.index, known.stamp(RunFolder.of(run.id)), control, round_, truth)
        if found is None or not found.right.n:
            components.nothing_yet(NO_MARGINS)
            return
        st.markdown(
            f"**{'Control of round' if control else 'Model of round'} {round_.index}: {found.right}** · preferring "
            f"{found.by_length.name}: {short(found.by_length)} · {found.by_side.name}: {short(found.by_side)}"
        )
        st.caption(MEASURE_ONLY)
        rule = f"preferring {found.by_length.name}"
        left, right = st.columns(2)
        show_figure(
            charts.buckets("By how sure the model is", "|margin| of reward", found.by_margin, rule, NO_MARGINS),
            "by-margin",
            left,
        )
        show_figure(
            charts.buckets(
                "By length: the better response is ...", "characters", found.by_difference, rule, NO_MARGINS
            ),
            "by-length",
            right,
        )
        if found.by_domain:
            show_figure(charts.buckets("By domain", "", found.by_domain, rule, NO_MARGINS), "by-domain")
        _belief(found)
        with st.expander("These figures as a table", icon=":material/table_rows:"):
            st.dataframe(_rows(found), hide_index=True)


def _pick(run: Run, rounds: list[Round]) -> tuple[Round, bool]:
    """The model in use, or that of any round."""
    picked: int | str = IN_USE
    if len(rounds) > 1:
        picked = st.segmented_control(
            "Model of round",
            [IN_USE, *(r.index for r in rounds)],
            default=IN_USE,
            required=True,
            key=f"where-{run.id}",
            format_func=lambda index: {0: "0 (seed model)"}.get(index, str(index)),
        )
    return in_force(rounds) if picked == IN_USE else (rounds[int(picked)], False)


def _belief(found: Heldout) -> None:
    """Calibration on the held-out pairs, before and after the temperature."""
    before, after = found.before, found.after
    words = (
        f"How far its margins may be believed, on the held-out pairs: calibration error {_percent(before.ece.value)} "
        f"({_percent(before.ece.low)} to {_percent(before.ece.high)}, n = {before.ece.n:,}), Brier score "
        f"{before.brier:.3f}, log-loss {before.log_loss:.3f} nats"
    )
    if after:
        words += (
            f"; at the temperature {found.temperature:.2f}, found on people's training labels, {_percent(after.ece.value)} "
            f"({_percent(after.ece.low)} to {_percent(after.ece.high)}), {after.brier:.3f} and {after.log_loss:.3f}"
        )
    st.markdown(components.plain(f"{words}. Guessing has a Brier score of 0.250 and a log-loss of 0.693."))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _rows(found: Heldout) -> list[dict[str, object]]:
    parts = {"|margin|": found.by_margin, "better response": found.by_difference, "domain": found.by_domain}
    return [
        {
            "by": by,
            "part": bucket.name,
            "model": str(bucket.right),
            f"preferring {found.by_length.name}": str(bucket.by_length),
        }
        for by, buckets in parts.items()
        for bucket in buckets
    ]
