"""RunConfig: every setting of a run, described once. Command-line flags, the form and the docs are made from it.

Presets are named sets of settings: PRESETS say how labels are chosen, ENGINES what is trained; no setting is in both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ser_backend.errors import SerError
from ser_backend.settings import Settings, described, number, setting, table

TRAINED, LABELS, TUNING, DATA = "What is trained", "Self-labelling", "Fine-tuning", "Data and machine"
SECTIONS = {
    TRAINED: "Which model, and which part of it learns.",
    LABELS: "Which pairs the model labels by itself, and what it learns from them.",
    TUNING: "How a transformer learns; a head is solved to its optimum and needs none of these.",
    DATA: "What is held out, and what the machine gives.",
}
TUNED = ("lora", "full")
TRACKERS = ("none", "tensorboard", "wandb", "mlflow", "trackio")


@dataclass(frozen=True, slots=True)
class RunConfig(Settings):
    base_model: str = setting(
        TRAINED,
        "bundled",
        "Model that reads the texts: 'bundled' (all-MiniLM-L6-v2), a Hugging Face name, or a folder.",
    )
    fit: str = setting(
        TRAINED,
        "head",
        "What is trained: 'head' a linear reward head on the frozen base model (seconds); 'lora' adapters and the reward head; "
        "'full' the whole model (minutes to hours).",
        among=("head", "lora", "full"),
    )
    components: int = setting(
        TRAINED, 256, "Principal components of the features that the head sees.", low=8, high=2_048, fits=("head",)
    )
    lora_rank: int = setting(
        TRAINED, 8, "Rank of the adapters (alpha is four times the rank).", low=1, high=1_024, fits=("lora",)
    )
    frozen_layers: int = setting(
        TRAINED,
        0,
        "Lowest layers that do not learn; their output is computed once and kept.",
        low=0,
        high=1_000,
        fits=TUNED,
    )
    method: str = setting(
        LABELS,
        "paper",
        "Who labels, and what is kept. 'calibrated': a teacher that also knows single prompts and responses labels the pool; "
        "what is kept is certified on people's labels. 'paper': SER as published. For comparison: 'naive' keeps every pair, "
        "'fixed_confidence' the confident ones, 'adaptive_threshold' those more confident than the mean.",
        among=("paper", "calibrated", "naive", "fixed_confidence", "adaptive_threshold"),
    )
    target_precision: float = setting(
        LABELS,
        0.8,
        "Share of the kept labels that must be right.",
        low=0.5,
        high=0.99,
        methods=("calibrated",),
    )
    risk: float = setting(
        LABELS,
        0.05,
        "Probability with which fewer of them may be right all the same.",
        low=0.001,
        high=0.5,
        methods=("calibrated",),
    )
    min_confidence: float = setting(
        LABELS,
        0.8,
        "Least confidence, the sigmoid of the reward difference, of a pair that is kept.",
        low=0.5,
        high=0.999,
        methods=("fixed_confidence",),
    )
    rounds: int = setting(LABELS, 3, "Self-labelling rounds after the seed model (round 0).", low=0, high=50)
    filter: str = setting(
        LABELS,
        "union",
        "Which pairs pass. 'union' (the paper's code): clear or wide pairs. "
        "'staged' (the paper's text): clear pairs while enough pass, then wide pairs.",
        among=("union", "staged"),
        methods=("paper",),
    )
    tau_high: float = setting(
        LABELS,
        0.55,
        "A pair is clear when one response's probability is above this ...",
        low=0.5,
        high=1,
        methods=("paper",),
    )
    tau_low: float = setting(LABELS, 0.45, "... and the other's is below this.", low=0, high=0.5, methods=("paper",))
    tau_delta: float = setting(
        LABELS,
        0.3,
        "A pair is wide when the two probabilities differ by more than this.",
        low=0,
        high=1,
        methods=("paper",),
    )
    min_kept: float = setting(
        LABELS,
        0.02,
        "Smallest share of the pool a round must keep; below it, it stops.",
        low=0,
        high=1,
        methods=("paper", "fixed_confidence", "adaptive_threshold"),
    )
    train_on: str = setting(
        LABELS,
        "new",
        "Self-labels a round trains on: the newly kept, all kept so far, or all kept plus the seed. "
        "Reviews always take part.",
        among=("new", "cumulative", "cumulative+seed"),
        methods=("paper",),
    )
    init: str = setting(
        LABELS,
        "warm",
        "'warm' continues from the last model (for a head, its weights are the centre of the L2 penalty); 'fresh' begins "
        "anew in every round.",
        among=("warm", "fresh"),
        methods=("paper",),
    )
    centre: str = setting(
        LABELS,
        "off",
        "'on' subtracts the pool's mean reward before the thresholds.",
        among=("off", "on"),
        methods=("paper",),
    )
    thresholds: str = setting(
        LABELS,
        "absolute",
        "'absolute' compares sigmoid(reward) with the thresholds; 'percentile' compares the reward's rank in the pool, "
        "which no shift or scale of the rewards can change.",
        among=("absolute", "percentile"),
        methods=("paper",),
    )
    gate: str = setting(
        LABELS,
        "on",
        "Do no harm: 'on' rolls a round back when people's labels, each judged by a model that never saw it, "
        "speak against it. A head is judged by all of them; with lora and full a fifth of the labels is kept apart for it.",
        among=("on", "off"),
    )
    learning_rate: float = setting(TUNING, 1e-4, "Highest learning rate (AdamW).", low=1e-7, high=0.1, fits=TUNED)
    epochs: float = setting(
        TUNING, 2.0, "Times a round goes through its training pairs.", low=0.05, high=100, fits=TUNED
    )
    batch_size: int = setting(
        TUNING,
        32,
        "Pairs a step. A step reads at most twice as many distinct texts, and trains on all pairs among them.",
        low=1,
        high=4_096,
        fits=TUNED,
    )
    dropout: float = setting(TUNING, 0.0, "Dropout while training.", low=0, high=0.9, fits=TUNED)
    smoothing: float = setting(
        TUNING, 0.0, "Share of labels thought to be wrong (label smoothing).", low=0, high=0.4, fits=TUNED
    )
    centring: float = setting(
        TUNING,
        0.01,
        "Weight of the squared sum of a pair's rewards in the loss; keeps rewards near zero.",
        low=0,
        high=10,
        fits=TUNED,
    )
    precision: str = setting(
        TUNING,
        "auto",
        "Number format of the body; the reward head is always float32. 'auto': bfloat16 on a GPU that has it, else "
        "float32. '4bit': QLoRA, on a CUDA GPU, with what pip install -e '.[qlora]' brings.",
        among=("auto", "float32", "bfloat16", "4bit"),
        fits=TUNED,
    )
    heldout_fraction: float = setting(
        DATA,
        0.2,
        "Share of the seed held out by group when no held-out set is given.",
        low=0.05,
        high=0.5,
    )
    max_length: int = setting(DATA, 512, "Tokens of prompt and response that are read.", low=16, high=131_072)
    random_seed: int = setting(DATA, 0, "Fixes every random choice of the run.", low=0, high=2**31 - 1)
    threads: int = setting(DATA, 0, "CPU threads; 0 lets torch choose.", low=0, high=256)
    track: str = setting(DATA, "none", "Tracker that gets each round's figures, too; no text is sent.", among=TRACKERS)

    def changed(self, settings: Mapping[str, Any]) -> "RunConfig":
        """A copy with `settings` (values may be text, as typed), validated. Raises SerError on an unknown name or value."""
        return Settings.changed(self, settings).validate()

    def settled(self) -> "RunConfig":
        """As the run reads it: only the paper's method leaves open what a round trains on and where it begins; all others
        train afresh on people's labels and the round's own."""
        return self if self.method == "paper" else replace(self, train_on="cumulative+seed", init="fresh")


def describe() -> dict[str, dict[str, Any]]:
    """As `settings.described`."""
    return described(RunConfig)


@dataclass(frozen=True, slots=True)
class Preset:
    title: str
    help: str
    settings: Mapping[str, Any]
    gpu_gib: float = 0  # GPU memory it asks for; 0: runs on a CPU


PRESETS: Mapping[str, Preset] = {
    "calibrated": Preset(
        "Calibrated",
        "A second model, the teacher, labels the pool. A label is kept only where people's labels show that at least a stated "
        "share of such labels is right (80 % unless you say otherwise), which takes some hundred of them. Review then asks for "
        "the pairs that tell most.",
        {"method": "calibrated"},
    ),
    "careful": Preset(
        "Careful",
        "Each round starts afresh from all human labels and all self-labels kept so far. A pair is kept when its two rewards "
        "rank far apart in the pool, the clearest first.",
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
        "The published method as its code does it: a round keeps the pairs whose two rewards are clearly apart, and trains on "
        "these alone.",
        {},
    ),
    "paper-text": Preset(
        "Paper, as written",
        "The published method as its text has it: first the pairs of a clearly good and a clearly bad response, later those "
        "that merely differ; kept labels add up.",
        {"filter": "staged", "train_on": "cumulative"},
    ),
}
DEFAULT_PRESET = "careful"

# GPU memory by arithmetic, not measured: weights in bfloat16, adapters with their optimiser, activations of one text.
ENGINES: Mapping[str, Preset] = {
    "laptop": Preset(
        "Laptop",
        "A linear head on the bundled model; a run takes seconds once the texts are read.",
        {"base_model": "bundled", "fit": "head"},
    ),
    "laptop-finetune": Preset(
        "Laptop, fine-tuned",
        "The upper half of the bundled model learns; minutes on a CPU.",
        {"base_model": "bundled", "fit": "full", "frozen_layers": 3, "learning_rate": 1e-4, "epochs": 3.0},
    ),
    "gpu-small": Preset(
        "GPU, small",
        "LoRA on Qwen3 1.7B in bfloat16; for a GPU with 12 GiB or more.",
        {"base_model": "Qwen/Qwen3-1.7B", "fit": "lora", "lora_rank": 16, "max_length": 1_024},
        gpu_gib=12,
    ),
    "gpu-large": Preset(
        "GPU, large",
        "LoRA on Qwen3 8B in bfloat16; for a GPU with 40 GiB or more.",
        {"base_model": "Qwen/Qwen3-8B", "fit": "lora", "lora_rank": 16, "max_length": 1_024},
        gpu_gib=40,
    ),
    "paper-lora": Preset(
        "Paper's LoRA",
        "The paper's recipe for training, on the bundled model unless another is given.",
        {
            "fit": "lora",
            "lora_rank": 8,
            "epochs": 2.0,
            "learning_rate": 2e-5,
            "batch_size": 40,
            "dropout": 0.1,
            "centring": 0.0,
        },
    ),
}


def from_preset(name: str, engine: str = "") -> RunConfig:
    """The settings of a method preset and, if named, of an engine."""
    if name not in PRESETS:
        raise SerError(f"There is no preset {name!r}. The presets are: {', '.join(PRESETS)}.")
    if engine and engine not in ENGINES:
        raise SerError(f"There is no engine {engine!r}. The engines are: {', '.join(ENGINES)}.")
    return RunConfig().changed({**PRESETS[name].settings, **(ENGINES[engine].settings if engine else {})})


def markdown_table() -> str:
    """The settings as the tables that docs/configuration.md holds, one a section."""
    lines = []
    for section, about in SECTIONS.items():
        among = {name: entry for name, entry in describe().items() if entry["section"] == section}
        lines += [f"### {section}", about, "", *table(among), ""]
    return "\n".join(lines).strip()


def presets_table() -> str:
    """The method presets as the table that docs/configuration.md holds."""
    return _table(PRESETS, "preset", DEFAULT_PRESET)


def engines_table() -> str:
    """The engines as the table that docs/configuration.md holds."""
    return _table(ENGINES, "engine", "")


def _table(presets: Mapping[str, Preset], kind: str, default: str) -> str:
    lines = [f"| {kind} | what it is | settings |", "|---|---|---|"]
    for name, preset in presets.items():
        settings = ", ".join(f"`{key}={number(value)}`" for key, value in preset.settings.items()) or "the defaults"
        lines.append(f"| `{name}`{' (default)' if name == default else ''} | {preset.help} | {settings} |")
    return "\n".join(lines)
