"""What came of a policy: the answer in sentences, its gain beside best of n, figures before and after, responses to read."""

from collections.abc import Mapping, Sequence
from typing import Any

import charts
import components
import reading
import streamlit as st
from picture import show_figure

from ser_backend.policy import outcome
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.outcome import Written
from steering import known

MOST_CHARACTERS = 4_000  # of a response in a card
GAIN_HELP = (
    "The best of n responses of the start model, picked by the reward, against one taken at random; n stands beside each "
    "point. It costs no training, so a trained policy is worth its time where it lies above the line at its KL."
)
FORMATS = {"reward": "+.3f", "judge": "+.3f", "kl": ".2f", "length": ".1f", "entropy": ".3f"}


def answer(folder: PolicyFolder, labels: Mapping[str, str]) -> None:
    """Of a finished policy: its sentences. Of any: its alarms."""
    policy = known.json(folder, "policy")
    if policy:
        with st.container(border=True, gap="small"):
            st.markdown("\n".join(f"- {components.plain(_named(said, labels))}" for said in policy["sentences"]))
            for note in policy["notes"]:
                st.caption(components.plain(note))
    for sentence in (known.json(folder, "alarms") or {}).values():
        st.warning(components.plain(_named(sentence, labels)), icon=":material/warning:")


def _named(sentence: str, labels: Mapping[str, str]) -> str:
    """Runs by their names."""
    for name, label in labels.items():
        sentence = sentence.replace(name, label)
    return sentence


def gain(folder: PolicyFolder, settings: Mapping[str, Any]) -> bool:
    """Best of n, and where policies are beside it. False where it is not estimated."""
    found = known.gain(folder, settings)
    if found is None:
        return False
    st.subheader("Against best of n", anchor=False, help=GAIN_HELP)
    reached = known.beside(folder, found)
    unit = "standard deviations of reward" if settings["normalise"] == "on" else "reward"
    with st.container(key="gain"):
        left, right = st.columns(2)
        show_figure(charts.gain(found["points"], reached, "reward", f"gain, {unit}"), "gain-reward", left)
        show_figure(charts.gain(found["points"], reached, "judge", "gain, judge's raw reward"), "gain-judge", right)
    st.markdown("\n".join(f"- {components.plain(sentence)}" for sentence in found["sentences"]))
    for note in found["notes"]:
        st.caption(components.plain(note))
    if (policy := known.json(folder, "policy")) and (why := outcome.incomparable(found, policy)):
        st.caption(why)
    return True


# ---- before and after


def figures(folder: PolicyFolder, labels: Mapping[str, str]) -> None:
    policy, before, after = (known.json(folder, name) for name in ("policy", "before", "after"))
    if policy is None or before is None or after is None:
        st.caption("Known when the training has ended.")
        return
    rows = outcome.rows(policy, before, after)
    st.dataframe([_row(row, labels) for row in rows], hide_index=True)
    n = after["figures"]["kl"]["prompts"]
    st.caption(
        f"Responses to the same {n:,} held-out prompts, never trained on, with the same random numbers. Changes are paired by "
        "prompt, with 95 % intervals."
    )


def _row(row: outcome.Row, labels: Mapping[str, str]) -> dict[str, str]:
    how = FORMATS.get(row.kind, "")
    what = row.what
    if row.kind in ("reward", "judge"):
        what = f"{row.kind}: {labels.get(row.what, row.what)}"
    change = ""
    if row.change and row.change["mean"] is not None:
        told = [row.change[name] for name in ("mean", "low", "high") if row.change[name] is not None]
        signed = [f"{100 * value:+.1f}" if not how else format(value, f"+{how.lstrip('+')}") for value in told]
        change = signed[0] + ("" if how else " points")
        if len(signed) > 1:
            change += f" ({signed[1]} to {signed[2]}, n = {row.change['prompts']:,})"
    before, after = (format(value, how) if how else f"{100 * value:.1f} %" for value in (row.before, row.after))
    return {"": what, "before": before, "after": after, "change": change}


# ---- responses


@st.fragment
def responses(folder: PolicyFolder, labels: Mapping[str, str]) -> None:
    with components.errors_in_words():
        found = outcome.written(known.json(folder, "before"), known.json(folder, "after"))
        if not found:
            st.caption("Responses to held-out prompts are kept before the first step and after the last.")
            return
        place = st.selectbox(
            f"One of {components.count(len(found), 'held-out prompt')}",
            range(len(found)),
            format_func=lambda place: f"{place + 1}. {_short(found[place].prompt)}",
            key=f"prompt-{folder.name}",
        )
        settings = known.json(folder, "settings")
        _side_by_side(found[place], settings["judge"], labels)


def _short(prompt: str) -> str:
    line = " ".join(prompt.split())
    return _seen(line if len(line) <= 90 else line[:90] + "...")


def _side_by_side(found: Written, judge: str, labels: Mapping[str, str]) -> None:
    for number in range(max(len(found.before), len(found.after))):
        then, now = (_at(samples, number) for samples in (found.before, found.after))
        prompt = _seen(found.prompt) if not number else ""
        texts = [_text(one) for one in (then, now)]
        names = (_name("Before", then), _name("After", now))
        st.html(components.pair_html(prompt, *texts, names, "card"))
    st.caption(
        "The same prompt, drawn with the same random numbers. "
        + (f"The judge is {components.plain(labels.get(judge, judge))}." if judge else "")
    )


def _at(samples: Sequence[Mapping[str, Any]], number: int) -> Mapping[str, Any] | None:
    return samples[number] if number < len(samples) else None


def _text(sample: Mapping[str, Any] | None) -> str:
    if sample is None:
        return "not there yet"
    text = sample["response"]
    hidden = len(text) - MOST_CHARACTERS
    return _seen(text[:MOST_CHARACTERS]) + (f"\n... {hidden:,} more characters" if hidden > 0 else "")


def _name(when: str, sample: Mapping[str, Any] | None) -> str:
    if sample is None:
        return when
    told = [f"reward {', '.join(f'{reward:+.3f}' for reward in sample['rewards'])}"] if sample["rewards"] else []
    told += [f"judge {sample['judge']:+.3f}"] if "judge" in sample else []
    return " · ".join([when, *told, f"KL {sample['kl']:.1f} nats"])


def _seen(text: str) -> str:
    """With stand-ins for what would act unseen; it is escaped where it becomes HTML."""
    return "".join(_flat(reading.raw(text)))


def _flat(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    return [node["x"] for node in nodes]
