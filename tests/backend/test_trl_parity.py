"""The same batches of pairs give the same losses and weights as trl's RewardTrainer, step by step."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from ser_backend.records import Response
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.fine_tune import fine_tune
from ser_backend.transformer.plan import Examples, Recipe

pytest.importorskip("trl")

STEPS, BATCH, RATE, CENTRING = 5, 4, 1e-3, 0.01


def test_losses_and_weights_agree_with_trl(tmp_path: Path) -> None:
    import datasets
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    datasets.disable_progress_bars()
    made = Classifier.load(tiny.build("bert", tmp_path / "base", hidden=32), max_length=32)
    (tmp_path / "model").mkdir()
    made.save(tmp_path / "model")
    random = np.random.default_rng(0)
    words = np.array([*tiny.GOOD, *tiny.BAD, *tiny.PLAIN])
    n = STEPS * BATCH
    texts = [
        Response(str(i), "say it", " ".join(random.choice(words, random.integers(2, 20)))) for i in range(n + n // 2)
    ]
    chosen, rejected = np.arange(n), n + np.arange(n) // 2  # every other text in two pairs of a step

    ours = Classifier.open(tmp_path / "model")
    table = ours.tokenise(texts)
    plan = [np.arange(i, i + BATCH) for i in range(0, n, BATCH)]
    recipe = Recipe(learning_rate=RATE, warmup=0, centring=CENTRING)
    told = list(fine_tune(ours, table, Examples.of(chosen, rejected), recipe, steps=plan))[-1]

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, *_: object) -> object:
            return torch.utils.data.SequentialSampler(data)

    data = datasets.Dataset.from_list(
        [
            {"chosen_ids": table.text(c).tolist(), "rejected_ids": table.text(r).tolist()}
            for c, r in zip(chosen, rejected, strict=True)
        ]
    )
    tokenizer = ours.tokenizer
    tokenizer.eos_token = tokenizer.sep_token
    args = RewardConfig(
        str(tmp_path / "out"), per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE, bf16=False,
        gradient_checkpointing=False, lr_scheduler_type="linear", warmup_steps=0, center_rewards_coefficient=CENTRING,
        max_length=32, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32)
    trainer = InOrder(theirs, args, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    assert len(losses) == STEPS
    assert np.ptp(losses) > 1e-3
    assert np.abs(np.array(losses) - [step.loss for step in told.curve]).max() < 1e-5
    with torch.no_grad():
        ids, mask = (torch.from_numpy(part) for part in table.padded(range(len(table)), ours.pad))
        found = theirs(input_ids=ids, attention_mask=mask).logits[:, 0]
        assert (found - ours.forward(table, range(len(table)))).abs().max() < 1e-4
