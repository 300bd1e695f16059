"""RunConfig: every setting of a run, described once. Command-line flags, the form and the docs are made from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ser_backend.errors import SerError


def _setting(default: Any, help: str, *, among: tuple[str, ...] = (), low: float = 0, high: float = 0) -> Any:
    return field(default=default, metadata={"help": help, "among": among, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class RunConfig:
    base_model: str = _setting(
        "bundled", "Model that reads the texts: 'bundled' (all-MiniLM-L6-v2), a Hugging Face name, or a folder."
    )
    fit: str = _setting(
        "head",
        "What is trained: 'head' a linear reward head on the frozen base model (seconds); 'lora' adapters and the reward head; "
        "'full' the whole model (minutes to hours).",
        among=("head", "lora", "full"),
    )
    method: str = _setting("paper", "Self-labelling method: 'paper' is SER as published.", among=("paper",))
    rounds: int = _setting(3, "Self-labelling rounds after the seed model (round 0).", low=0, high=50)
    filter: str = _setting(
        "union",
        "Which pairs pass. 'union' (the paper's code): clear or wide pairs. "
        "'staged' (the paper's text): clear pairs while enough pass, then wide pairs.",
        among=("union", "staged"),
    )
    tau_high: float = _setting(
        0.55, "A pair is clear when one response's probability is above this ...", low=0.5, high=1
    )
    tau_low: float = _setting(0.45, "... and the other's is below this.", low=0, high=0.5)
    tau_delta: float = _setting(
        0.3, "A pair is wide when the two probabilities differ by more than this.", low=0, high=1
    )
    min_kept: float = _setting(0.02, "Smallest share of the pool a round must keep; below it, it stops.", low=0, high=1)
    train_on: str = _setting(
        "new",
        "Self-labels a round trains on: the newly kept, all kept so far, or all kept plus the seed. "
        "Reviews always take part.",
        among=("new", "cumulative", "cumulative+seed"),
    )
    init: str = _setting(
        "warm",
        "'warm' continues from the last model (its weights are the centre of the L2 penalty); 'fresh' starts from zero.",
        among=("warm", "fresh"),
    )
    centre: str = _setting("off", "'on' subtracts the pool's mean reward before the thresholds.", among=("off", "on"))
    thresholds: str = _setting(
        "absolute",
        "'absolute' compares sigmoid(reward) with the thresholds; 'percentile' compares the reward's rank in the pool, "
        "which no shift or scale of the rewards can change.",
        among=("absolute", "percentile"),
    )
    gate: str = _setting(
        "on",
        "Do no harm: 'on' rolls a round back when people's labels, each judged by a model that never saw it, "
        "speak against it.",
        among=("on", "off"),
    )
    heldout_fraction: float = _setting(
        0.2, "Share of the seed held out by group when no held-out set is given.", low=0.05, high=0.5
    )
    max_length: int = _setting(512, "Tokens of prompt and response that are read.", low=16, high=131_072)
    components: int = _setting(256, "Principal components of the features that the head sees.", low=8, high=2_048)
    learning_rate: float = _setting(1e-4, "lora, full: highest learning rate (AdamW).", low=1e-7, high=0.1)
    epochs: float = _setting(2.0, "lora, full: times a round goes through its training pairs.", low=0.05, high=100)
    batch_size: int = _setting(
        32,
        "lora, full: pairs a step. A step reads at most twice as many distinct texts, and trains on all pairs among them.",
        low=1,
        high=4_096,
    )
    lora_rank: int = _setting(8, "lora: rank of the adapters (alpha is four times the rank).", low=1, high=1_024)
    dropout: float = _setting(0.0, "lora, full: dropout while training.", low=0, high=0.9)
    frozen_layers: int = _setting(
        0, "lora, full: lowest layers that do not learn; their output is computed once and kept.", low=0, high=1_000
    )
    smoothing: float = _setting(
        0.0, "lora, full: share of labels thought to be wrong (label smoothing).", low=0, high=0.4
    )
    centring: float = _setting(
        0.01,
        "lora, full: weight of the squared sum of a pair's rewards in the loss; keeps rewards near zero.",
        low=0,
        high=10,
    )
    precision: str = _setting(
        "auto",
        "lora, full: number format of the body; the reward head is always float32. 'auto': bfloat16 on a GPU that has it, else "
        "float32. '4bit': QLoRA, on a CUDA GPU with the package bitsandbytes.",
        among=("auto", "float32", "bfloat16", "4bit"),
    )
    random_seed: int = _setting(0, "Fixes every random choice of the run.", low=0, high=2**31 - 1)
    threads: int = _setting(0, "CPU threads; 0 lets torch choose.", low=0, high=256)

    def validate(self) -> "RunConfig":
        """Return self, or raise SerError naming the setting, what was found and what is accepted."""
        for name, entry in describe().items():
            value = getattr(self, name)
            if entry["among"] and value not in entry["among"]:
                raise SerError(f"{name} is {value!r}; it must be one of {', '.join(entry['among'])}.")
            if isinstance(value, int | float) and not entry["low"] <= value <= entry["high"]:
                raise SerError(f"{name} is {value}; it must be from {entry['low']:g} to {entry['high']:g}.")
        return self

    def changed(self, settings: Mapping[str, Any]) -> "RunConfig":
        """A copy with `settings` (values may be text, as typed), validated. Raises SerError on an unknown name or value."""
        known = describe()
        values: dict[str, Any] = {}
        for name, raw in settings.items():
            if name not in known:
                raise SerError(f"There is no setting {name!r}. The settings are: {', '.join(known)}.")
            kind = known[name]["type"]
            try:
                values[name] = kind(str(raw).strip()) if not isinstance(raw, kind) else raw
            except ValueError:
                wanted = {int: "a whole number", float: "a number", str: "text"}[kind]
                raise SerError(f"{name} is {raw!r}; it must be {wanted}.") from None
            if values[name] != values[name]:
                raise SerError(
                    f"{name} is not a number; it must be from {known[name]['low']:g} to {known[name]['high']:g}."
                )
        return replace(self, **values).validate()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe() -> dict[str, dict[str, Any]]:
    """Setting -> {type, default, help, among, low, high}, in the order of the docs."""
    return {
        entry.name: {"type": type(entry.default), "default": entry.default, **entry.metadata}
        for entry in fields(RunConfig)
    }


@dataclass(frozen=True, slots=True)
class Preset:
    title: str
    help: str
    settings: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    "careful": Preset(
        "Careful",
        "Every round trains afresh on all human labels and all self-labels kept so far; pairs pass by the rank of their "
        "rewards, clear ones first.",
        {
            "train_on": "cumulative+seed",
            "init": "fresh",
            "thresholds": "percentile",
            "tau_delta": 0.5,
            "filter": "staged",
        },
    ),
    "paper-code": Preset(
        "Paper, as released",
        "The paper's code: clear or wide pairs, each round trains on the newly kept ones only.",
        {},
    ),
    "paper-text": Preset(
        "Paper, as written",
        "The paper's text: clear pairs first, wide pairs later, kept labels add up.",
        {"filter": "staged", "train_on": "cumulative"},
    ),
}
DEFAULT_PRESET = "careful"


def from_preset(name: str) -> RunConfig:
    if name not in PRESETS:
        raise SerError(f"There is no preset {name!r}. The presets are: {', '.join(PRESETS)}.")
    return RunConfig().changed(PRESETS[name].settings)


def markdown_table() -> str:
    """The settings as the table that docs/configuration.md holds."""
    lines = ["| setting | default | values | meaning |", "|---|---|---|---|"]
    for name, entry in describe().items():
        if entry["among"]:
            values = ", ".join(f"`{value}`" for value in entry["among"])
        elif entry["type"] is str:
            values = "text"
        else:
            values = f"{entry['low']:g} to {entry['high']:g}"
        lines.append(f"| `{name}` | `{entry['default']}` | {values} | {entry['help']} |")
    return "\n".join(lines)


def presets_table() -> str:
    """The presets as the table that docs/configuration.md holds."""
    lines = ["| preset | what it is | settings |", "|---|---|---|"]
    for name, preset in PRESETS.items():
        settings = ", ".join(f"`{key}={value}`" for key, value in preset.settings.items()) or "the defaults"
        default = " (default)" if name == DEFAULT_PRESET else ""
        lines.append(f"| `{name}`{default} | {preset.help} | {settings} |")
    return "\n".join(lines)
