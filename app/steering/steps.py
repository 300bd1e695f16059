"""The steps of a policy's training as curves: reward and judge, the distance from the start, and what goes wrong first."""

from collections.abc import Mapping
from typing import Any

import charts
import components
import streamlit as st
from picture import show_figure

from ser_backend.policy.curves import MEMBER, Steps
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import ONLINE
from steering import known

NO_JUDGE = "No judge was named."
SAMPLED = (
    "Figures of the responses sampled in each step, to the prompts trained on; bands are 95 % intervals over prompts."
)


def draw(folder: PolicyFolder, settings: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    steps = known.steps(folder)
    if not len(steps):
        st.caption("No step is done yet.")
        return
    if settings["method"] in ONLINE:
        _online(steps, settings, labels)
    else:
        _offline(steps, settings["method"])


def _online(steps: Steps, settings: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    members = steps.members
    rewards = [(labels.get(name, name), steps.curve(f"{MEMBER}{name}")) for name in members]
    judge = labels.get(settings["judge"], settings["judge"])
    shown = [
        charts.steps("Reward", "raw reward, mean of a step", rewards, charts.REWARD),
        charts.steps(
            "Judge", "raw reward, mean of a step", [(judge, steps.curve("judge"))], charts.JUDGE, ".3f", NO_JUDGE
        ),
        charts.steps("Distance from the start model", "KL, nats a response", [("KL", steps.curve("kl"))], how=".2f"),
        charts.steps("Length", "tokens a response", [("length", steps.curve("length"))], how=".1f"),
        charts.steps("Entropy", "nats a token", [("entropy", steps.curve("entropy"))]),
        charts.steps(
            "Ends by itself, and does not repeat itself",
            "share",
            [("ends by itself", steps.curve("ended")), ("two-word sequences that differ", steps.curve("distinct"))],
            how=".0%",
        ),
    ]
    _grid(shown)
    if len(members) > 1:
        st.caption(f"{components.count(len(members), 'reward model')} are climbed together ({settings['combine']}).")
    st.caption(SAMPLED)


def _offline(steps: Steps, method: str) -> None:
    shown = [
        charts.steps("Loss", "nats a pair" if method == "dpo" else "nats a token", [("loss", steps.curve("loss"))])
    ]
    if method == "dpo":
        shown.append(
            charts.steps(
                "Pairs of a step told right", "share of pairs", [("told right", steps.curve("accuracy"))], how=".0%"
            )
        )
        shown.append(charts.steps("Margin", "chosen less rejected", [("margin", steps.curve("margin"))]))
    _grid(shown)
    st.caption(
        "Nothing is sampled while this method trains; what its responses are worth is measured before and after."
    )


def _grid(shown: list[Any]) -> None:
    with st.container(key="charts"):
        for begin in range(0, len(shown), 2):
            columns = st.columns(2) if len(shown) > 1 else [st.container()]
            for place, figure in enumerate(shown[begin : begin + 2]):
                show_figure(figure, f"steps-{begin + place}", columns[place])
