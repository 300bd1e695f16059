"""What a stored data set holds: labels, lengths, repetitions, contradictions, personal data. Counted once, in one pass over
the texts, batch by batch; only writing systems are read from a sample, and say so.

Knows no run and no model. Of a pool it says nothing about labels, since there are none.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ser_backend import pairs
from ser_backend.metrics import wilson
from ser_backend.pairs import PairSet
from ser_backend.profile import personal
from ser_backend.records import Interval

CHARS_A_TOKEN = 4.4  # English texts and WordPiece tokens: 3.8 to 4.7 by set
LIMITS = (256, 512, 1024, 2048)  # tokens
EDGES = tuple(round(2 ** (k / 2)) for k in range(2, 41))  # characters, two bins a doubling
MOST_PARTS = 20  # domains with figures of their own, the largest first
EXAMPLES = 5
SAMPLED, SAMPLED_CHARS = 20_000, 500  # responses, and how much of each, that writing systems are read from
SCRIPTS = {
    "Latin": "A-Za-z\u00aa-\u024f\u1e00-\u1eff",
    "Cyrillic": "\u0400-\u052f",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f",
    "Hebrew": "\u0590-\u05ff",
    "Devanagari": "\u0900-\u097f",
    "Thai": "\u0e00-\u0e7f",
    "Han": "\u3400-\u4dbf\u4e00-\u9fff",
    "Kana": "\u3040-\u30ff",
    "Hangul": "\u1100-\u11ff\uac00-\ud7af",
}
LETTERS = {name: re.compile(f"[{span}]") for name, span in SCRIPTS.items()}


@dataclass(frozen=True, slots=True)
class Part:
    """Labels of one domain, or of all pairs."""

    name: str
    n_pairs: int
    n_ties: int
    a: Interval  # response a is the preferred one, of the decided labels
    longer: Interval  # the longer response is, of the decided labels of pairs of unequal length
    n_equal: int  # decided labels of pairs whose responses are equally long


@dataclass(frozen=True, slots=True)
class Example:
    row: int  # of the pair in the set
    source: str  # file and row it came from
    masked: str


@dataclass(frozen=True, slots=True)
class Personal:
    kind: str
    n_places: int  # in distinct texts
    n_pairs: int
    examples: list[Example]


@dataclass(frozen=True, slots=True)
class Profile:
    n_pairs: int
    n_responses: int
    labels: Part | None  # None in a pool
    domains: list[Part]  # the largest first; empty where the source names none
    n_domains: int
    length_rule: (
        Interval | None
    )  # accuracy of always preferring the longer (or always the shorter) response, on its best side
    rule_prefers: str  # "longer" or "shorter"
    n_near: int  # pairs that repeat an earlier one but for case and white space
    near_rows: list[int]
    n_same_texts: int  # pairs whose two responses are the same but for case and white space
    same_rows: list[int]
    n_contradicting: int  # labelled pairs whose like is labelled the other way
    contradicting_rows: list[int]
    n_circular: int  # labelled pairs that lie in a circle of preferences, contradictions among them
    n_prompts: int
    n_shared_prompts: int  # with two pairs or more
    n_pairs_shared: int  # pairs of those prompts
    n_shared_responses: int  # responses that stand in two pairs or more
    n_prompts_labelled_twice: int  # prompts with two decided labels or more
    most_pairs: int  # of one prompt
    n_groups: int
    largest_group: int
    histogram: dict[str, list[int]]  # prompt (by pair), response (distinct ones): counts between EDGES
    quantiles: dict[str, list[int]]  # the same: 5 %, 50 %, 95 % and the longest, characters
    cut: dict[str, float]  # tokens -> estimated share of distinct prompt-and-response texts that are longer
    scripts: dict[str, int]  # writing system -> sampled responses that are mostly in it
    n_sampled: int
    personal: list[Personal] = field(default_factory=list)
    n_rejected: int = 0
    kinds: list[pairs.ProblemKind] = field(default_factory=list)  # of the rows turned away


@dataclass(slots=True)
class _Texts:
    """What one pass over the texts leaves of them, by row of the responses table."""

    kin: np.ndarray  # int64: equal where prompt and text are, but for case and white space
    prompt_length: np.ndarray  # int32
    length: np.ndarray  # int32
    marks: dict[str, np.ndarray]  # kind of personal data -> bool
    n_places: Counter[str]
    scripts: Counter[str]
    n_sampled: int


def of_set(source: PairSet, progress: Callable[[int, int], None] | None = None) -> Profile:
    """progress(done, all) in responses."""
    texts = _read(source, progress)
    a, b = source.response_a, source.response_b
    preferred = None if source.role == "pool" else source.preferred()
    kin_a, kin_b = texts.kin[a], texts.kin[b]
    same = kin_a == kin_b
    repeated, contradicting = _repetitions(kin_a, kin_b, preferred)
    prompts, prompt, of_prompt = np.unique(source.prompt_keys, return_inverse=True, return_counts=True)
    groups = np.unique(source.group_keys, return_counts=True)[1]
    uses = np.bincount(np.concatenate([a, b]), minlength=source.n_responses)
    labels: Part | None = None
    domains: list[Part] = []
    n_domains = 0
    rule, prefers, circular, twice = None, "longer", 0, 0
    if preferred is not None:
        gap = np.sign(texts.length[a].astype(np.int64) - texts.length[b])
        labels = _part("", preferred, gap)
        domains, n_domains = _by_domain(source, preferred, gap)
        rule, prefers = _length_rule(preferred, gap)
        circular = _circular(kin_a, kin_b, preferred)
        twice = int((np.bincount(prompt[preferred != 0], minlength=len(prompts)) > 1).sum())
    total = texts.prompt_length + texts.length
    shown = {"prompt": texts.prompt_length[a], "response": texts.length}
    return Profile(
        n_pairs=source.n_pairs,
        n_responses=source.n_responses,
        labels=labels,
        domains=domains,
        n_domains=n_domains,
        length_rule=rule,
        rule_prefers=prefers,
        n_near=int(repeated.sum()),
        near_rows=_first(repeated),
        n_same_texts=int(same.sum()),
        same_rows=_first(same),
        n_contradicting=int(contradicting.sum()),
        contradicting_rows=_first(contradicting),
        n_circular=circular,
        n_prompts=len(prompts),
        n_shared_prompts=int((of_prompt > 1).sum()),
        n_pairs_shared=int(of_prompt[of_prompt > 1].sum()),
        n_shared_responses=int((uses > 1).sum()),
        n_prompts_labelled_twice=twice,
        most_pairs=int(of_prompt.max(initial=0)),
        n_groups=len(groups),
        largest_group=int(groups.max(initial=0)),
        histogram={name: np.histogram(found, (0, *EDGES[1:-1], 1 << 40))[0].tolist() for name, found in shown.items()},
        quantiles={
            name: [int(q) for q in (*np.quantile(found, (0.05, 0.5, 0.95)).round(), found.max())]
            for name, found in shown.items()
        },
        cut={str(limit): float((total > limit * CHARS_A_TOKEN).mean()) for limit in LIMITS},
        scripts=dict(texts.scripts.most_common()),
        n_sampled=texts.n_sampled,
        personal=_personal(source, texts),
        kinds=(kinds := pairs.problem_kinds(source.id)),
        n_rejected=sum(kind.n for kind in kinds),
    )


def _read(source: PairSet, progress: Callable[[int, int], None] | None) -> _Texts:
    n = source.n_responses
    found = _Texts(
        kin=np.empty(n, np.int64),
        prompt_length=np.empty(n, np.int32),
        length=np.empty(n, np.int32),
        marks={name: np.zeros(n, bool) for name in personal.NAMES},
        n_places=Counter(),
        scripts=Counter(),
        n_sampled=0,
    )
    step = max(1, n // SAMPLED)
    begin = 0
    for batch in source.response_batches():
        end = begin + len(batch)
        prompts, text = batch.column("prompt").dictionary_encode(), batch.column("text")
        code, distinct = prompts.indices.to_numpy(), prompts.dictionary
        found.prompt_length[begin:end] = pc.utf8_length(distinct).to_numpy()[code]
        found.length[begin:end] = pc.utf8_length(text).to_numpy()
        texts = text.to_pylist()
        # Python's own hash differs from process to process, which does not matter: only equality within this pass does
        of_prompt = [hash(_plain(prompt)) for prompt in distinct.to_pylist()]
        found.kin[begin:end] = [hash((of_prompt[c], _plain(t))) for c, t in zip(code.tolist(), texts, strict=True)]
        _mark(found, begin, text, np.arange(len(batch)))
        _mark(found, begin, distinct, code)
        for place in range(-begin % step, len(batch), step):
            if script := _script(texts[place][:SAMPLED_CHARS]):
                found.scripts[script] += 1
            found.n_sampled += 1
        begin = end
        if progress:
            progress(end, n)
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _mark(found: _Texts, begin: int, texts: pa.Array, stands_for: np.ndarray) -> None:
    """stands_for: for each row of the batch, which of `texts` it holds."""
    suspect = np.flatnonzero(pc.match_substring_regex(texts, personal.SUSPECT).to_numpy(zero_copy_only=False))
    for place in suspect.tolist():
        hits = Counter(kind for kind, _ in personal.found_in(texts[place].as_py()))
        if hits:
            rows = begin + np.flatnonzero(stands_for == place)
            for kind, n in hits.items():
                found.marks[kind][rows] = True
                found.n_places[kind] += n


def _script(text: str) -> str:
    """That of most letters; "" without any."""
    if text.isascii():
        return "Latin" if any(map(str.isalpha, text)) else ""
    counts = {name: len(letters.findall(text)) for name, letters in LETTERS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else "other" if any(map(str.isalpha, text)) else ""


def _repetitions(kin_a: np.ndarray, kin_b: np.ndarray, preferred: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """bool (n_pairs,) each: the like came before; the like is labelled the other way."""
    first, second = np.minimum(kin_a, kin_b), np.maximum(kin_a, kin_b)
    order = np.lexsort((second, first))  # stable: of those alike the first row comes first
    new = np.ones(len(order), bool)
    if len(order):
        new[1:] = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    repeated, contradicting = np.zeros(len(order), bool), np.zeros(len(order), bool)
    repeated[order] = ~new & (first != second)[order]
    if preferred is not None:
        which = np.empty(len(order), np.int64)
        which[order] = np.cumsum(new) - 1
        said = np.where(kin_a < kin_b, preferred, -preferred) * (kin_a != kin_b)
        up, down = (np.bincount(which[said == sign], minlength=int(new.sum())) > 0 for sign in (1, -1))
        contradicting = (up & down)[which] & (said != 0)
    return repeated, contradicting


def _circular(kin_a: np.ndarray, kin_b: np.ndarray, preferred: np.ndarray) -> int:
    """Labelled pairs both of whose responses lie in one strongly connected part of "is preferred to"."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    decided = (preferred != 0) & (kin_a != kin_b)
    names, ends = np.unique(np.concatenate([kin_a[decided], kin_b[decided]]), return_inverse=True)
    a, b = ends[: len(ends) // 2], ends[len(ends) // 2 :]
    a_wins = preferred[decided] > 0
    better, worse = np.where(a_wins, a, b), np.where(a_wins, b, a)
    graph = coo_array((np.ones(len(a), bool), (better, worse)), shape=(len(names), len(names)))
    part = connected_components(graph, directed=True, connection="strong")[1]
    return int((part[better] == part[worse]).sum())


def _part(name: str, preferred: np.ndarray, gap: np.ndarray) -> Part:
    """gap: sign of length a - length b."""
    decided = preferred != 0
    unequal = decided & (gap != 0)
    return Part(
        name=name,
        n_pairs=len(preferred),
        n_ties=int((~decided).sum()),
        a=wilson(int((preferred > 0).sum()), int(decided.sum())),
        longer=wilson(int((gap == preferred)[unequal].sum()), int(unequal.sum())),
        n_equal=int((decided & (gap == 0)).sum()),
    )


def _by_domain(source: PairSet, preferred: np.ndarray, gap: np.ndarray) -> tuple[list[Part], int]:
    names, which = np.unique(np.array(source.domains(), dtype=object), return_inverse=True)
    if len(names) < 2:
        return [], int(len(names) == 1 and names[0] != "")
    sizes = np.bincount(which)
    largest = np.argsort(-sizes, kind="stable")[:MOST_PARTS]
    return [_part(str(names[k]), preferred[which == k], gap[which == k]) for k in largest], len(names)


def _length_rule(preferred: np.ndarray, gap: np.ndarray) -> tuple[Interval, str]:
    """Of the two rules the one that is right more often; equally long responses count a half."""
    decided = preferred != 0
    right = float((0.5 + 0.5 * gap[decided] * preferred[decided]).sum())
    n = int(decided.sum())
    return (wilson(right, n), "longer") if 2 * right >= n else (wilson(n - right, n), "shorter")


def _personal(source: PairSet, texts: _Texts) -> list[Personal]:
    found = []
    for kind, marked in texts.marks.items():
        rows = np.flatnonzero(marked[source.response_a] | marked[source.response_b])
        if len(rows):
            found.append(Personal(kind, texts.n_places[kind], len(rows), _examples(source, kind, rows[:EXAMPLES])))
    return sorted(found, key=lambda one: -one.n_pairs)


def _examples(source: PairSet, kind: str, rows: np.ndarray) -> list[Example]:
    examples = []
    for row, pair in zip(rows.tolist(), source.pairs(rows), strict=True):
        for text in (pair.response_a.prompt, pair.response_a.text, pair.response_b.text):
            place = next((place for known, place in personal.found_in(text) if known == kind), None)
            if place is not None:
                examples.append(Example(row, pair.source, personal.masked(kind, place)))
                break
    return examples


def _first(mask: np.ndarray) -> list[int]:
    return [int(row) for row in np.flatnonzero(mask)[:EXAMPLES]]
