"""The review desk on the page: a component of ours, and what it sends.

Streamlit's own widgets cannot show the next pair before the server has answered, scroll two panes together or tell a held
key from a struck one; so the pair and the keys live in the browser (desk.js). Texts go there as plain trees
(app/reading), never as markup. What the browser sends is a list of entries, each named by an id; it sends an entry again
until the server has named it done, so taking one twice changes nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import reading
import streamlit as st

from ser_backend import review
from ser_backend.errors import SerError, StaleVote, TooFast
from ser_backend.records import Asked, Guidelines, Response, Review, Run, Verdict
from ser_backend.review import Desk, Mix
from ser_backend.store import Store

HERE = Path(__file__).parent
AHEAD = 4  # pairs the browser has beside the one on the desk
VERDICTS = ("left", "right", "tie", "both_good", "both_bad", "skip")
LONGEST_REASON = LONGEST_TOKEN = 200
LONGEST_ID = 40
LARGEST = 2**31 - 1  # of an integer column
FOLDED = (reading.LIMIT, 100_000, 1_500_000)  # characters of a response: at first, after "show more", after another
IN_WORDS: Mapping[str, str] = {
    "left": "left is better",
    "right": "right is better",
    "tie": "tie",
    "both_good": "both good",
    "both_bad": "both bad",
    "skip": "skipped",
}
UNDECIDED = 0.05  # of reward; sigmoid gives it less than 51.3 %
SUREST = 0.99  # said of a model; temperatures rest on few labels
NOTHING_COUNTED = (
    "Your last answer had not been counted, so there is nothing to undo. Undo again for the one before it."
)
HINT = "What the model thinks is shown after your answer."

_component = st.components.v2.component(
    "ser_desk",
    html='<div id="desk"></div>',
    css=(HERE / "desk.css").read_text(),
    js=(HERE / "words.js").read_text() + (HERE / "desk.js").read_text(),
)


@dataclass(slots=True)
class AtDesk:
    """What a session remembers of the desk; nothing that matters is lost with it."""

    showings: dict[str, Any] = field(default_factory=dict)  # by token: those handed out to this tab
    done: deque[str] = field(default_factory=lambda: deque(maxlen=400))  # ids of entries that were taken
    asked: Asked = "mixed"  # the queue that is open
    mix: Mix | None = None
    last: str = ""  # one sentence on the last entry
    trouble: bool = False  # the sentence says that something was refused
    changeable: int | None = None  # id of the review that one may change one's mind about
    name: str = ""  # of run, person and queue
    waits: bool = False  # nothing to show now, but perhaps soon
    looked: float = 0.0  # time.monotonic() when that was found out
    refused: bool = False  # the last answer was not counted, so there is nothing of it to undo
    front: str = ""  # token of the pair to be shown at once, told to the browser once
    first: str = ""  # the same, for as long as it waits for its answer
    unfolded: dict[str, int] = field(default_factory=dict)  # token -> how often "show more" was asked for


class Shown(Protocol):
    """One showing of one pair: a review's (review.Presentation), or another's whose desk looks like this one."""

    token: str
    left_is: str
    pair: Any  # has an id
    left: Response
    right: Response


def mount(
    at: AtDesk,
    shown: Sequence[Shown],
    name: str,
    progress: str,
    empty: str,
    guidelines: Guidelines | None,
    on_entries: Callable[[], None],
    key: str = "desk",
    verdicts: Sequence[str] | None = None,
    hint: str = HINT,
) -> None:
    """Draw the desk. name: of run, person and queue. progress: one line. empty: what to say when there is no pair.

    verdicts: the only answers that are offered, without how much better and without a change of mind; None: all.
    hint: what stands where the last answer's outcome will be.
    """
    at.showings |= {one.token: one for one in shown}
    at.name = name
    _component(
        key=key,
        data={
            "key": name,
            "pairs": [_pair(at, one) for one in shown],
            "done": list(at.done),
            "last": at.last,
            "trouble": at.trouble,
            "changeable": at.changeable,
            "front": at.front,
            "progress": progress,
            "empty": empty,
            "verdicts": verdicts and list(verdicts),
            "hint": hint,
            "guidelines": guidelines
            and {"version": guidelines.version, "nodes": _bare(reading.rendered(guidelines.text))},
        },
        on_entries_change=on_entries,
    )
    at.front = ""


def _pair(at: AtDesk, shown: Shown) -> dict[str, Any]:
    size = min(at.unfolded.get(shown.token, 0), len(FOLDED) - 1)
    return {
        "token": shown.token,
        "size": size,
        "most": size == len(FOLDED) - 1,
        "view": _view(shown.pair.id, shown.left_is, size, shown),
    }


@st.cache_data(show_spinner=False, max_entries=200)
def _view(pair: str, left_is: str, size: int, _shown: Shown) -> dict[str, Any]:
    """A rerun sends the same pairs again; reading them is most of its time."""
    seen: dict[str, Any] = _bare(
        reading.view(_shown.left.prompt, _shown.left.text, _shown.right.text, limit=FOLDED[size])
    )
    return seen


def _bare(node: Any) -> Any:
    """Without the originals of stand-ins: the browser does not need them, and a lone surrogate cannot travel."""
    if isinstance(node, list):
        return [_bare(one) for one in node]
    if isinstance(node, dict):
        return {key: _bare(value) for key, value in node.items() if key != "o"}
    return node


# ---- what comes back


def take(at: AtDesk, store: Store, desk: Desk, annotator: str, entries: Sequence[Mapping[str, Any]]) -> None:
    """Do what the browser asks, each entry once. store: acts for the person."""
    acts = {"vote": _vote, "undo": _undo, "change": _change}
    each_once(at, entries, {kind: partial(act, at, store, desk, annotator) for kind, act in acts.items()})


def each_once(at: AtDesk, entries: Sequence[Mapping[str, Any]], acts: Mapping[str, Callable[[Any], None]]) -> None:
    """What to do for an entry of a kind: `acts`, which set at.last or raise SerError; "more" is done here."""
    for entry in entries:
        if not isinstance(entry, Mapping) or (name := str(entry.get("id"))[:LONGEST_ID]) in at.done:
            continue
        kind, elsewhere = entry.get("kind"), entry.get("desk") not in (None, at.name)
        if kind == "alive" or (elsewhere and kind in ("undo", "change")):  # meant for another run's desk, or for none
            at.done.append(name)
            continue
        at.last, at.trouble = "", False
        try:
            if kind in acts:
                acts[kind](entry)
            elif kind == "more":
                token = str(entry.get("of"))
                at.unfolded[token] = at.unfolded.get(token, 0) + 1
        except SerError as error:
            at.last, at.trouble = str(error), True
            at.refused = kind == "vote"
        else:
            at.refused = False
        at.done.append(name)


def _vote(at: AtDesk, store: Store, desk: Desk, annotator: str, entry: Mapping[str, Any]) -> None:
    token, verdict = str(entry.get("token")), entry.get("verdict")
    if verdict not in VERDICTS:
        raise SerError("The page sent an answer that is none. Reload it.")
    shown = at.showings.get(token) or desk.handed_out(annotator, token)
    try:
        if shown is None:
            raise StaleVote("The time for that pair had run out, so this vote was not counted. The next pair is shown.")
        answered = review.vote(
            store,
            shown,
            verdict,
            str(entry.get("reason") or "")[:LONGEST_REASON],
            strength=2 if entry.get("strength") == 2 else None,
            flagged=bool(entry.get("flagged")),
            note=str(entry.get("note") or ""),
            seen_ms=whole_number(entry.get("seen_ms")),
            active_ms=whole_number(entry.get("active_ms")),
            guidelines=whole_number(entry.get("guidelines")) or 0,
        )
    except TooFast:
        at.front = at.first = token
        raise
    except StaleVote:
        before = next((r for r in reversed(desk.answers.refresh().rows) if r.token == token), None)
        if before is None or before.annotator != annotator:
            raise
        if before.verdict != verdict:  # the same verdict came twice because the first answer's receipt was lost
            raise StaleVote(
                f"You answered this pair in another tab ({IN_WORDS[before.verdict]}), so this vote was not counted."
            ) from None
        answered = before
    at.showings.pop(token, None)
    at.changeable = answered.id if _changeable(store, answered) else None
    at.last = revealed(store, desk, answered, shown.why if shown else "")


def _undo(at: AtDesk, store: Store, desk: Desk, annotator: str, entry: Mapping[str, Any]) -> None:
    if at.refused:
        at.last = NOTHING_COUNTED
        return
    # named by the entry: after a reload it may come again, and must not withdraw a second answer
    name = f"undo {desk.run.id} {len(annotator)} {annotator} {entry.get('id')}"
    withdrawn = review.undo(store, desk.run.id, annotator, name[:LONGEST_TOKEN])
    at.changeable = None
    if withdrawn is None:
        at.last = "There is no answer of yours to undo."
        return
    if again := desk.hand_out_again(annotator, withdrawn, at.asked, store):
        at.showings[again.token] = again
        at.front = at.first = again.token
    rounds = review.rounds_trained(store, withdrawn)
    at.last = f"Undone: {IN_WORDS[withdrawn.verdict]}."
    if rounds:
        names = ", ".join(str(index) for index in rounds)
        at.last += f" Round{'s' * (len(rounds) > 1)} {names} had learnt from it; the next round will not."


def _change(at: AtDesk, store: Store, desk: Desk, annotator: str, entry: Mapping[str, Any]) -> None:
    rows = desk.answers.refresh().rows
    done = next((r for r in rows if r.token == f"change-{entry.get('of')}" and r.annotator == annotator), None)
    if done is not None:  # the receipt was lost with a reload or a server
        at.last = f"Changed to: {IN_WORDS[done.verdict]}. Your first, blind answer is kept beside it."
        return
    mine = (r for r in desk.answers.standing if r.id == entry.get("of") and r.annotator == annotator)
    before = next((r for r in mine if _changeable(store, r)), None)
    if before is None:
        raise StaleVote("That answer was changed or undone already, so nothing was changed.")
    other = _other(desk, before)
    if other is None:
        raise SerError("There is no other side to change to. Undo the answer instead.")
    changed = review.change_mind(store, before, other)
    at.changeable = changed.id
    at.last = f"Changed to: {IN_WORDS[other]}. Your first, blind answer is kept beside it."


def _other(desk: Desk, answered: Review) -> Verdict | None:
    """What a changed mind means: the other side, or after a tie the side that was revealed. None where there is none."""
    if answered.verdict in ("left", "right"):
        return "right" if answered.verdict == "left" else "left"
    if answered.queue == "adjudicate":
        return None
    if answered.queue == "seed":
        return None if not answered.self_label else "left" if answered.self_label == answered.left_is else "right"
    return _leaning(desk, answered)[0]


def revealed(store: Store, desk: Desk, answered: Review, why: str = "") -> str:
    """What may be told after the vote: what the model thinks, how sure it is, and why this pair was shown."""
    said = f"{IN_WORDS[answered.verdict].capitalize()}."
    if not _may_see(store):
        return said
    side, sure = _leaning(desk, answered)
    if answered.queue in ("seed", "gold"):
        if answered.self_label:
            gold = "left" if answered.self_label == answered.left_is else "right"
            said += f" The seed's label says {gold}{_agreeing(answered, gold)}."
    elif answered.queue == "adjudicate":
        others = (r for r in desk.answers.refresh().standing if r.pair == answered.pair and r.id != answered.id)
        said += " " + ", ".join(f"{r.annotator}: {_seen_from(answered, r)}" for r in others) + "."
    else:
        if answered.self_label:
            label = "left" if answered.self_label == answered.left_is else "right"
            said += f" The self-label of round {answered.round} says {label}{_agreeing(answered, label)}."
        said += (
            " The model was undecided."
            if abs(answered.margin) < UNDECIDED
            else f" The model leant {side}, by {abs(answered.margin):.2f} of reward ({_percent(sure)} sure)."
        )
    return said + (f" Shown because: {why}." if why else "")


def _agreeing(answered: Review, side: str) -> str:
    if answered.verdict not in ("left", "right"):
        return ""
    return ": you agree" if answered.verdict == side else ": you disagree"


def _seen_from(answered: Review, other: Review) -> str:
    """Another's verdict in the sides that this person saw."""
    if other.verdict not in ("left", "right") or other.left_is == answered.left_is:
        return IN_WORDS[other.verdict]
    return IN_WORDS["right" if other.verdict == "left" else "left"]


def _changeable(store: Store, answered: Review) -> bool:
    """Whether the person is told what the model thinks, and so may think again."""
    return _may_see(store) and answered.verdict != "skip" and answered.queue != "gold"


def _leaning(desk: Desk, answered: Review) -> tuple[Verdict, float]:
    side: Verdict = "left" if (answered.margin > 0) == (answered.left_is == "a") else "right"
    temperature = desk.details.get("model_temperature") or 1.0
    return side, 1 / (1 + math.exp(-abs(answered.margin) / temperature))


def _percent(sure: float) -> str:
    """A handful of labels shows no certainty."""
    return f"over {SUREST:.0%}" if sure > SUREST else f"{sure:.0%}"


def _may_see(store: Store) -> bool:
    return store.may("see_rewards")


def whole_number(value: Any) -> int | None:
    """What a browser sent as one, for a column of the store."""
    return int(min(max(0, value), LARGEST)) if isinstance(value, int | float) and math.isfinite(value) else None


def name_of(run: Run, annotator: str, queue: str) -> str:
    return f"{run.id}/{annotator}/{queue}"
