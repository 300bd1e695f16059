"""How right the labels of each round are, group by group, by people's random checks: those for the longer response, for the
shorter, and of each domain. The interval is Clopper and Pearson's. Groups are many: one that looks bad may be chance.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ser_backend.calibration import clopper_pearson
from ser_backend.pairs import PairSet
from ser_backend.records import Interval, Review
from ser_backend.review import audits

LONGER, SHORTER = "prefers the longer", "prefers the shorter"
Groups = dict[str, Interval]


def audited_by_group(
    rows: Sequence[Review], pool: PairSet, longer_by: np.ndarray, domain: np.ndarray, domains: Sequence[str]
) -> dict[int, Groups]:
    """Round -> group -> share of its checked labels that people agree with; ties and skips say nothing.

    rows: every answer of a run. longer_by: characters of response a less those of b, (n_pool,). domain: place in
    `domains`, (n_pool,).
    """
    found = [row for row in audits(rows) if row.preferred in ("a", "b")]
    right: Counter[tuple[int, str]] = Counter()
    judged: Counter[tuple[int, str]] = Counter()
    for row, at in zip(found, pool.rows_of([row.pair for row in found]) if found else [], strict=True):
        if at is None:
            continue
        by = int(longer_by[at]) * (1 if row.self_label == "a" else -1)
        groups = [LONGER if by > 0 else SHORTER] if by else []
        groups += [domains[domain[at]]] if len(domains) > 1 else []
        for group in groups:
            judged[row.round, group] += 1
            right[row.round, group] += row.preferred == row.self_label
    shares: dict[int, Groups] = {}
    for (index, group), n in sorted(judged.items()):
        shares.setdefault(index, {})[group] = clopper_pearson(right[index, group], n)
    return shares
