"""The pure parts of benchmarks.throughput: which pairs, how much work, which figures."""

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import throughput
from benchmarks.throughput import distinct, enough_texts, flop, summary, table, trl_batches, whole_groups
from ser_backend.errors import SerError


def test_groups_come_whole_and_in_the_order_they_arrived() -> None:
    rows = pd.DataFrame({"group": list("abacbcad"), "n": range(8)})
    found = whole_groups(rows, 4)
    assert len(found) >= 4
    for group in set(found["group"]):
        assert (found["group"] == group).sum() == (rows["group"] == group).sum()
    assert found["n"].is_monotonic_increasing
    assert len(whole_groups(rows, 100)) == 8


def test_groups_are_added_until_there_are_texts_enough() -> None:
    """Twelve groups of three pairs over three texts each."""
    texts = ["x", "y", "z"]
    rows = pd.DataFrame(
        [
            {"group": str(g), "prompt": str(g), "chosen": texts[i], "rejected": texts[(i + 1) % 3]}
            for g in range(12)
            for i in range(3)
        ]
    )
    found = enough_texts(rows, 20)
    assert 20 <= len(distinct(found.to_dict("records"))[0]) < 36
    assert all((found["group"] == group).sum() == 3 for group in set(found["group"]))
    assert len(enough_texts(rows, 1_000)) == 36


def test_a_text_counts_once_however_many_pairs_it_is_in() -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "c"},
        {"prompt": "q", "chosen": "a", "rejected": "c"},
    ]
    responses, chosen, rejected = distinct(rows)
    assert [(r.prompt, r.text) for r in responses] == [("p", "a"), ("q", "a"), ("p", "b"), ("p", "c"), ("q", "c")]
    assert chosen.tolist() == [0, 0, 1]
    assert rejected.tolist() == [2, 3, 4]


def test_operations_of_a_worked_example() -> None:
    # 1 layer of 10 weights, width 2: texts of 3 and 1 tokens; the head's 5 weights once a text
    assert flop([3, 1], 10, 5, 1, 2) == 2 * 10 * 4 + 4 * 2 * (9 + 1) + 2 * 5 * 2


def test_operations_are_those_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=1
    )
    config._attn_implementation = "eager"  # the counter knows no fused attention
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.ones(3, 20, dtype=torch.long))
    assert flop([20] * 3, **throughput._shape(model)) == counter.get_total_flops()


def test_trl_batches_are_every_row_once() -> None:
    found = trl_batches(21)
    assert [len(batch) for batch in found] == [8, 8, 5]
    assert sorted(np.concatenate(found)) == list(range(21))


def result(pace: float, **more: object) -> dict[str, object]:
    return {"pairs_per_second": pace, "tokens_per_second": 10 * pace, "peak_bytes": 2**20, **more}


def test_figures_are_ratios_of_medians_and_against_the_stronger_rival() -> None:
    found = {
        "ceiling": [90.0, 100.0, 110.0],
        "score": {
            "ours": [result(8, flops=70.0, rewards=[1.0, 2.0, 9.0], cut=[False, False, True])]
            + [result(pace, flops=80.0, rewards=[]) for pace in (9, 20)],
            "pipeline": [result(3, rewards=[1.0, 2.5, 0.0])],
        },
        "train": {
            "ours": [result(12, flops=60.0)],
            "trl": [result(2, losses=[0.5, 0.25])],
            "trl-32": [result(4)],
            "steps": [result(5, losses=[0.5, 0.125])],
        },
    }
    made = summary(found)
    assert made["score"]["ratio_to_pipeline"] == 3
    assert made["score"]["share_of_matmul"] == made["score"]["share_of_matmul_same_texts"] == pytest.approx(0.8)
    more = found | {"score": found["score"] | {"many": [result(30, flops=90.0)]}}
    assert summary(more)["score"]["share_of_matmul"] == pytest.approx(0.9)
    assert summary(more)["score"]["share_of_matmul_same_texts"] == pytest.approx(0.8)
    assert summary(more)["score"]["ratio_to_pipeline"] == 3
    assert made["train"]["ratio_to_trl"] == 3
    assert made["train"]["ratio_to_trl_same_steps"] == 2.5
    assert made["train"]["ratio_to_trl_frozen"] is None
    assert made["max_reward_difference"] == 0.5, "a response that was cut is another text to the pipeline"
    assert made["max_loss_difference"] == 0.125
    assert "| ukp | train | trl | 2.0 | 20 | 1 | 6.00 x |" in table({"ukp": made})


def test_without_a_gpu_it_says_so(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert throughput.main(["--data", "x.jsonl", "--device", "cuda"]) == 1
    assert "No CUDA GPU" in capsys.readouterr().err


def test_columns_that_are_missing_are_named(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "p", "chosen": "c"}\n')
    with pytest.raises(SerError, match="rejected"):
        throughput.read(str(path))


def test_the_decoder_of_the_gpu_part_gives_rewards(tmp_path) -> None:
    from ser_backend.transformer.classifier import Classifier

    facts = throughput.MODEL_CONFIGS["qwen-0.5b"] | {
        "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 32,
    }  # fmt: skip
    rows = [{"prompt": "say it", "chosen": "yes it is", "rejected": "no"}]
    throughput.decoder(facts, rows, tmp_path)
    model = Classifier.load(str(tmp_path), max_length=32, fit="lora")
    found = [rewards for _, rewards in model.rewards(model.tokenise(distinct(rows)[0]))]
    assert np.isfinite(np.concatenate(found)).all()
