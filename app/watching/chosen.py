"""How a round chose its pairs: step by step, by which tests or certificate, and whether it held up."""

from collections.abc import Mapping

import charts
import components
import streamlit as st
from picture import show_figure

from ser_backend import alarms, checked, funnel, report, terms
from ser_backend.records import Interval, Round, Run
from ser_backend.run_folder import RunFolder

NEWEST = "newest"
WORDS = ("open", "kept", "certified", "random check", "in force")
VERDICT_HELP = (
    "Judged by people's training labels only, each by a model that never saw it, so that the held-out pairs stay untouched. "
    "A round that does not hold up is rolled back."
)
RULES = {
    "all": "every pair in which the model prefers one response",
    "confident": "those of which it was sure enough",
    "more confident than the mean": "those of which it was surer than of the pool on average",
}


def pick(run: Run, rounds: list[Round], name: str, seed_too: bool = False) -> Round:
    """The round that a part of the page shows; the newest goes along with the run."""
    known = [r for r in rounds if r.index or seed_too]
    picked: int | str = NEWEST
    if len(known) > 1:
        options = [NEWEST, *(r.index for r in known)]
        words = {0: "0 (seed model)"}
        picked = st.segmented_control(
            "Round",
            options,
            default=NEWEST,
            required=True,
            key=f"{name}-{run.id}",
            format_func=lambda index: words.get(index, str(index)),
        )
    return known[-1] if picked == NEWEST else next(r for r in known if r.index == picked)


def draw(run: Run, rounds: list[Round], folder: RunFolder, audited: Mapping[int, Interval]) -> None:
    if not any(r.index for r in rounds):
        st.caption("The first self-labelling round is not finished yet.")
        return
    method = run.config.get("method", "paper")
    round_ = pick(run, rounds, "picture")
    left, right = st.columns(2)
    steps = funnel.funnel(round_, _n_pool(folder, round_), method)
    show_figure(charts.funnel(steps), "funnel", left)
    before = _earlier(run, rounds, audited) if round_ is rounds[-1] else ""
    words = components.plain(funnel.in_words(steps, audited.get(round_.index), before))
    left.caption(words, help=terms.tooltip(*WORDS))
    with right:
        _verdicts(rounds)
    if method == "calibrated":
        _certified(rounds, round_, audited)
    else:
        picture = folder.picture(round_.index)
        left, right = st.columns(2)
        show_figure(charts.zones(picture, run.config), "zones", left)
        show_figure(charts.gaps(picture, run.config), "gaps", right)
        st.caption(components.plain(_selection(round_, run)))
    left, right = st.columns(2)
    show_figure(charts.kept(rounds, method == "paper"), "kept", left)
    if method == "calibrated" and any(r.n_kept for r in rounds):
        show_figure(charts.precision(rounds, audited), "precision", right)


def _earlier(run: Run, rounds: list[Round], audited: Mapping[int, Interval]) -> str:
    standing = {r.index for r in alarms.standing(rounds, run.config)}
    return checked.earlier_in_words(checked.earlier(audited, standing))


def _n_pool(folder: RunFolder, round_: Round) -> int:
    counts = (folder.json("data") or {}).get("counts") or {}
    return int(counts.get("pool_pairs", round_.n_pool))


def _certified(rounds: list[Round], round_: Round, audited: Mapping[int, Interval]) -> None:
    """What a calibrated round claims of its labels, what that rests on, and whether it is true."""
    if sentence := report.claim(round_, audited.get(round_.index)):
        st.markdown(components.plain(sentence))
    if report.shares_nothing(round_):
        st.info(components.plain(report.NOTHING_SHARED), icon=":material/info:")
    left, right = st.columns(2)
    show_figure(charts.confidence(round_.details), "confidence", left)
    show_figure(charts.reliability(round_.details), "reliability", right)
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
