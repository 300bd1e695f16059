"""What the doctor's checks are called, what they mean and what to do: described once, for terminal, page and docs.

Knows no model and no data. Standard library only, so that pages can read what a run's doctor wrote.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

Outcome = Literal["ok", "warning", "failed", "skipped"]
WORST_FIRST: tuple[Outcome, ...] = ("failed", "warning", "ok", "skipped")


@dataclass(frozen=True, slots=True)
class Check:
    """One outcome. failed: figures of this model cannot be believed; warning: they can, but know this."""

    name: str
    title: str
    outcome: Outcome
    found: str  # a sentence with the figures
    remedy: str = ""  # what to do, when not ok


class Rule(NamedTuple):
    group: str  # model, saved, data or accuracy
    title: str
    means: str  # why it matters
    remedy: str


GROUPS = {
    "model": "The model and its tokeniser",
    "saved": "What is on disk",
    "data": "The pairs",
    "accuracy": "Against simple rules",
}

RULES = {
    "opens": Rule(
        "model",
        "The model can be opened",
        "A model that does not open here will not open anywhere else.",
        "Do what the sentence says, or choose another model.",
    ),
    "loaded-whole": Rule(
        "model",
        "All weights were found",
        "Weights that are missing are filled with random numbers, and the model still answers.",
        "Fetch or export the model again. Fine-tune it with fit=full, so that what was missing is saved as well.",
    ),
    "head-in-weights": Rule(
        "model",
        "The reward head is trained, not random",
        "A model saved without its head gets a new, random one on loading, with no more than a line in a log.",
        "Save the model again with its head (adapters: task_type SEQ_CLS), or train it before you use its rewards.",
    ),
    "weights-finite": Rule(
        "model",
        "No weight is NaN or infinite",
        "One such number spreads to every reward.",
        "Go back to an earlier checkpoint or download; train with a lower learning rate or precision=float32.",
    ),
    "head-float32": Rule(
        "model",
        "The head computes in float32",
        "bfloat16 has three digits: close pairs become ties.",
        "Load the model with this program, which keeps its head in float32, or convert the head.",
    ),
    "pad-is-not-end": Rule(
        "model",
        "Padding and end are two tokens",
        "With pad = end the end of a text is masked away: a finished and a cut-off answer look the same, and the reward is "
        "read off another token.",
        "Give the tokeniser a padding token of its own (a reserved or new one), then train again.",
    ),
    "pad-known-to-model": Rule(
        "model",
        "Model and tokeniser agree on padding",
        "A decoder finds the token it reads the reward off by its own padding id; another id means another place.",
        "Set pad_token_id in config.json to the tokeniser's, then check the rewards again.",
    ),
    "one-start-one-end": Rule(
        "model",
        "One start and one end token",
        "A doubled start token (tokeniser and chat template each add one) or a missing end moves every reward.",
        "Let only one of tokeniser and data add start and end tokens: take them out of the texts, or set add_bos_token=false.",
    ),
    "tokens-known": Rule(
        "model",
        "The model has weights for every token",
        "A tokeniser that knows more tokens than the model makes texts that the model cannot read.",
        "Put the model's own tokeniser into its folder, or choose another model.",
    ),
    "same-tokens-elsewhere": Rule(
        "model",
        "Other programs read the same tokens",
        "An exported model is used with a plain call of its tokeniser; other tokens would mean other rewards there.",
        "Use the fast version of the tokeniser; check what it does with blank lines.",
    ),
    "max-length-fits": Rule(
        "model",
        "max_length is within the model's positions",
        "Beyond its positions a model fails or reads nonsense.",
        "Lower max_length to the number of positions.",
    ),
    "dropout-off": Rule(
        "model",
        "Scoring is not random",
        "With dropout on, the same text gets another reward each time.",
        "Put the model into evaluation mode (model.eval()) before scoring.",
    ),
    "rewards-finite": Rule(
        "model",
        "Rewards are finite",
        "NaN or infinity cannot be compared: such a pair gets no label.",
        "Use precision=float32, or another model.",
    ),
    "rewards-differ": Rule(
        "model",
        "Different texts get different rewards",
        "A model that gives everything the same reward has collapsed, or does not read its input.",
        "Train again with a lower learning rate; look for a head of zeros.",
    ),
    "batch-does-not-matter": Rule(
        "model",
        "The batch does not move a reward",
        "A reward has to depend on the text alone, not on how many texts are read with it, or in which order.",
        "Check the attention mask and layers that mix texts (batch normalisation); use precision=float32.",
    ),
    "padding-does-not-matter": Rule(
        "model",
        "Padding does not move a reward",
        "Short texts beside long ones are filled up; where the filling counts, a reward depends on its neighbours.",
        "Check the padding token, the attention mask and position ids; use precision=float32.",
    ),
    "end-is-seen": Rule(
        "model",
        "The end of a response counts",
        "A reward that stays when the last word (or the end token) goes is read off the wrong place.",
        "Check the padding token and side, and that max_length leaves the whole response.",
    ),
    "unknown-words": Rule(
        "data",
        "The tokeniser knows the words",
        "Unknown words all look alike to the model.",
        "Choose a base model for this language or script (a multilingual one).",
    ),
    "special-strings": Rule(
        "data",
        "No text holds special tokens",
        "A text with '[SEP]' or '<|endoftext|>' in it is read as if it ended there; somebody may also have planted it.",
        "Take such strings out of the texts, unless they mark turns that the model knows.",
    ),
    "prompts-whole": Rule(
        "data",
        "Prompts fit",
        "An over-long text loses the beginning of its prompt; what is judged stays.",
        "Raise max_length if the model can read more, or shorten the prompts.",
    ),
    "responses-whole": Rule(
        "data",
        "Responses fit",
        "A response that loses its end is judged by a part of it.",
        "Raise max_length, choose a model with more positions, or leave such pairs out.",
    ),
    "pairs-differ": Rule(
        "data",
        "Chosen and rejected differ",
        "Two inputs that are the same after cutting get the same reward: the pair teaches nothing and cannot be told.",
        "Raise max_length, or leave such pairs out.",
    ),
    "labels-agree": Rule(
        "data",
        "No pair is labelled both ways",
        "Opposite labels of one pair cancel each other.",
        "Decide these pairs, or make them ties.",
    ),
    "beats-length": Rule(
        "accuracy",
        "Better than 'the longer (or the shorter) one wins'",
        "Many preferences can be told by length alone; a model that is no better may have learnt nothing else.",
        "Label more pairs, above all pairs in which the shorter response is better; try another base model.",
    ),
    "beats-majority": Rule(
        "accuracy",
        "Better than the same answer each time",
        "Sides are drawn by a coin, at import and here alike, so naming one each time gets what guessing gets.",
        "Label more pairs; try another base model; look whether the labels are right.",
    ),
    "reloads-the-same": Rule(
        "saved",
        "What is saved gives the same rewards",
        "A model that reloads to other rewards was not saved whole.",
        "Save it again; compare the versions of transformers and peft that saved and loaded it.",
    ),
    "head-saved": Rule(
        "saved",
        "The reward head is among the saved weights",
        "Adapters saved for another task leave the head out, and loading makes a new, random one.",
        "Save with task_type SEQ_CLS or with the head in modules_to_save.",
    ),
}


def check(name: str, outcome: Outcome, found: str, remedy: str = "") -> Check:
    """remedy: the rule's own when none is given."""
    rule = RULES[name]
    return Check(name, rule.title, outcome, found, (remedy or rule.remedy) if outcome in ("warning", "failed") else "")


def as_dicts(checks: Iterable[Check]) -> list[dict[str, Any]]:
    return [asdict(one) for one in checks]


def from_dicts(found: Any) -> list[Check]:
    """The inverse of as_dicts, also of what an older or newer version wrote; what is no check is left out."""
    names = ("name", "title", "outcome", "found", "remedy")
    return [
        Check(*(str(one.get(name, "")) for name in names))  # type: ignore[arg-type]
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and one.get("outcome") in get_args(Outcome)
    ]


def worst(checks: Sequence[Check]) -> Outcome:
    """The outcome that counts for all of them; "skipped" for none."""
    return next((outcome for outcome in WORST_FIRST if any(one.outcome == outcome for one in checks)), "skipped")


def in_words(checks: Sequence[Check]) -> str:
    """'14 checks, all fine', '26 checks: 1 failed, 2 warnings, 21 fine, 2 skipped'. All are counted, also what was skipped."""
    count = {outcome: sum(one.outcome == outcome for one in checks) for outcome in WORST_FIRST}
    said = f"{len(checks)} {'check' if len(checks) == 1 else 'checks'}"
    if checks and count["ok"] == len(checks):
        return f"{said}, all fine"
    names = {"failed": "failed", "warning": "warning" if count["warning"] == 1 else "warnings", "ok": "fine"}
    parts = [f"{count[outcome]} {names.get(outcome, outcome)}" for outcome in WORST_FIRST if count[outcome]]
    return f"{said}: {', '.join(parts)}" if parts else said


def markdown_table(group: str) -> str:
    """The rules of a group as docs/doctor.md shows them."""
    rows = [
        f"| `{name}` | {rule.title} | {rule.means} | {rule.remedy} |".replace("<|", "<\\|").replace("|>", "\\|>")
        for name, rule in RULES.items()
        if rule.group == group
    ]
    return "\n".join(["| check | what it says | why | what to do |", "|---|---|---|---|", *rows])
