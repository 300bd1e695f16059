import json

from fabricate import rows, texts

from ser_backend import home


def button(page, label):
    return next(found for found in page.button if found.label == label)


def upload(page, name, content, mime="application/json"):
    page.file_uploader[0].set_value((name, content, mime))
    return page.run()


def as_jsonl(content):
    return "\n".join(json.dumps(row) for row in content).encode()


def test_an_empty_store_offers_the_sample(open_page):
    page = open_page("data")
    assert "No pairs yet" in texts(page)
    assert [found.label for found in page.button] == ["Try the sample"]


def test_one_click_imports_the_sample_and_leads_to_train(open_page, store):
    page = button(open_page("data"), "Try the sample").click().run()
    assert not page.exception
    assert {found.role: found.n_pairs for found in store.datasets()} == {"seed": 120, "pool": 500, "heldout": 200}
    assert "What should the model learn from?" in texts(page)
    assert "Start training" in [found.label for found in page.button]


def test_an_uploaded_file_is_previewed_then_imported(open_page, store):
    content = as_jsonl([*rows(6, "x"), {"prompt": "p", "chosen": "", "rejected": "r"}])
    page = upload(open_page("data"), "mine.jsonl", content)
    assert "A good answer to 0." in texts(page)
    assert not store.datasets()
    page = button(page, "Import as seed").click().run()
    assert not page.exception
    (found,) = store.datasets()
    assert (found.name, found.n_pairs, found.n_problems) == ("mine", 6, 1)
    assert "Imported: mine" in texts(page)
    assert "1 row turned away: which and why" in [e.label for e in page.expander]
    assert not list((home.home() / "uploads").glob("*"))


def test_unknown_columns_are_mapped_by_hand(open_page, store):
    odd = [{"frage": f"q{i}", "x": f"one {i}", "y": f"two {i}", "besser": "y"} for i in range(5)]
    page = upload(open_page("data"), "odd.jsonl", as_jsonl(odd))
    assert "not one we know" in texts(page)
    for label, column in (
        ("Response A", "x"),
        ("Response B", "y"),
        ("Prompt", "frage"),
        ("Which is preferred", "besser"),
    ):
        next(box for box in page.selectbox if box.label == label).set_value(column)
    page = page.run()
    assert "two 0" in texts(page)
    page = button(page, "Import as seed").click().run()
    assert not page.exception
    assert store.datasets()[0].n_pairs == 5


def test_a_seed_without_preferences_is_refused_in_words(open_page):
    plain = [{"prompt": f"q{i}", "response_a": f"one {i}", "response_b": f"two {i}"} for i in range(5)]
    page = upload(open_page("data"), "plain.jsonl", as_jsonl(plain))
    assert "Nothing here says which response is preferred" in texts(page)
    assert button(page, "Import as seed").disabled
    assert "Map the column that says which" in button(page, "Import as seed").help


def test_a_broken_file_is_one_sentence(open_page):
    page = upload(open_page("data"), "broken.parquet", b"this is no parquet")
    assert not page.exception
    assert len(page.error) == 1


def test_a_set_in_use_is_not_removed(open_page, store, finished):
    page = open_page("data")
    page = page.button(key=f"remove-{finished.seed}").click().run()
    assert "It is used by 1 run" in texts(page)
    assert "so it is kept" in texts(page)
    assert page.button(key="remove-it").disabled
    assert store.dataset(finished.seed)


def test_a_set_that_nothing_uses_is_removed_when_it_is_confirmed(open_page, store, sets):
    page = open_page("data")
    page = page.button(key=f"remove-{sets['pool'].id}").click().run()
    assert "**pool** (pool, 40 pairs)" in texts(page)
    assert len(store.datasets()) == 3
    page.button(key="keep-it").click().run()
    assert len(store.datasets()) == 3
    page = page.button(key=f"remove-{sets['pool'].id}").click().run()
    page.button(key="remove-it").click().run()
    assert {found.role for found in store.datasets()} == {"seed", "heldout"}


# ---- the wizard


def steps(page):
    """Which step waits for the user."""
    return next(body for e in page.get("html") if "ser-wizard" in (body := e.proto.body)).split('aria-current="step">')[
        1
    ][:9]


def said(page):
    return texts(page).replace("**", "")


def fold(page, label):
    return next(found for found in page.expander if found.label.replace("\\", "") == label)


def opened(page, key):
    """The fold is opened: its content is drawn only then."""
    page.session_state[key] = True
    return page.run()


def test_the_steps_say_what_is_waited_for(open_page):
    page = open_page("data")
    assert steps(page).startswith("1 Source")
    odd = [{"frage": f"q{i}", "x": f"one {i}", "y": f"two {i}"} for i in range(5)]
    page = upload(page, "odd.jsonl", as_jsonl(odd))
    assert steps(page).startswith("2 Columns"[:9])
    for label, column in (("Response A", "x"), ("Response B", "y")):
        next(box for box in page.selectbox if box.label == label).set_value(column)
    page = page.run()
    assert "needs that" in said(page)  # a seed without a preference
    assert steps(page).startswith("2 Columns"[:9])
    next(box for box in page.segmented_control if box.label == "These pairs are").set_value("pool")
    page = page.run()
    for label, column in (("Response A", "x"), ("Response B", "y")):
        next(box for box in page.selectbox if box.label == label).set_value(column)
    page = page.run()
    assert steps(page).startswith("4 Import")


def test_problems_are_told_by_kind_before_the_import_and_after(open_page, store):
    bad = [{"prompt": f"p{i}", "chosen": "", "rejected": "r"} for i in range(31)]
    page = upload(open_page("data"), "mine.jsonl", as_jsonl([*rows(9, "x"), *bad]))
    assert fold(page, "31 of the first 40 rows cannot be used: 31 rows: chosen: The response is empty.")
    page = button(page, "Import as seed").click().run()
    assert not page.exception
    (found,) = store.datasets()
    page = opened(page, f"rejected-{found.id}")
    assert "Most often: 31 rows: chosen: The response is empty." in said(page)


def test_a_file_of_which_no_row_can_be_used_waits_at_the_look(open_page):
    page = upload(open_page("data"), "bad.jsonl", as_jsonl([{"prompt": "p", "chosen": "", "rejected": "r"}] * 3))
    assert steps(page).startswith("3 Look")
    assert button(page, "Import as seed").disabled
    assert button(page, "Import as seed").help == "None of the first rows can be used."


def test_an_import_that_fails_loses_nothing(open_page, store, monkeypatch):
    import gzip

    whole = gzip.compress(as_jsonl(rows(30_000, "x")))
    page = upload(open_page("data"), "cut.jsonl.gz", whole[:-5_000], "application/gzip")
    next(box for box in page.text_input if box.label == "Name").set_value("my name")
    page = button(page, "Import as seed").click().run()
    assert not page.exception
    assert "cut off or damaged" in said(page)
    assert "still here" in said(page)
    assert store.datasets() == []
    assert not [path for path in home.datasets_dir().iterdir() if not path.name.startswith(".new")]
    assert next(box for box in page.text_input if box.label == "Name").value == "my name"
    assert page.file_uploader[0].value is not None
    assert list((home.home() / "uploads").glob("*/cut.jsonl.gz"))
    assert "Import as seed" in [found.label for found in page.button]


def test_reading_says_share_rows_rate_and_time_left(open_page):
    open_page("data")
    from shelf.wizard import reading

    assert reading(25, 100, 50_000, 10.0) == "Reading: 25% · 50,000 rows · 5,000 a second · 30 s left"
    assert reading(7, 0, 1, 0.1) == "Reading · 1 row"


def test_a_file_can_be_a_newer_version(open_page, store, sets):
    page = upload(open_page("data"), "more.jsonl", as_jsonl(rows(33, "seed")))
    next(box for box in page.selectbox if box.label == "A newer version of").set_value(sets["seed"].id)
    page = button(page.run(), "Import as seed").click().run()
    assert not page.exception
    newer = store.dataset("more")
    assert newer.lineage["parent"] == sets["seed"].id
    page = opened(page, f"history-{sets['seed'].id}")
    assert "Against seed: 3 pairs added; 30 as before." in said(page)


# ---- what is there


def test_statistics_warn_first_and_say_what_it_means(open_page, store, sets):
    page = opened(open_page("data"), f"statistics-{sets['seed'].id}")
    shown = said(page)
    assert "Labels. 30 of 30 pairs say which response is better." in shown
    assert shown.index("Labels.") < shown.index("Ties.")
    assert "label or review more" in shown
    assert "3 warnings" in said(page.run())  # the badge: few labels, the shorter always wins, no prompt has two pairs


def test_a_large_set_is_counted_only_when_asked_to(open_page, store, sets, monkeypatch):
    from ser_backend import profile

    monkeypatch.setattr(profile, "AT_ONCE", 5)
    page = opened(open_page("data"), f"statistics-{sets['pool'].id}")
    assert "To count 40 pairs takes about" in said(page)
    assert profile.known(sets["pool"].id) is None
    page = button(page, "Count now").click().run()
    assert not page.exception
    assert profile.known(sets["pool"].id).n_pairs == 40
    assert "Rows turned away. 0 of 40 rows" in said(page)


def test_personal_data_is_masked_in_the_table_and_a_pair_can_be_looked_at(open_page, store, tmp_path):
    from ser_backend import ingest

    path = tmp_path / "mail.jsonl"
    path.write_bytes(
        as_jsonl([{"prompt": "p", "chosen": "Ask jo@somewhere.org <b>", "rejected": "no"}, *rows(20, "x")])
    )
    dataset = ingest.import_source(store, path, "seed").dataset
    page = opened(open_page("data"), f"statistics-{dataset.id}")
    assert "e-mail address: 1 pair" in said(page)
    table = next(frame.value for frame in page.dataframe if "masked" in frame.value)
    assert "jo@" not in table["masked"][0]
    assert "Ask jo@somewhere.org &lt;b&gt;" in said(page)


def test_what_sets_share_is_told_with_what_the_run_does_about_it(open_page, store, tmp_path):
    from ser_backend import ingest

    for role, content in (("seed", rows(30, "x")), ("heldout", rows(10, "x")), ("pool", rows(20, "y"))):
        (tmp_path / f"{role}.jsonl").write_bytes(as_jsonl(content))
        ingest.import_source(store, tmp_path / f"{role}.jsonl", role)
    shown = said(open_page("data"))
    assert "10 of 30 seed pairs are in the held-out set (10)" in shown
    assert "a run does not train on them" in shown
    assert "would flatter a model." not in shown


def test_many_sets_are_drawn_a_few_at_a_time_and_found_by_name(open_page, store, tmp_path):
    from ser_backend import ingest

    for k in range(20):
        (tmp_path / f"set{k}.jsonl").write_bytes(as_jsonl(rows(3, f"t{k}")))
        ingest.import_source(store, tmp_path / f"set{k}.jsonl", "pool")
    page = open_page("data")
    assert len([found for found in page.button if found.label == "Remove"]) == 8
    found = next(box for box in page.text_input if box.label == "Find a set").set_value("SET7").run()
    assert len([found for found in found.button if found.label == "Remove"]) == 1
    page = button(open_page("data"), "Show 12 more").click().run()
    assert len([found for found in page.button if found.label == "Remove"]) == 20


def test_answers_become_a_new_seed(open_page, store, finished):
    from ser_backend.pairs import PairSet

    pair = PairSet.open(finished.pool).pairs([0])[0].id
    facts = {"run": finished.id, "pair": pair, "annotator": "anna", "queue": "learn", "verdict": "left", "left_is": "a"}
    facts |= {"round": 1, "margin": 0.1, "self_label": None, "reason": "", "shown_at": 1.0, "answered_at": 2.0}
    store.add_review(overlap=1, **facts, token="t", supersedes=None)
    page = opened(open_page("data"), "merge")
    assert "1 answered pool pair would join seed" in said(page)
    page = button(page, "Make the new seed").click().run()
    assert not page.exception
    made = store.dataset("seed + reviews")
    assert made.n_pairs == 31
    assert "Made: seed + reviews" in said(page)
    assert "1 answered pool pair joined, 0 seed labels corrected." in said(page)
    assert "Download" in [found.label for found in page.get("download_button")]


def test_a_run_without_answers_has_nothing_to_merge(open_page, store, failed):
    page = opened(open_page("data"), "merge")
    assert "Nothing to merge yet" in said(page)
    assert "Make the new seed" not in [found.label for found in page.button]


def test_a_set_whose_files_are_gone_is_one_sentence(open_page, store, sets):
    from ser_backend import pairs

    pairs.delete(sets["pool"].id)
    page = opened(open_page("data"), f"statistics-{sets['pool'].id}")
    assert not page.exception
    assert any("There are no files for a data set" in error.value for error in page.error)


def test_a_run_that_began_while_the_dialog_was_open_keeps_the_set(open_page, store, sets, monkeypatch):
    from ser_backend.errors import SerError

    def refuse(self, dataset_id):
        raise SerError("This data set is used by a run that was just started, so it is kept.")

    page = open_page("data").button(key=f"remove-{sets['pool'].id}").click().run()
    monkeypatch.setattr(type(store), "remove_dataset", refuse)
    page = page.button(key="remove-it").click().run()
    assert not page.exception
    assert store.dataset(sets["pool"].id)
    page = page.button(key=f"remove-{sets['pool'].id}").click().run()
    assert "just started, so it is kept" in texts(page)


def test_a_file_with_half_a_character_is_looked_at_and_imported(open_page, store):
    bad = {"prompt": "p", "chosen": "half \ud83d", "rejected": "r", "col\ud83d": "x"}
    page = upload(open_page("data"), "half.jsonl", as_jsonl([*rows(6, "x"), bad]))
    assert not page.exception
    assert "1 of the first 7 rows cannot be used: 1 row: chosen: The text is not valid UTF-8." in [
        found.label.replace("\\", "") for found in page.expander
    ]
    assert not button(page, "Import as seed").disabled
    page = button(page, "Import as seed").click().run()
    assert not page.exception
    assert (store.datasets()[0].n_pairs, store.datasets()[0].n_problems) == (6, 1)


def test_a_preference_with_half_a_character_is_no_value_to_explain(open_page):
    content = [
        {"prompt": f"q{i}", "response_a": f"one {i}", "response_b": f"two {i}", "preferred": "a"} for i in range(6)
    ]
    content.append({"prompt": "q", "response_a": "one", "response_b": "two", "preferred": "half \ud83d"})
    page = upload(open_page("data"), "half.jsonl", as_jsonl(content))
    assert not page.exception
    assert not button(page, "Import as seed").disabled
    assert any(found.label.startswith("1 of the first 7 rows cannot be used") for found in page.expander)


def test_lines_that_are_no_json_are_one_kind(open_page):
    page = upload(open_page("data"), "cut.jsonl", as_jsonl(rows(6, "x")) + b'\n{"prompt": \nnot json\n')
    assert "2 of the first 8 rows cannot be used: 2 rows: This line is not valid JSON. Expecting value" in [
        found.label.replace("\\", "") for found in page.expander
    ]
