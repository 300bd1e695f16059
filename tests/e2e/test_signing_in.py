"""Signing in by name and password, what stays signed in, and what a role may reach, in the real page."""

import time
from contextlib import suppress

import pytest

from ser_backend import home, ingest
from ser_backend.records import ROLES, User, UserRole
from ser_backend.store import Store

pytestmark = pytest.mark.e2e

DOOR = "Who are you?"
HOME, TRAIN, REVIEW = "What needs you?", "What should the model learn from?", "Which response is better?"
WORD = "correct horse"


@pytest.fixture
def store(ser_home) -> Store:
    """With an owner; what else a test wants it adds."""
    made = Store.open()
    made.add_user(User("Ada", "owner", "", True, ""), WORD)
    return made


def add(store: Store, name: str, role: UserRole) -> None:
    store.add_user(User(name, role, "", True, ""), WORD)


def with_the_sample(store: Store) -> None:
    for role in ROLES:
        ingest.import_source(store, home.ROOT / "data" / "samples" / f"sample-{role}.jsonl", role)


def sign_in(page, name: str, word: str = WORD) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("Password", exact=True).fill(word)
    page.get_by_role("button", name="Sign in").click()


def at(page, question: str) -> None:
    page.get_by_role("heading", name=question, level=1).wait_for()


def kept(page) -> dict | None:
    return next((one for one in page.context.cookies() if one["name"].startswith("ser_session")), None)


def kept_soon(page, there: bool = True) -> dict | None:
    for _ in range(100):
        if bool(kept(page)) is there:
            break
        page.wait_for_timeout(100)
    assert bool(kept(page)) is there
    return kept(page)


def test_who_signs_in_stays_so_until_they_sign_out(store: Store, server, open_page) -> None:
    page = open_page("users")
    at(page, DOOR)
    sign_in(page, "Ada", "wrong password")
    page.get_by_test_id("stAlert").filter(has_text="The name or the password is not right").wait_for()
    assert kept(page) is None
    sign_in(page, "ada")
    at(page, "Who may do what?")

    cookie = kept_soon(page)
    assert (cookie["sameSite"], cookie["path"], cookie["domain"]) == ("Strict", "/", "127.0.0.1")
    assert cookie["secure"] is False  # this server speaks http
    assert abs(cookie["expires"] - time.time() - 30 * 24 * 3600) < 120
    assert store.signed_in(cookie["value"]).name == "Ada"
    assert cookie["value"] not in page.content()
    assert cookie["value"] not in page.url

    page.reload()
    at(page, "Who may do what?")
    server.stop()
    server.start()
    page.goto(f"{server.url}/users")
    at(page, "Who may do what?")
    other_tab = page.context.new_page()
    other_tab.goto(server.url)
    at(other_tab, HOME)
    other_browser = open_page("users")
    at(other_browser, DOOR)

    page.get_by_role("button", name="Ada").click()
    page.get_by_role("button", name="Sign out").click()
    at(page, DOOR)
    kept_soon(page, there=False)
    assert store.signed_in(cookie["value"]) is None
    other_tab.get_by_role("link", name="Train", exact=True).click()
    at(other_tab, DOOR)
    page.reload()
    at(page, DOOR)


def test_the_first_owner_is_signed_in_at_once(server, open_page) -> None:
    page, other = open_page("users"), open_page()
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Password", exact=True).fill(WORD)
    page.get_by_role("button", name="Turn sign-in on").click()
    page.get_by_text("Sign-in is on, and you are signed in as Ada").wait_for()
    kept_soon(page)
    page.reload()
    at(page, "Who may do what?")
    other.get_by_role("link", name="Train", exact=True).click()
    at(other, DOOR)


def test_an_annotator_reaches_review_only(store: Store, server, open_page) -> None:
    with_the_sample(store)
    add(store, "Ben", "annotator")
    page = open_page()
    sign_in(page, "Ben")
    at(page, REVIEW)
    for name in ("Data", "Train", "Watch", "Export", "Users"):
        assert page.get_by_role("link", name=name, exact=True).count() == 0
    kept_soon(page)
    page.goto(f"{server.url}/train")
    page.get_by_text("to start or estimate runs one has to be an owner or an engineer").wait_for()
    assert page.get_by_role("button", name="Start training").count() == 0
    assert page.get_by_text("Traceback").count() == 0
    page.get_by_role("link", name="Go to Review").click()
    at(page, REVIEW)
    assert store.jobs() == []
    assert {refusal.user for refusal in store.refusals()} == {"Ben"}


def test_another_role_counts_at_the_next_click(store: Store, server, open_page) -> None:
    from playwright.sync_api import TimeoutError

    with_the_sample(store)
    add(store, "Eve", "engineer")
    page = open_page("train")
    sign_in(page, "Eve")
    at(page, TRAIN)
    page.get_by_text("open to self-labels").wait_for()
    store.change_user("Eve", "annotator")
    with suppress(TimeoutError):  # the estimate under way draws the page again by itself, then without the button
        page.get_by_role("button", name="Start training").click(timeout=5_000)
    page.get_by_text("to start or estimate runs one has to be an owner or an engineer").wait_for()
    assert store.jobs() == []
    store.change_user("Eve", active=False)
    page.get_by_role("link", name="Go to Review").click()
    at(page, DOOR)
    sign_in(page, "Eve")
    page.get_by_test_id("stAlert").filter(has_text="The account 'Eve' is not active").wait_for()
