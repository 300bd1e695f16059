from fabricate import texts

from ser_backend import config
from ser_backend.records import Status


def test_without_data_the_page_says_where_to_get_some(open_page):
    page = open_page("train")
    assert "no seed and no pool set yet" in texts(page)
    assert not page.button


def test_the_plan_is_told_before_the_start(open_page, sets):
    page = open_page("train")
    assert "**30** labelled seed pairs train the first model" in texts(page)
    assert "**10** labelled pairs of the held-out set" in texts(page)
    assert "**40** of 40 pool pairs are open" in texts(page)


def test_without_a_held_out_set_the_page_says_that_a_part_of_the_seed_is_held_out(open_page, sets):
    page = open_page("train")
    page = page.selectbox(key="pick-heldout").set_value("none: hold out a part of the seed").run()
    assert "No held-out set was given" in texts(page)
    assert "held out from the seed" in texts(page)


def test_start_queues_a_run_and_leads_to_watch(open_page, store, sets):
    page = open_page("train")
    page = next(b for b in page.button if b.label == "Start training").click().run()
    assert not page.exception
    (run,) = store.runs()
    assert run.status == Status.QUEUED
    assert run.heldout == sets["heldout"].id
    assert config.RunConfig(**run.config) == config.from_preset(config.DEFAULT_PRESET)
    assert "Is it getting better?" in texts(page)
    assert "Number 1 in the queue" in texts(page)


def test_the_form_has_every_setting_with_its_one_description(open_page, sets):
    page = open_page("train")
    shown = {w.label.strip("`"): w.help for w in (*page.selectbox, *page.number_input, *page.text_input)}
    for name, entry in config.describe().items():
        assert shown[name] == entry["help"]


def test_a_preset_brings_its_settings_and_a_change_is_submitted(open_page, store, sets):
    page = open_page("train")
    page = page.radio[0].set_value("careful").run()
    page.number_input(key="setting-careful-rounds").set_value(1)
    page = page.run()
    next(b for b in page.button if b.label == "Start training").click().run()
    wanted = config.from_preset("careful").changed({"rounds": 1})
    assert store.runs()[0].config == wanted.as_dict()


def test_waiting_runs_are_listed(open_page, store, sets):
    page = open_page("train")
    next(b for b in page.button if b.label == "Start training").click().run()
    page = open_page("train")
    assert "number 1 in the queue" in texts(page)
