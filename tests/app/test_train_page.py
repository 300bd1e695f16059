import pytest
from fabricate import a_round, end, rows, texts, write_jsonl

from ser_backend import config, config_file, ingest, jobs
from ser_backend.cost import forecast, machine
from ser_backend.cost.forecast import Measured, Note, Work
from ser_backend.cost.machine import GIB, Gpu, Machine
from ser_backend.records import Status

LAPTOP = Machine(2, 24 * GIB)
MEASURED = Measured(
    fit="head", device="cpu", memory=24 * GIB, once=30.0, n_new=70, stage=0.3, seed=Work(0, 1.0, 0), pool=Work(0, 2.0, 0),
    end=0.0, step=0.0, tokens_per_second=900.0, peak_memory=2 * GIB, notes=("Tried out.",),
)  # fmt: skip


@pytest.fixture(autouse=True)
def a_laptop(monkeypatch):
    """Whatever these tests run on."""
    for module in (machine, jobs):
        monkeypatch.setattr(module, "this_machine", lambda: LAPTOP)


def measured(key):
    forecast.write(key, Note("ready", "", forecast.read(key).asked, MEASURED))


def test_without_data_the_page_says_where_to_get_some(open_page):
    page = open_page("train")
    assert "no seed and no pool set yet" in texts(page)
    assert not page.button


def test_the_plan_is_told_before_the_start(open_page, sets):
    page = open_page("train")
    assert "**30** of 30 labelled seed pairs train the first model" in texts(page)
    assert "**10** labelled pairs of the held-out set" in texts(page)
    assert "**40** of 40 pool pairs are open" in texts(page)


def test_without_a_held_out_set_the_page_says_that_a_part_of_the_seed_is_held_out(open_page, sets):
    page = open_page("train")
    page = page.selectbox(key="pick-heldout").set_value("none: hold out a part of the seed").run()
    assert "No held-out set was given" in texts(page)
    assert "held out from the seed" in texts(page)


def test_the_form_begins_with_sets_that_belong_together(open_page, store, sets, tmp_path):
    """Not with the newest of each role; another seed brings its own pool, and what was picked stays."""
    known = {}
    for name, role in (("a-seed", "seed"), ("a-pool", "pool"), ("b-seed", "seed"), ("b-pool", "pool")):
        source = write_jsonl(tmp_path / f"{name}.jsonl", rows(12, name))
        known[name] = ingest.import_source(store, source, role).dataset.id
    page = open_page("train")
    values = lambda page: [page.selectbox(key=f"pick-{role}").value for role in ("seed", "pool")]  # noqa: E731
    assert values(page) in ([known["a-seed"], known["a-pool"]], [known["b-seed"], known["b-pool"]])
    assert "belong together" not in texts(page)
    page = page.selectbox(key="pick-seed").set_value(known["a-seed"]).run()
    assert values(page) == [known["a-seed"], known["a-pool"]]
    page = page.selectbox(key="pick-pool").set_value(sets["pool"].id).run()
    assert values(page) == [known["a-seed"], sets["pool"].id]
    assert "Neither their names nor a run say that this seed and this pool belong together." in texts(page)
    page = page.switch_page("views/home.py").run().switch_page("views/train.py").run()
    assert values(page) == [known["a-seed"], sets["pool"].id], "kept while one looks elsewhere"


def test_how_much_of_the_seed_a_held_out_set_takes_is_told(open_page, store, sets, tmp_path):
    content = rows(40, "shared")
    mine = ingest.import_source(store, write_jsonl(tmp_path / "s-seed.jsonl", content), "seed").dataset
    held = ingest.import_source(store, write_jsonl(tmp_path / "s-heldout.jsonl", content[:25]), "heldout").dataset
    page = open_page("train").selectbox(key="pick-seed").set_value(mine.id).run()
    page = page.selectbox(key="pick-heldout").set_value(held.id).run()
    assert "**15** of 40 labelled seed pairs train the first model" in texts(page)
    assert "25 seed pairs are in the held-out set or share a prompt group with it" in texts(page)


def test_a_held_out_set_that_nothing_ties_to_the_seed_is_pointed_at(open_page, store, sets, tmp_path):
    said = "Neither its name nor a run says that this held-out set belongs to this seed and pool"
    for name, role in (("a-seed", "seed"), ("a-pool", "pool"), ("a-heldout", "heldout")):
        source = write_jsonl(tmp_path / f"{name}.jsonl", rows(12, name))
        ingest.import_source(store, source, role)
    page = open_page("train")
    other = next(found.id for found in store.datasets("heldout") if found.name == "a-heldout")
    mine = next(found.id for found in store.datasets("seed") if found.name == "a-seed")
    page = page.selectbox(key="pick-seed").set_value(mine).run()
    assert page.selectbox(key="pick-heldout").value == other
    assert said not in texts(page)
    page = page.selectbox(key="pick-heldout").set_value(sets["heldout"].id).run()
    assert said in texts(page)
    page = page.selectbox(key="pick-heldout").set_value("none: hold out a part of the seed").run()
    assert said not in texts(page)


def test_what_one_said_to_begin_with_is_waited_for(open_page, sets):
    start = lambda page: next(b for b in page.button if b.label == "Start training")  # noqa: E731
    page = open_page("train")
    assert not start(page).disabled
    page = page.segmented_control(key="begin-with").set_value("A file").run()
    assert start(page).disabled, "else a preset would be run"
    page = page.segmented_control(key="begin-with").set_value("A preset").run()
    assert not start(page).disabled


def test_start_queues_a_run_and_leads_to_watch(open_page, store, sets):
    page = open_page("train")
    page = next(b for b in page.button if b.label == "Start training").click().run()
    assert not page.exception
    (run,) = store.runs()
    assert run.status == Status.QUEUED
    assert run.heldout == sets["heldout"].id
    assert config.RunConfig(**run.config) == config.from_preset(config.DEFAULT_PRESET, "laptop")
    assert "Is it getting better?" in texts(page)
    assert "Number 1 in the queue" in texts(page)


def shown(page):
    return {w.label.strip("`"): w.help for w in (*page.selectbox, *page.number_input, *page.text_input)}


METHODS = config.describe()["method"]["among"]


@pytest.mark.parametrize(
    ("fit", "method"), [("head", "paper"), ("lora", "paper"), ("full", "naive"), *(("head", m) for m in METHODS[1:])]
)
def test_the_form_has_every_setting_of_the_chosen_fit_and_method_with_its_one_description(open_page, sets, fit, method):
    page = open_page("train")
    page = page.selectbox(key="setting-laptop-fit").set_value(fit).run()
    page = page.selectbox(key=f"setting-{config.DEFAULT_PRESET}-method").set_value(method).run()
    assert not page.exception
    for name, entry in config.describe().items():
        if (not entry["fits"] or fit in entry["fits"]) and (not entry["methods"] or method in entry["methods"]):
            assert shown(page)[name] == entry["help"]
        else:
            assert name not in shown(page)


def test_a_calibrated_run_is_chosen_and_what_its_rounds_are_is_told(open_page, store, sets):
    page = open_page("train")
    page = page.selectbox(key=f"setting-{config.DEFAULT_PRESET}-method").set_value("paper").run()
    assert "waits for answers" not in texts(page)
    page = page.selectbox(key=f"setting-{config.DEFAULT_PRESET}-method").set_value("calibrated").run()
    assert "one labels the whole pool, each further one waits for answers in Review" in texts(page)
    page.number_input(key=f"setting-{config.DEFAULT_PRESET}-target_precision").set_value(0.9)
    page = page.run()
    next(b for b in page.button if b.label == "Start training").click().run()
    assert (store.runs()[0].config["method"], store.runs()[0].config["target_precision"]) == ("calibrated", 0.9)


def test_settings_stand_in_their_sections(open_page, sets):
    page = open_page("train")
    assert "**Fine-tuning**" not in texts(page)  # a head has none
    page = page.selectbox(key="engine").set_value("laptop-finetune").run()
    for section, about in config.SECTIONS.items():
        assert f"**{section}**" in texts(page)
        assert about in texts(page)
    rate = page.number_input(key="setting-laptop-finetune-learning_rate")
    assert rate.value == 1e-4
    assert rate.proto.format == "%g"  # 0.0001, not 0.00


def test_a_preset_brings_its_settings_and_a_change_is_submitted(open_page, store, sets):
    page = open_page("train")
    page = page.selectbox(key="preset").set_value("paper-code").run()
    page = page.selectbox(key="engine").set_value("laptop-finetune").run()
    page.number_input(key="setting-paper-code-rounds").set_value(1)
    page = page.run()
    next(b for b in page.button if b.label == "Start training").click().run()
    wanted = config.from_preset("paper-code", "laptop-finetune").changed({"rounds": 1})
    assert store.runs()[0].config == wanted.as_dict()


def test_waiting_runs_are_listed(open_page, store, sets):
    page = open_page("train")
    next(b for b in page.button if b.label == "Start training").click().run()
    page = open_page("train")
    assert "number 1 in the queue" in texts(page)


def test_the_engine_is_chosen_by_the_machine_and_the_page_says_so(open_page, sets, monkeypatch):
    assert "2 cores and no GPU were found, so the laptop engine is chosen." in texts(open_page("train"))
    monkeypatch.setattr(machine, "this_machine", lambda: Machine(16, 128 * GIB, (Gpu("A10G", 24 * GIB),)))
    page = open_page("train")
    assert page.selectbox(key="engine").value == "gpu-small"
    assert "so the gpu-small engine is chosen" in texts(page)


def test_an_engine_beyond_the_machine_is_warned_of_and_can_be_started(open_page, sets, store):
    page = open_page("train")
    page = page.selectbox(key="engine").set_value("gpu-large").run()
    assert "meant for a GPU with 40 GiB; no GPU was found" in texts(page)
    next(b for b in page.button if b.label == "Start training").click().run()
    assert store.runs()[0].config["base_model"] == "Qwen/Qwen3-8B"


def test_the_duration_is_told_before_the_start_and_kept_with_the_run(open_page, store, sets, monkeypatch):
    monkeypatch.setattr(jobs, "start_dry_run", measured)
    open_page("train")
    page = open_page("train")
    assert "**About 37 s**: seed model 31 s, most of it for reading 70 texts" in texts(page)
    assert "peak memory 2.0 of 24 GiB" in texts(page)
    next(b for b in page.button if b.label == "Start training").click().run()
    assert jobs.estimated(store.runs()[0].id).n_new == 70
    assert "Estimated before the start: About 37 s" in texts(open_page("watch"))


def test_the_estimate_is_on_its_way_and_the_run_can_be_started_meanwhile(open_page, store, sets):
    page = open_page("train")
    assert "Trying out a few steps on this machine. You need not wait for it." in texts(page)
    next(b for b in page.button if b.label == "Start training").click().run()
    assert jobs.estimated(store.runs()[0].id) is None


def test_an_estimate_that_failed_says_why_and_can_be_made_again(open_page, store, sets, monkeypatch):
    monkeypatch.setattr(
        jobs, "start_dry_run", lambda key: forecast.write(key, Note("failed", "There is no such model.", {}))
    )
    open_page("train")
    page = open_page("train")
    assert "There is no such model." in texts(page)
    monkeypatch.setattr(jobs, "start_dry_run", measured)
    page = next(b for b in page.button if b.label == "Estimate again").click().run()
    assert "About 37 s" in texts(page)


def test_what_runs_found_of_a_seeds_labels_is_told_before_the_next(open_page, store, sets):
    assert "No run has looked at this seed yet" in texts(open_page("train"))
    found = {
        "learning_curve": {"in_words": "The next 100 bring +0.6 points."},
        "seed_audit": {"in_words": "2 look wrong."},
    }
    end(store, sets, Status.SUCCEEDED, [a_round(0, details=a_round(0).details | found)])
    said = texts(open_page("train"))
    assert "The next 100 bring +0.6 points." in said
    assert "2 look wrong." in said


# ---- begin with a run or a file


def begin_with(page, way):
    return page.segmented_control(key="begin-with").set_value(way).run()


def saved(page):
    (button,) = [b for b in page.get("download_button") if b.label == "Save these settings"]
    return button


def given(page, content, name="my.toml"):
    page = begin_with(page, "A file")
    return page.file_uploader(key="begin-file").set_value((name, content.encode(), "application/toml")).run()


def test_a_run_to_begin_with_brings_its_settings_and_data_and_what_is_changed_is_told(open_page, store, sets, tmp_path):
    found = end(store, sets, Status.SUCCEEDED, [a_round(0)], tau_delta=0.4, components=64)
    other = ingest.import_source(store, write_jsonl(tmp_path / "p2.jsonl", rows(30, "other")), "pool").dataset
    page = begin_with(open_page("train"), "A run")
    assert not page.exception
    assert "Nothing is changed: this would repeat run my run." in texts(page)
    assert not any(box.key == "preset" for box in page.selectbox)
    scope = f"run-{found.id}"
    assert page.number_input(key=f"setting-{scope}-components").value == 64
    assert page.selectbox(key=f"pick-pool-{scope}").value == sets["pool"].id  # not the newest
    page.number_input(key=f"setting-{scope}-tau_delta").set_value(0.45)
    page = page.selectbox(key=f"pick-pool-{scope}").set_value(other.id).run()
    assert "- tau_delta: 0.4 -> 0.45\n- pool set: pool -> p2" in texts(page)
    assert "One change at a time tells most" in texts(page)
    next(b for b in page.button if b.label == "Start training").click().run()
    started = store.runs()[0]
    assert started.pool == other.id
    assert started.config == found.config | {"tau_delta": 0.45}


def test_answers_of_the_run_to_begin_with_are_told_and_are_no_change(open_page, store, sets):
    end(store, sets, Status.SUCCEEDED, [a_round(0, details=a_round(0).details | {"n_reviews": 12})])
    said = texts(begin_with(open_page("train"), "A run"))
    assert "12 answers given in Review; a new one starts without them" in said
    assert "Nothing is changed" in said


def test_without_a_run_the_form_stays_that_of_a_preset(open_page, sets):
    page = begin_with(open_page("train"), "A run")
    assert "There is no run yet." in texts(page)
    assert page.selectbox(key="preset").value == config.DEFAULT_PRESET


def test_a_file_brings_its_settings_and_starts_the_same_run(open_page, store, sets):
    first = end(store, sets, Status.SUCCEEDED, [a_round(0)], tau_delta=0.1 + 0.2, random_seed=9)
    page = given(open_page("train"), config_file.of_run(store, first.id))
    assert not page.exception
    assert "Nothing is changed: this would repeat my.toml." in texts(page)
    next(b for b in page.button if b.label == "Start training").click().run()
    again = store.runs()[0]
    assert again.id != first.id
    assert (again.config, again.seed, again.pool, again.heldout) == (
        first.config,
        first.seed,
        first.pool,
        first.heldout,
    )


def test_a_file_without_a_held_out_set_holds_a_part_of_the_seed_out(open_page, store, sets):
    text = config_file.write(config.RunConfig(), {"seed": sets["seed"], "pool": sets["pool"]})
    assert "held out from the seed" in texts(given(open_page("train"), text))


def test_a_file_that_is_wrong_gets_a_sentence_and_the_form_stays(open_page, sets):
    page = given(open_page("train"), "[settings]\nround = 2")
    assert "my.toml holds the setting 'round', which there is none of. Did you mean 'rounds'?" in texts(page)
    assert page.selectbox(key="preset").value == config.DEFAULT_PRESET
    assert not page.exception


def test_a_file_for_other_data_says_which_and_lets_one_choose(open_page, store, sets):
    text = config_file.write(config.RunConfig(), sets).replace(sets["pool"].id, "f" * 32)
    page = given(open_page("train"), text)
    said = texts(page)
    assert "has other content" in said
    assert "- pool set: pool (not here) -> pool" in said
    assert any(b.label == "Start training" for b in page.button)


def test_the_settings_are_saved_as_they_stand(open_page, store, sets, monkeypatch):
    kept = []
    real = config_file.write
    monkeypatch.setattr(config_file, "write", lambda *given: kept.append(real(*given)) or kept[-1])
    page = open_page("train")
    page.number_input(key=f"setting-{config.DEFAULT_PRESET}-rounds").set_value(2)
    page = page.run()
    assert saved(page)
    read = config_file.read(kept[-1])
    assert read.config == config.from_preset(config.DEFAULT_PRESET, "laptop").changed({"rounds": 2})
    assert {role: named.content for role, named in read.data.items()} == {role: s.id for role, s in sets.items()}
