"""The model card that travels with a reward model: Markdown with the front matter that model hubs read.

Knows how a model of each kind is loaded elsewhere; the figures it states are given to it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ser_backend import checked
from ser_backend.records import Interval, Round, Run
from ser_backend.report import accuracy_now, in_force, verdict

Kind = Literal["head", "plain", "adapter"]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # what "bundled" is called on the hub

IN_WORDS: Mapping[Kind, str] = {
    "head": "A linear Bradley-Terry reward head on the frozen base model {base}",
    "plain": "A plain transformers model with one output, {how} from the base model {base}",
    "adapter": "A LoRA adapter and a reward head (peft) for the base model {base}, which is not in this folder",
}


@dataclass(frozen=True)
class Shape:
    """What a card has to know of a model folder."""

    kind: Kind
    base_model: str
    fit: str = "head"
    max_length: int = 512
    end_token: str = ""  # that a text needs and the tokeniser does not add
    precision: str = "float32"  # in which it was trained
    name: str = "reward_model"  # of the folder

    @classmethod
    def of(cls, folder: Path, name: str = "reward_model") -> "Shape":
        """Of a folder that Classifier.save wrote."""
        facts = json.loads((folder / "reward_model.json").read_text())
        kind: Kind = "adapter" if (folder / "adapter_config.json").exists() else "plain"
        return cls(
            kind,
            facts["base_model"],
            facts["fit"],
            facts["max_length"],
            facts.get("end_token", ""),
            facts["precision"],
            name,
        )


def snippet(shape: Shape) -> str:
    """Python that rewards two responses with plain transformers (six lines) or peft."""
    end = f" + {json.dumps(shape.end_token)}" if shape.end_token else ""
    if shape.kind == "adapter":
        load = (
            "from peft import AutoPeftModelForSequenceClassification\n"
            "from transformers import AutoTokenizer\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{shape.name}")\n'
            f'model = AutoPeftModelForSequenceClassification.from_pretrained("{shape.name}", num_labels=1, '
            'dtype="float32", ignore_mismatched_sizes=True)\n'  # the base model's own head may have other outputs
            "model.config.pad_token_id = tokenizer.pad_token_id"
        )
    else:
        load = (
            "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
            f'tokenizer = AutoTokenizer.from_pretrained("{shape.name}")\n'
            f'model = AutoModelForSequenceClassification.from_pretrained("{shape.name}")'
        )
    return f"""{load}
texts = ["Why is the sea salty?" + "\\n\\n" + response{end} for response in ("Rivers carry salt into it.", "It is old.")]
inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
rewards = model(**inputs).logits[:, 0].tolist()"""


def of_run(run: Run, rounds: Sequence[Round], facts: Mapping[str, Any], counts: Mapping[str, int], shape: Shape) -> str:
    """facts: report.report(run); counts: labels by origin (export.summary)."""
    force, is_control = in_force(rounds)
    accuracy = accuracy_now(rounds)
    if not counts["self"]:
        audited = "There is no self-label in force."
    elif facts["audits"]["precision"]:
        audited = (
            f"People agreed with {Interval(**facts['audits']['precision'])} of the self-labels checked at random (exact 95 % "
            f"interval; a uniform random sample of {facts['audits']['n_kept']:,})."
        )
    else:
        before = {int(index): Interval(**one) for index, one in facts["audits"].get("earlier", {}).items()}
        audited = f"{checked.none_yet(counts['self'], before)} So their precision is not known."
    held = (
        f"the control of round {force.index}: trained on people's labels only"
        if is_control
        else f"the model of round {force.index}"
    )
    table = "\n".join(
        f"| {r.index} | {r.n_train:,} | {r.n_kept:,} | {r.heldout or ''} | {r.control or ''} | {r.why} |"
        for r in rounds
    )
    warnings = "\n".join(f"- {sentence}" for sentence in facts["warnings"]) or "- none"
    settings = "\n".join(f"- `{name}`: `{value}`" for name, value in run.config.items())
    return f"""{_front(shape)}
# Reward model of the run "{run.name}" ({run.id})

{_what(shape)}, trained by self-evolved reward learning (SER) with SER Studio {facts["versions"]["ser-studio"]}.
It gives one number to a prompt and a response; only differences between responses to the same prompt mean anything.

**Accuracy on held-out pairs: {accuracy}**{" (the control: people's labels only)" if is_control else ""}.
{verdict(list(rounds)) or ""}

## Labels
{counts["human"]:,} from the seed, {counts["review"]:,} reviews, {counts["self"]:,} self-labels; {counts["ties"]:,} ties left
out. {audited}

## Rounds
| round | pairs trained on | newly self-labelled | held-out accuracy | control | outcome |
|---|---|---|---|---|---|
{table}

This folder holds {held}. The run ended: {run.stopped_because or "not finished"}

## Warnings
{warnings}

{_use(shape)}
## Settings
{settings}
"""


def of_distilled(run: Run, facts: Mapping[str, Any], shape: Shape) -> str:
    """facts: what distil.json holds."""
    labels = facts["labels"]
    return f"""{_front(shape)}
# Distilled reward model of the run "{run.name}" ({run.id})

{_what(shape)}. It was taught what the run's own model ({facts["own_model"]}) and the run's labels say:
{labels["human"]:,} labels from the seed, {labels["review"]:,} reviews, {labels["self"]:,} self-labels,
{labels["taught"]:,} pool pairs with the own model's probability.

**Accuracy on held-out pairs: {Interval(**facts["distilled"])}**; the run's own model: {Interval(**facts["own"])}.
{facts["sentence"]}
On {facts["agreement"]:.1%} of {facts["n_pool"]:,} pool pairs both prefer the same response.

{_use(shape)}"""


def _front(shape: Shape) -> str:
    base = MINILM if shape.base_model == "bundled" else shape.base_model
    lines = {"head": ["library_name: ser-studio"], "plain": ["library_name: transformers"]}.get(
        shape.kind, ["library_name: peft"]
    )
    if shape.kind != "head":
        lines.append("pipeline_tag: text-classification")
    if not base.startswith((".", "/", "~")):
        lines.append(f"base_model: {base}")
    tags = "tags: [reward-model, preference, self-evolved-reward-learning]"
    return "\n".join(["---", *lines, tags, "---", ""])


def _what(shape: Shape) -> str:
    base = (
        "all-MiniLM-L6-v2 (Apache-2.0, bundled with SER Studio)"
        if shape.base_model == "bundled"
        else f"`{shape.base_model}`"
    )
    how = "LoRA adapters merged into the weights," if shape.fit == "lora" else "all weights fine-tuned"
    return IN_WORDS[shape.kind].format(base=base, how=how)


def _use(shape: Shape) -> str:
    if shape.kind == "head":
        return """## Use
```
python -m ser_backend score reward_model FILE --out rewards.jsonl
```
Other libraries cannot load a linear head on frozen features; `python -m ser_backend export RUN --out DIR --distil` makes a
standard model from this run.
"""
    end = f", then the end token `{shape.end_token}`" if shape.end_token else ""
    numbers = (
        f"It was trained with a body in {shape.precision}; in float32, as here, rewards differ in the third digit.\n"
        if shape.precision != "float32"
        else ""
    )
    return f"""## Use
```python
{snippet(shape)}
```
A text is the prompt, a blank line, the response{end}; without a prompt, the response alone. At most {shape.max_length:,} tokens
are read; a longer text loses prompt from its left first (`truncation_side` is left). A response that is too long by itself
loses its end in SER Studio, its beginning with the lines above. Fit: {shape.fit}.
{numbers}
```
python -m ser_backend score {shape.name} FILE --out rewards.jsonl
```
"""
