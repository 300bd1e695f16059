import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from ser_backend import ingest, profile
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.evolution.run_data import prepare
from ser_backend.metrics import wilson
from ser_backend.pairs import PairSet
from ser_backend.profile import apart, figures, personal
from ser_backend.records import Dataset, Role
from ser_backend.store import Store


@pytest.fixture
def store(ser_home: Path) -> Store:
    return Store.open()


def stored(store: Store, tmp_path: Path, rows: list[dict], role: Role = "seed", name: str = "set") -> Dataset:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return ingest.import_source(store, path, role).dataset


def row(prompt: str, a: str, b: str, preferred: str = "response_a", **more: str) -> dict:
    return {"prompt": prompt, "response_a": a, "response_b": b, "preferred": preferred, **more}


def found_of(dataset: Dataset) -> profile.Profile:
    return figures.of_set(PairSet.open(dataset.id))


def finding(found: profile.Profile, name: str, role: Role = "seed") -> profile.Finding:
    return next(one for one in profile.findings(found, role) if one.name == name)


# ---- labels


def test_length_bias_is_the_share_counted_by_hand_with_wilsons_interval(store, tmp_path):
    rows = [row(f"p{i}", "long " * 5 + str(i), f"s {i}") for i in range(30)]  # the longer one wins
    rows += [row(f"q{i}", f"t {i}", "long " * 5 + str(i)) for i in range(8)]  # the shorter one does
    rows += [row(f"r{i}", f"same {i:02}", f"size {i:02}") for i in range(6)]  # equally long
    rows += [row(f"t{i}", f"a {i}", f"longer {i}", "tie") for i in range(4)]
    found = found_of(stored(store, tmp_path, rows))
    assert found.labels.longer == wilson(30, 38)
    assert (found.labels.n_ties, found.labels.n_equal) == (4, 6)
    assert found.length_rule == wilson(30 + 3, 44)  # equally long ones count a half
    assert found.rule_prefers == "longer"
    assert finding(found, "length").level == "warning"


def test_where_the_shorter_wins_the_rule_is_the_other_way_round(store, tmp_path):
    found = found_of(stored(store, tmp_path, [row(f"p{i}", f"s {i}", "long " * 5 + str(i)) for i in range(40)]))
    assert (found.rule_prefers, found.length_rule) == ("shorter", wilson(40, 40))
    assert finding(found, "length").level == "warning"


def test_the_order_of_a_and_b_is_a_coin(store, tmp_path):
    """All rows prefer their first response; where it stands in the store is drawn."""
    found = found_of(stored(store, tmp_path, [row(f"p{i}", f"one {i}", f"two {i}") for i in range(2_000)]))
    assert abs(found.labels.a.value - 0.5) < 4 * 0.5 / 2_000**0.5
    assert found.labels.a.n == 2_000


def test_an_interval_holds_the_truth_about_95_times_in_100():
    """The formula behind the shares, against a simulation."""
    drawn = np.random.default_rng(0)
    held = [(w := wilson(int(drawn.binomial(200, 0.62)), 200)).low <= 0.62 <= w.high for _ in range(2_000)]
    assert 0.93 < np.mean(held) < 0.97


def test_by_domain(store, tmp_path):
    rows = [row(f"p{i}", "long " * 5 + str(i), f"s {i}", domain="x") for i in range(9)]
    rows += [row(f"q{i}", f"s {i}", "long " * 5 + str(i), domain="y") for i in range(5)]
    found = found_of(stored(store, tmp_path, rows))
    assert [(part.name, part.n_pairs, part.longer.value) for part in found.domains] == [("x", 9, 1.0), ("y", 5, 0.0)]


def test_a_pool_has_no_figure_about_labels(store, tmp_path):
    rows = [row(f"p{i}", "long " * 5 + str(i), f"s {i}") for i in range(30)]
    other = [row(f"p{i}", "long " * 5 + str(i), f"s {i}", "response_b") for i in range(30)]
    found = found_of(stored(store, tmp_path, rows, "pool"))
    assert found.labels is None
    assert found.length_rule is None
    assert not {"length", "ties", "contradictions"} & {one.name for one in profile.findings(found, "pool")}
    assert stored(store, tmp_path, other, "pool", "other").id == stored(store, tmp_path, rows, "pool").id


# ---- repetitions


def test_repetitions_contradictions_and_pairs_of_one_text(store, tmp_path):
    rows = [
        row("Why?", "Because.", "No idea."),
        row("why?", "NO  idea.", "because."),  # the like the other way round: contradicts the first, and repeats it
        row("Why?", "because.", "no idea.\n"),  # as the first says
        row("Why?", "Same text", "same  TEXT"),
        row("Who?", "Because.", "No idea."),  # another prompt
    ]
    found = found_of(stored(store, tmp_path, rows))
    assert found.n_near == 2
    assert found.n_same_texts == 1
    assert found.n_contradicting == 3
    assert found.n_circular == 3
    assert found.same_rows == [3]
    assert {"contradictions", "same", "near"} <= {
        one.name for one in profile.findings(found, "seed") if one.level == "warning"
    }


def test_circles_are_found_whatever_their_length(store, tmp_path):
    ring = [row("p", f"r{i}", f"r{(i + 1) % 5}") for i in range(5)]
    chain = [row("q", f"c{i}", f"c{i + 1}") for i in range(5)]
    found = found_of(stored(store, tmp_path, ring + chain + [row("p", "r0", "outside")]))
    assert (found.n_circular, found.n_contradicting) == (5, 0)


def test_a_tie_neither_contradicts_nor_closes_a_circle(store, tmp_path):
    rows = [row("p", "x", "y"), row("p", "y", "z"), row("p", "z", "x", "tie"), row("P", "Y", "X", "tie")]
    found = found_of(stored(store, tmp_path, rows))
    assert (found.n_circular, found.n_contradicting, found.n_near) == (0, 0, 1)


# ---- prompts


def test_nothing_shared_is_a_warning(store, tmp_path):
    alone = found_of(stored(store, tmp_path, [row(f"p{i}", f"a{i}", f"b{i}") for i in range(20)]))
    assert (alone.n_shared_prompts, alone.n_shared_responses, alone.n_prompts_labelled_twice) == (0, 0, 0)
    assert finding(alone, "prompts").level == "warning"
    assert "hardly add information" in finding(alone, "prompts").meaning
    rows = [row(f"p{i // 4}", f"a{i}", f"b{i}", "tie" if i % 4 else "response_a") for i in range(20)]
    together = found_of(stored(store, tmp_path, rows, name="together"))
    assert (together.n_prompts, together.n_shared_prompts, together.n_pairs_shared, together.most_pairs) == (
        5,
        5,
        20,
        4,
    )
    assert together.n_prompts_labelled_twice == 0  # one decided label each
    assert finding(together, "prompts").level == "fine"


# ---- lengths and writing


def test_lengths_are_counted_in_characters_and_the_cut_is_estimated(store, tmp_path):
    rows = [row(f"p{i:02}", f"ä{'x' * 5_000}{i:02}", f"short {i:02}") for i in range(10)]
    found = found_of(stored(store, tmp_path, rows))
    assert found.quantiles["response"][3] == 5_003
    assert found.quantiles["prompt"] == [3, 3, 3, 3]
    assert sum(found.histogram["response"]) == 20
    assert sum(found.histogram["prompt"]) == 10
    assert found.cut["512"] == 0.5
    assert found.cut["2048"] == 0
    assert finding(found, "lengths").level == "warning"


def test_writing_systems(store, tmp_path):
    rows = [row(f"p{i}", f"Это ответ {i}", f"это другой {i}") for i in range(10)]
    rows += [row(f"q{i}", f"Ça va été {i}", f"plain {i}") for i in range(10)]
    found = found_of(stored(store, tmp_path, rows))
    assert found.scripts == {"Cyrillic": 20, "Latin": 20}
    assert finding(found, "scripts").level == "warning"


def test_only_writing_systems_are_sampled_and_it_is_said(store, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "SAMPLED", 10)
    found = found_of(stored(store, tmp_path, [row(f"p{i}", f"answer {i}", f"other {i}") for i in range(100)]))
    assert found.n_sampled == 10
    assert "a sample of 10" in finding(found, "scripts").found
    assert sum(found.histogram["response"]) == 200


# ---- personal data

KNOWN = {
    "e-mail address": ["jane.doe+x@mail.somewhere.org", "müller@beispiel.de"],
    "telephone number": ["+49 170 1234567", "(555) 123-4567", "555-123-4567", "0170 1234567"],
    "credit card number": ["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
    "IP address": ["91.198.174.192", "2a00:1450:4001:081c:0000:0000:0000:200e"],
    "key or token": ["sk-" + "a1B2" * 8, "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a" * 36, "-----BEGIN RSA PRIVATE KEY-----"],
}
OTHERS = [
    "on 2020-01-02 at 10:30",
    "1,234,567.89 euros and 10 000 000 people",
    "4111 1111 1111 1112",  # fails Luhn
    "GB83WEST12345698765432",  # fails modulo 97
    "127.0.0.1 and 192.168.0.1",
    "version 1.2.3.4.5",
    "999.999.1.1",
    "12 13 14 15 16 17 18 19 20 21",
    "a@b",
    "info@example.com, x@mail.example.org and root@host.test",  # reserved: nobody's
    "task-force, ask-me, risk-averse-behaviour-of-people",
    "0.1234567890123456",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in KNOWN.items() for text in texts])
def test_personal_data_is_found_and_masked(kind, text):
    places = list(personal.found_in(f"Say {text}, please."))
    assert [name for name, _ in places] == [kind]
    assert personal.re.search(personal.SUSPECT, text)
    mask = personal.masked(*places[0])
    assert mask != text
    shown = sum(a == b and a.isalnum() for a, b in zip(mask, text, strict=False))
    assert shown <= max(5, len(text) // 2)


@pytest.mark.parametrize("text", OTHERS)
def test_other_numbers_are_left_alone(text):
    assert list(personal.found_in(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "2.0.0.1",
        "since 1.4.2.0 it works",
        "version 12.4.0.1",
        "Version: 10.12.6.1",
        "v 24.10.0.2",
        "v24.10.0.2",
        "Release 20.4.11.3",
        "firmware 103.21.5.2",
        "updated to 12.4.0.1",
        "the build number 17.3.0.11",
        "Mozilla/51.15.20.3",
        "numpy==12.4.0.1",
        "see section 12.4.10.1",
        "051.015.020.003",
        "8.8.8.8",
        "203.0.113.7, 198.51.100.2 and 224.0.0.12",  # kept for documentation, multicast
        "169.254.10.12",
        "100.64.10.12",
    ],
)
def test_versions_and_reserved_addresses_are_nobodys(text):
    assert list(personal.found_in(f"Say {text}, please.")) == []


@pytest.mark.parametrize(
    "text",
    [
        "51.15.20.3",
        "1.0.0.12",
        "http://51.15.20.3/x",
        "51.15.20.3:8080",
        "51.15.20.3/24",
        "user@51.15.20.3",
        "the server 51.15.20.3",
        "The old version runs on 51.15.20.3",
        "conversion 51.15.20.3",
        "Update the DNS record: 51.15.20.3",
    ],
)
def test_addresses_of_somebody_are_found_wherever_they_stand(text):
    assert [kind for kind, _ in personal.found_in(f"Say {text}, please.")] == ["IP address"]


def test_checksums_catch_every_single_wrong_digit():
    card, account = "4539578763621486", "DE89370400440532013000"
    assert personal.luhn(card)
    assert personal.iban(account)
    for place, old in enumerate(card):
        assert not any(personal.luhn(card[:place] + new + card[place + 1 :]) for new in "0123456789" if new != old)
    for place, old in enumerate(account[2:], start=2):
        assert not any(
            personal.iban(account[:place] + new + account[place + 1 :]) for new in "0123456789" if new != old
        )


HOSTILE = [
    "a",
    "a@",
    "@",
    "a.",
    "a@b.",
    "a@b",
    "1",
    "1 ",
    "1.",
    "+1",
    "+1 ()",
    "a:",
    "AA11",
    "AA11 ",
    "eyJ",
    "sk-",
    "0123 ",
]
HOSTILE += ["(555) ", "-----BEGIN ", "é@é.", "a-", "x@a-", "eyJaaaaaaaaaaaa.eyJ"]


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_the_length_of_a_text_and_no_faster(unit):
    def seconds(n: int) -> float:
        text = unit * (n // len(unit))
        begun = time.process_time()
        sum(1 for _ in personal.found_in(text))
        return time.process_time() - begun

    short = max(min(seconds(50_000) for _ in range(3)), 0.002)
    assert seconds(400_000) < 5 * 8 * short  # 8 times the text; what grows with its square would take 64 times as long


def test_what_is_found_is_counted_by_pair_with_five_masked_examples(store, tmp_path):
    rows = [row(f"Write to me{i}@somewhere.org", f"one {i}", f"two {i}") for i in range(7)]
    rows += [row("Where?", f"Call +49 170 12345{i:02} or +49 170 76543{i:02}", f"no {i}") for i in range(3)]
    rows += [row(f"p{i}", f"plain {i}", f"other {i}") for i in range(20)]
    dataset = stored(store, tmp_path, rows)
    found = {one.kind: one for one in found_of(dataset).personal}
    assert {kind: (one.n_pairs, one.n_places) for kind, one in found.items()} == {
        "e-mail address": (7, 7),
        "telephone number": (3, 6),
    }
    assert len(found["e-mail address"].examples) == 5
    first = found["e-mail address"].examples[0]
    assert (first.row, first.source) == (0, "set.jsonl:1")
    assert "me0" not in first.masked
    assert "somewhere" not in first.masked


# ---- what it is there for


def test_a_held_out_set_is_told_of_measuring_and_a_seed_of_learning(store, tmp_path):
    rows = [row("p", "long long", "b"), row("p", "b", "c"), row("p", "c", "long long"), row("q", "Same", "same ")]
    rows += [row("q", "SAME", "other one")] * 2 + [row("r", "x", "y", "tie")] + [row("q", "same", "other one")]
    found = found_of(stored(store, tmp_path, rows, "heldout"))
    said = {
        role: {one.name: one.meaning for one in profile.findings(found, role)} for role in ("seed", "pool", "heldout")
    }
    assert not [name for name, meaning in said["heldout"].items() if " seed" in meaning or " teach" in meaning]
    assert "the accuracy measured here says little of others" in said["heldout"]["groups"]
    assert "Where no held-out set is given, a part of the seed is held out" in said["seed"]["groups"]
    assert "accuracy measured here" not in " ".join([*said["seed"].values(), *said["pool"].values()])
    assert "first model is little better than a guess" in said["seed"]["count"]
    assert "left out of accuracy" in said["heldout"]["ties"]
    assert "left out of training" in said["seed"]["ties"]
    assert "Settle them in the source" in said["heldout"]["contradictions"]
    assert "queue of doubtful seed labels" in said["seed"]["contradictions"]


def test_few_held_out_labels_are_told_with_what_they_can_tell(store, tmp_path):
    """At one half the 95 % interval of a share of n is 1.96 * sqrt(0.25 / n) on either side: 14 points at 49."""
    found = found_of(stored(store, tmp_path, [row(f"p{i}", f"a {i}", f"b {i}") for i in range(49)], "heldout"))
    assert "known to about ± 14 points" in finding(found, "count", "heldout").meaning
    assert finding(found, "prompts", "heldout").level == "fine"
    assert finding(found, "prompts", "seed").level == "warning"


# ---- kept beside the set


def test_it_is_counted_once_and_read_back_the_same(store, tmp_path, monkeypatch):
    rows = [row(f"p{i}", f"long long {i}", f"b {i}", domain=f"d{i % 3}") for i in range(30)]
    rows.append(row("p0", "mail a@somewhere.org", "b"))
    dataset = stored(store, tmp_path, [*rows, {**rows[0], "response_a": ""}])
    assert profile.known(dataset.id) is None
    seen: list[tuple[int, int]] = []
    first = profile.profile(dataset.id, lambda done, n: seen.append((done, n)))
    assert seen[-1] == (dataset.n_responses, dataset.n_responses)
    monkeypatch.setattr(profile, "of_set", None)
    assert profile.profile(dataset.id) == profile.known(dataset.id) == first
    assert first.kinds[0].message == "The response is empty."
    monkeypatch.setattr(profile, "VERSION", profile.VERSION + 1)
    assert profile.known(dataset.id) is None


def test_a_process_of_its_own_counts_the_same_and_ends_with_who_asked(store, tmp_path, monkeypatch):
    dataset = stored(store, tmp_path, [row(f"p{i}", f"long long {i}", f"b {i}") for i in range(30)])
    kept = PairSet.open(dataset.id).folder / profile.FILE
    here = profile.profile(dataset.id)
    kept.unlink()
    seen: list[tuple[int, int]] = []
    assert apart.counted(dataset.id, lambda done, n: seen.append((done, n))) == here
    assert seen[-1] == (60, 60)
    kept.unlink()

    def leaves(done: int, n: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apart.counted(dataset.id, leaves)
    assert not [p for p in psutil.Process().children() if "apart" in " ".join(p.cmdline())]
    kept.unlink(missing_ok=True)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SerError, match="exit code 1"):
        apart.counted(dataset.id, leaves)


def test_the_whole_of_a_set_is_never_in_memory(store, tmp_path, monkeypatch):
    """Texts are read batch by batch, and the result does not depend on where batches end."""
    drawn = random.Random(0)
    rows = [row(f"p{drawn.randrange(40)}", f"a {drawn.randrange(50)}", f"b {i}") for i in range(300)]
    whole = found_of(stored(store, tmp_path, rows, name="whole"))
    monkeypatch.setattr("ser_backend.pairs.writer.BATCH_PAIRS", 7)
    dataset = stored(store, tmp_path, [*rows, row("z", "z", "y")], name="parts")
    source = PairSet.open(dataset.id)
    assert max(len(batch) for batch in source.response_batches()) <= 14
    parts = figures.of_set(source)
    assert parts.n_near == whole.n_near
    assert sum(parts.histogram["response"]) == sum(whole.histogram["response"]) + 2
    assert parts.n_shared_responses == whole.n_shared_responses


# ---- across sets


@pytest.fixture
def three(store, tmp_path) -> dict[Role, Dataset]:
    seed = [row(f"s{i}", f"a{i}", f"b{i}") for i in range(30)]
    held = [*seed[:3], row("s3", "another", "pair"), *(row(f"h{i}", f"a{i}", f"b{i}") for i in range(12))]
    pool = [*seed[5:9], row("s9", "x", "y"), row("h0", "x", "y"), held[5], *(row(f"q{i}", "x", "y") for i in range(20))]
    sets: dict[Role, list[dict]] = {"seed": seed, "heldout": held, "pool": pool}
    return {role: stored(store, tmp_path, rows, role, role) for role, rows in sets.items()}


def test_what_sets_share_is_what_a_run_leaves_out(three):
    found = profile.across({role: dataset.id for role, dataset in three.items()})
    assert found.cells["seed", "heldout"] == profile.Shared(30, 3, 4)
    assert found.cells["pool", "heldout"] == profile.Shared(27, 1, 2)
    assert found.cells["pool", "seed"] == profile.Shared(27, 4, 5)
    seed, pool, heldout = (PairSet.open(three[role].id) for role in ("seed", "pool", "heldout"))
    counts = prepare(seed, pool, heldout, RunConfig()).counts
    assert counts["seed_left_out"] == found.cells["seed", "heldout"].same_group
    assert counts["pool_in_seed"] == found.cells["pool", "seed"].same_pair
    assert counts["pool_in_heldout"] + counts["pool_near_heldout"] == found.cells["pool", "heldout"].same_group
    assert len(found.warnings) == 3
    assert found.warnings[0].startswith("4 of 30 seed pairs are in the held-out set (3)")
    assert "1 of 27 pool pairs (3.7 %)" in found.carried


def test_what_is_shared_is_counted_once(three, monkeypatch):
    ids = {role: dataset.id for role, dataset in three.items()}
    first = profile.across(ids)
    monkeypatch.setattr("ser_backend.pairs.overlap", None)
    assert profile.across(ids) == first


def test_a_set_that_is_gone_is_named():
    with pytest.raises(SerError, match="There are no files"):
        profile.across({"seed": "a" * 32, "pool": "b" * 32})
