"""What came of a policy, in sentences, and the README.md that travels with its model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sentences(facts: Mapping[str, Any]) -> list[str]:
    """facts: of policy.json."""
    settings, after = facts["settings"], facts["after"]
    n = after["kl"]["prompts"]
    found = []
    for name, change in facts["changes"]["members"].items():
        found.append(f"{name}: the reward of responses to {n:,} held-out prompts changed by {_with_interval(change)}.")
    if change := facts["changes"]["judge"]:
        up = facts["changes"]["members"] and all(
            c["low"] is not None and c["low"] > 0 for c in facts["changes"]["members"].values()
        )
        said = _verdict(change, up)
        found.append(f"The judge {settings['judge']}, which was not trained against: {_with_interval(change)}. {said}")
    elif facts["changes"]["members"] and settings["method"] in ("rloo", "grpo"):
        found.append(
            "No judge was named, so nothing tells whether the reward gained is more than the reward model's own taste."
        )
    kl = after["kl"]
    se = f" (standard error {kl['se']:.2f})" if kl["se"] is not None else ""
    found.append(f"The policy is {kl['mean']:.2f} nats{se} a response from the model it began with.")
    before = facts["before"]
    found.append(
        f"Length {before['length']:.0f} to {after['length']:.0f} tokens; ended {before['ended']:.0%} to {after['ended']:.0%}; "
        f"different two-word sequences {before['distinct']:.0%} to {after['distinct']:.0%}."
    )
    if facts["ended_because"]:
        found.append(f"It ended after {facts['steps']:,} of {settings['steps']:,} steps: {facts['ended_because']}")
    return found


def of_policy(facts: Mapping[str, Any], model: Path) -> str:
    settings = facts["settings"]
    adapter = (model / "adapter_config.json").exists()
    auto = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    package = "peft" if adapter else "transformers"
    base = settings["base_model"]
    hub = "" if base.startswith((".", "/", "~")) else f"base_model: {base}\n"
    alarms = "\n".join(f"- {alarm['sentence']}" for alarm in facts["alarms"]) or "- none"
    used = "\n".join(f"- `{name}`: `{value}`" for name, value in settings.items() if value != "")
    said = "\n".join(f"- {sentence}" for sentence in facts["sentences"])
    what = "A LoRA adapter (peft)" if adapter else "A plain transformers model"
    members = ", ".join(f"`{name}`" for name in facts["changes"]["members"]) or "none"
    return f"""---
library_name: {package}
pipeline_tag: text-generation
{hub}tags: [trl, {settings["method"]}, self-evolved-reward-learning]
---

# Policy "{facts["name"]}"

{what}, trained from `{base}` by {settings["method"].upper()} (trl {facts["versions"]["trl"]}) with SER Studio
{facts["versions"]["ser-studio"]}, {facts["steps"]:,} steps. Reward models: {members}.

## What came of it
{said}

A reward model stands in for people's labels; a reward that rises says that responses please it, not that people agree.
KL: {facts["kl_estimator"]}, at temperature {settings["temperature"]:g}.

## Alarms while training
{alarms}

## Use
```python
from {package} import {auto}
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("model")
model = {auto}.from_pretrained("model")
```
A prompt is put with the tokeniser's chat template if it has one, else as the prompt and a blank line.

## Data
{facts["data"]["train"]:,} prompts of {facts["data"]["prompts"]}, {facts["data"]["heldout"]:,} more held out;
{facts["data"]["n_examples"]:,} preference examples.

## Settings
{used}
"""


def _with_interval(change: Mapping[str, Any]) -> str:
    if change["low"] is None:
        return "one prompt only, so no interval" if change["mean"] is None else f"{change['mean']:+.3f} (one prompt)"
    return f"{change['mean']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f}, n = {change['prompts']:,} prompts)"


def _verdict(change: Mapping[str, Any], up: bool) -> str:
    if change["low"] is None or not up:
        return ""
    if change["low"] > 0:
        return "It confirms the gain."
    if change["high"] < 0:
        return "It goes down while the reward goes up: the reward model was exploited."
    return "It does not tell a difference, so the gain is not confirmed."
