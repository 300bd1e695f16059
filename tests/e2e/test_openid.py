"""Signing in through an OpenID provider, from the button through the real redirects and back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from openid import Provider

from ser_backend.records import User
from ser_backend.store import Store

pytestmark = pytest.mark.e2e

DOOR = "Who are you?"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as made:
        yield made


@pytest.fixture
def server_options(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    path = tmp_path / "secrets.toml"
    path.write_text(provider.secrets_toml())
    return ["--secrets.files", str(path)]


def through_the_provider(page) -> None:
    page.get_by_role("button", name="Sign in with your organisation's account").click()


def test_with_a_provider_and_no_users_nobody_gets_in(server, open_page) -> None:
    page = open_page("users")
    page.get_by_text("python -m ser_backend users add").wait_for()
    assert page.get_by_role("button", name="Sign in").count() == 0


def test_a_known_email_gets_in_as_its_role_and_out_again(server, open_page, provider: Provider) -> None:
    store = Store.open()
    store.add_user(User("Ada", "owner", "", True, ""), "correct horse")
    store.add_user(User("Ben", "annotator", "ben@example.org", True, ""), None)
    provider.claims = {"email": "Ben@Example.org", "email_verified": True}
    page = open_page("train")
    through_the_provider(page)
    page.get_by_role("heading", name="Which response is better?").wait_for()
    page.get_by_role("button", name="Ben").click()
    page.get_by_text("Ben, an annotator").wait_for()

    page.reload()
    page.get_by_role("heading", name="Which response is better?").wait_for()
    store.change_user("Ben", "engineer")
    page.goto(f"{server.url}/train")
    page.get_by_role("heading", name="What should the model learn from?").wait_for()

    page.get_by_role("button", name="Ben").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name=DOOR).wait_for()
    page.get_by_label("Password", exact=True).wait_for()
    page.reload()
    page.get_by_role("heading", name=DOOR).wait_for()


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"email": "eve@example.org"}, "You are signed in as eve@example.org, and no user has that e-mail."),
        ({"email": "gone@example.org"}, "the account 'Gone' is not active. Ask an owner to activate it."),
        ({"email": "ada@example.org", "email_verified": False}, "does not vouch for the e-mail ada@example.org"),
        ({}, "The provider named no e-mail address"),
    ],
)
def test_everybody_else_gets_a_sentence_and_may_try_another_account(
    server, open_page, provider: Provider, claims: dict[str, object], sentence: str
) -> None:
    store = Store.open()
    store.add_user(User("Ada", "owner", "ada@example.org", True, ""), None)
    store.add_user(User("Gone", "engineer", "gone@example.org", False, ""), None)
    provider.claims = claims
    page = open_page()
    through_the_provider(page)
    page.get_by_test_id("stAlert").filter(has_text=sentence).wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == DOOR

    provider.claims = {"email": "ada@example.org"}
    page.get_by_role("button", name="Use another account").click()
    through_the_provider(page)
    page.get_by_role("heading", name="What needs you?").wait_for()
