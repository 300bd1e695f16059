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
    assert not list((home.cache_dir() / "uploads").glob("*"))


def test_unknown_columns_are_mapped_by_hand(open_page, store):
    odd = [{"frage": f"q{i}", "x": f"one {i}", "y": f"two {i}", "besser": "y"} for i in range(5)]
    page = upload(open_page("data"), "odd.jsonl", as_jsonl(odd))
    assert "not one we know" in texts(page)
    for label, column in (
        ("Response 1", "x"),
        ("Response 2", "y"),
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
    assert "Import as seed" not in [found.label for found in page.button]


def test_a_broken_file_is_one_sentence(open_page):
    page = upload(open_page("data"), "broken.parquet", b"this is no parquet")
    assert not page.exception
    assert len(page.error) == 1


def test_a_set_in_use_is_not_removed(open_page, store, finished):
    page = open_page("data")
    page = page.button(key=f"remove-{finished.seed}").click().run()
    assert "so it is kept" in texts(page)
    assert store.dataset(finished.seed)


def test_a_set_that_nothing_uses_is_removed(open_page, store, sets):
    page = open_page("data")
    page.button(key=f"remove-{sets['pool'].id}").click().run()
    assert {found.role for found in store.datasets()} == {"seed", "heldout"}
