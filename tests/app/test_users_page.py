"""Signing in, what each role sees, and the page of users; one person alone notices nothing of it."""

from dataclasses import replace

import pytest
import state
import who
from fabricate import APP, texts
from streamlit.testing.v1 import AppTest

from ser_backend import team
from ser_backend.records import User
from ser_backend.store import Store

WORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(team.SCRYPT, "n", 2)


def add(store: Store, name: str, role: str = "owner", **changed: object) -> User:
    return store.add_user(replace(User(name, role, "", True, ""), **changed), WORD)


def field(page: AppTest, label: str):
    return next(found for found in page.text_input if found.label == label)


def press(page: AppTest, label: str) -> AppTest:
    page = next(found for found in page.button if found.label == label).click().run()
    assert not page.exception
    return page


def sign_in(page: AppTest, name: str, word: str = WORD) -> AppTest:
    field(page, "Name").set_value(name)
    field(page, "Password").set_value(word)
    return press(page, "Sign in")


def user_of(page: AppTest) -> User | None:
    return page.session_state[state.KEY].user


# ---- none


@pytest.mark.parametrize("view", ["data", "train", "watch", "review", "export"])
def test_without_users_nobody_signs_in(open_page, view):
    page = open_page(view)
    assert page.title[0].value != "Who are you?"
    assert "Sign out" not in [found.label for found in page.button]
    assert user_of(page) is None


def test_the_first_owner_turns_sign_in_on_and_is_signed_in(open_page, store):
    page = open_page("users")
    assert "whoever opens these pages may do everything" in texts(page)
    field(page, "Your name").set_value(" Ada  Lovelace ")
    field(page, "Password").set_value(WORD)
    page = press(page, "Turn sign-in on")
    assert [(user.name, user.role) for user in store.users()] == [("Ada Lovelace", "owner")]
    assert "Sign-in is on, and you are signed in as Ada Lovelace" in texts(page)
    assert user_of(page).name == "Ada Lovelace"
    assert open_page("train").title[0].value == "Who are you?"


def test_a_first_owner_who_cannot_be_had_is_refused_in_words(open_page, store):
    page = open_page("users")
    field(page, "Your name").set_value("Ada")
    page = press(page, "Turn sign-in on")
    assert "The password has 0 characters" in texts(page)
    assert not store.has_users()
    assert user_of(page) is None


# ---- the door


@pytest.mark.parametrize("view", ["data", "train", "watch", "review", "export", "users"])
def test_with_users_there_is_nothing_but_the_door(open_page, store, finished, view):
    add(store, "Ada")
    page = open_page(view)
    assert [title.value for title in page.title] == ["Who are you?"]
    assert [found.label for found in page.button] == ["Sign in"]
    assert "my run" not in texts(page)


def test_a_wrong_password_is_said_in_words_and_the_right_one_leads_to_the_page(open_page, store):
    add(store, "Ada")
    page = sign_in(open_page("train"), "ada", "something else")
    assert "The name or the password is not right" in texts(page)
    assert page.title[0].value == "Who are you?"
    page = sign_in(page, "ada")
    assert page.title[0].value == "What should the model learn from?"
    assert user_of(page).name == "Ada"
    assert "**Ada**, an owner" in texts(page)


def test_signing_out_ends_the_session_and_forgets_what_was_done(open_page, store):
    add(store, "Ada")
    page = sign_in(open_page("users"), "Ada")
    token = page.session_state[state.KEY].token
    assert store.signed_in(token)
    page = press(page, "Sign out")
    assert store.signed_in(token) is None
    session = page.session_state[state.KEY]
    assert (session.user, session.token, session.cookie) == (None, "", "")
    assert page.title[0].value == "Who are you?"


def test_people_change_their_own_password(open_page, store):
    add(store, "Ada", "annotator")
    page = sign_in(open_page("review"), "Ada")
    for new, again, said in (
        ("a longer word", "another word", "the two new passwords differ"),
        ("a longer word", "a longer word", "changed"),
    ):
        field(page, "Your password now").set_value(WORD)
        field(page, "Your new password").set_value(new)
        field(page, "Your new password, once more").set_value(again)
        page = press(page, "Change it")
        assert said in texts(page).lower()
    assert store.signed_in(page.session_state[state.KEY].token).name == "Ada"
    assert user_of(page.run()).name == "Ada"
    assert store.sign_in("Ada", "a longer word")[0].name == "Ada"


def test_the_token_is_in_no_text_of_the_page(open_page, store):
    add(store, "Ada")
    page = sign_in(open_page("users"), "Ada")
    session = page.session_state[state.KEY]
    assert session.token not in texts(page)
    assert session.token not in repr(session)


def test_a_callback_of_somebody_no_longer_signed_in_does_nothing(open_page, store, sets):
    add(store, "Ada")
    page = sign_in(open_page("data"), "Ada")
    store.sign_out(page.session_state[state.KEY].token)
    page = press(page, "Remove")
    assert len(store.datasets()) == 3
    assert page.title[0].value == "Who are you?"


def test_a_page_left_open_from_before_there_were_users_does_nothing(open_page, store, sets):
    page = open_page("data")
    add(store, "Ada")
    page = press(page, "Remove")
    assert len(store.datasets()) == 3
    assert page.title[0].value == "Who are you?"


# ---- roles


@pytest.mark.parametrize("view", ["train", "watch", "export", "users"])
def test_an_annotator_is_kept_out_by_the_engines_sentence(open_page, store, finished, view):
    add(store, "Ben", "annotator")
    page = sign_in(open_page(view), "Ben")
    assert [title.value for title in page.title] == ["This page is not for your role"]
    refused = store.refusals()[0]
    assert (refused.user, refused.act) == ("Ben", who.OPENS[view])
    assert refused.sentence in texts(page)


def test_an_annotator_is_sent_to_review(open_page, store):
    add(store, "Ben", "annotator")
    page = sign_in(open_page("home"), "Ben")
    assert page.title[0].value == "Which response is better?"
    assert not page.get("page_link"), "nothing leads to a page that is not theirs"


def test_an_engineer_may_open_all_but_users(open_page, store, finished):
    add(store, "Eve", "engineer")
    titles = set()
    for view in ("data", "train", "watch", "review", "export"):
        page = sign_in(open_page(view), "Eve")
        assert not page.error
        titles.add(page.title[0].value)
    assert len(titles) == 5
    assert "one has to be an owner" in texts(sign_in(open_page("users"), "Eve"))


def test_a_new_role_and_a_closed_account_count_at_the_next_run(open_page, store):
    add(store, "Ada")
    add(store, "Ben", "engineer")
    page = sign_in(open_page("home"), "Ben")
    assert page.title[0].value == "What needs you?"
    store.change_user("Ben", "annotator")
    page = page.run()
    assert page.title[0].value == "Which response is better?"
    store.change_user("Ben", active=False)
    assert page.run().title[0].value == "Who are you?"


# ---- the page of users


@pytest.fixture
def as_ada(open_page, store) -> AppTest:
    add(store, "Ada")
    return sign_in(open_page("users"), "Ada")


def table(page: AppTest, index: int = 0) -> list[dict]:
    return page.dataframe[index].value.to_dict("records")


def test_one_user_is_listed_with_what_each_role_may_do(as_ada):
    assert [(row["name"], row["role"], row["signs in"]) for row in table(as_ada)] == [("Ada", "owner", "yes")]
    assert "1 owner." in texts(as_ada)
    for words in team.IN_WORDS.values():
        assert words in texts(as_ada)
    assert "Nobody tried what their role may not do." in texts(as_ada)


def test_add_change_and_switch_off(as_ada, store):
    page = as_ada
    field(page, "Name").set_value("Ben")
    field(page, "E-mail").set_value("Ben@Example.org")
    page = press(page, "Add")
    assert "Ben is an annotator now and signs in through a provider, as ben@example.org." in texts(page)
    assert field(page, "Name").value == ""
    assert [row["name"] for row in table(page)] == ["Ada", "Ben"]

    page.selectbox(key="change-who").set_value("Ben").run()
    next(box for box in page.selectbox if box.key.startswith("change-role")).set_value("engineer")
    field(page, "New password").set_value("another horse")
    page = press(page, "Save")
    assert "Ben is an engineer and may sign in, with a new password." in texts(page)
    assert store.sign_in("ben", "another horse")[0].role == "engineer"

    page.toggle[0].set_value(False)
    page = press(page, "Save")
    assert "1 owner, 1 switched off." in texts(page)
    assert not store.user_named("Ben").active


def test_an_owners_own_new_password_keeps_them_signed_in(as_ada, store):
    field(as_ada, "New password").set_value("another horse")
    page = press(as_ada, "Save")
    assert page.title[0].value == "Who may do what?"
    assert store.sign_in("Ada", "another horse")


def test_what_cannot_be_is_refused_in_words(as_ada, store):
    page = as_ada
    field(page, "Name").set_value("ADA")
    field(page, "Password").set_value(WORD)
    assert "There is a user 'ADA' already" in texts(press(page, "Add"))
    field(page, "Name").set_value("Ben")
    field(page, "Password").set_value("")
    assert "neither a password nor an e-mail" in texts(press(page, "Add"))
    field(page, "Password").set_value("short")
    assert "The password has 5 characters" in texts(press(page, "Add"))
    next(box for box in page.selectbox if box.key.startswith("change-role")).set_value("annotator")
    assert "the only active owner" in texts(press(page, "Save"))
    assert [(user.name, user.role) for user in store.users()] == [("Ada", "owner")]


def test_what_was_refused_is_listed(as_ada, store, open_page):
    add(store, "<b>Ben*", "annotator")
    sign_in(open_page("train"), "<b>Ben*")
    (row,) = table(as_ada.run(), 1)
    assert row["who"] == "<b>Ben*"
    assert "to start or estimate runs one has to be an owner or an engineer" in row["was told"]


# ---- a provider


def with_provider(view: str = "data", **section: object) -> AppTest:
    page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30)
    one = {"client_id": "x", "client_secret": "y", "server_metadata_url": "https://id.example/.well-known"}
    page.secrets["auth"] = {"redirect_uri": "http://x/oauth2callback", "cookie_secret": "z" * 32, **(section or one)}
    return page.switch_page(f"views/{view}.py").run()


def test_with_a_provider_and_no_users_nobody_gets_in():
    page = with_provider("users")
    assert page.title[0].value == "Who are you?"
    assert "python -m ser_backend users add" in texts(page)
    assert not page.button
    assert not page.text_input


def test_each_provider_has_its_button(store):
    add(store, "Ada")
    named = {name: {"client_id": "x", "client_secret": "y", "server_metadata_url": "z"} for name in ("okta", "google")}
    labels = [found.label for found in with_provider(**named).button]
    assert labels == ["Sign in with Okta", "Sign in with Google", "Sign in"]


def test_a_provider_set_up_wrongly_is_said_in_words(store):
    add(store, "Ada")
    page = with_provider(client_id="x", client_secret="y")  # no address
    assert "The provider is not set up rightly" in texts(press(page, "Sign in with your organisation's account"))


def test_unreadable_secrets_leave_the_door_closed(store, tmp_path, monkeypatch):
    path, option = tmp_path / "secrets.toml", who.st.get_option
    path.write_text("[auth\n")
    monkeypatch.setattr(who.st, "get_option", lambda key: [str(path)] if key == "secrets.files" else option(key))
    page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30).run()
    assert "could not be read, so nobody can sign in" in texts(page)
    assert not page.title
    add(store, "Ada")
    page = page.run()
    assert "could not be read, so nobody can sign in" in texts(page)
    assert sign_in(page, "Ada").title[0].value == "What needs you?", "a password does not need them"


# ---- what a provider vouches for


@pytest.mark.parametrize(
    ("claims", "known", "sentence"),
    [
        ({"email": "ADA@example.org"}, True, ""),
        ({"email": "ada@example.org", "email_verified": True}, True, ""),
        ({"email": "ada@example.org", "email_verified": False}, False, "does not vouch for"),
        ({"email": "ada@example.org", "email_verified": "false"}, False, "does not vouch for"),
        ({"email": "other@example.org"}, False, "as other@example.org, and no user has that e-mail"),
        ({"email": "gone@example.org"}, False, "'Gone' is not active"),
        ({}, False, "named no e-mail address"),
    ],
)
def test_only_a_known_vouched_for_and_active_email_gets_in(store, monkeypatch, claims, known, sentence):
    add(store, "Ada", email="ada@example.org")
    add(store, "Gone", "engineer", email="gone@example.org", active=False)
    monkeypatch.setattr(who, "providers", lambda: ["default"])
    monkeypatch.setattr(who.st, "user", {"is_logged_in": True, **claims})
    page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30).run()
    assert not page.exception
    assert (page.title[0].value == "Who are you?") is not known
    assert sentence in texts(page)
    assert (user_of(page) is not None) is known
