"""What stands at the door: the sign-in page, the corner with one's name, and the page for those who may not go further."""

from typing import Literal

import components
import state
import streamlit as st
import who
from streamlit.errors import StreamlitAuthError

from ser_backend import team
from ser_backend.errors import Forbidden, SerError
from ser_backend.records import User
from ser_backend.store import Store

ADD_AN_OWNER = (
    "Signing in through a provider is set up, and there is no user yet whom it could let in. Add an owner on the machine that "
    "serves this page: `python -m ser_backend users add NAME --role owner --email E-MAIL`, then reload."
)


def sign_in(store: Store) -> None:
    """Nothing else is shown to somebody unknown, whatever the address."""
    with st.container(key="door"):
        st.title("Who are you?", anchor=False)
        providers: list[str] = []
        with components.errors_in_words():
            providers = who.providers()
        if not store.has_users():
            st.warning(ADD_AN_OWNER, icon=":material/person_off:")
        elif providers and (why_not := who.why_not(store)):
            st.error(components.plain(why_not), icon=":material/person_off:")
            st.button("Use another account", icon=":material/logout:", on_click=_sign_out, args=(store,))
        else:
            st.markdown("A team works here. Sign in to go on.")
            _by_provider(providers)
            _by_password(store, "secondary" if providers else "primary")
        who.keep_cookie()


def _by_provider(providers: list[str]) -> None:
    for name in providers:
        label = "your organisation's account" if name == "default" else name.capitalize()
        kind = "primary" if name == providers[0] else "secondary"
        if st.button(
            f"Sign in with {label}", key=f"provider-{name}", icon=":material/login:", type=kind, width="stretch"
        ):
            try:
                st.login(None if name == "default" else name)
            except StreamlitAuthError as error:
                sentence = f"The provider is not set up rightly ({error}). Ask whoever keeps secrets.toml to mend it."
                st.error(components.plain(sentence), icon=":material/error:")
    if providers:
        st.caption("Or by the password you have here:")


def _by_password(store: Store, kind: Literal["primary", "secondary"]) -> None:
    with st.form("sign-in"):
        name = st.text_input("Name", autocomplete="username", max_chars=team.LONGEST_NAME)
        password = st.text_input(
            "Password", type="password", autocomplete="current-password", max_chars=team.LONGEST_PASSWORD
        )
        wanted = st.form_submit_button("Sign in", type=kind, width="stretch")
    if wanted:
        with components.errors_in_words():
            who.sign_in(store, name, password)
            st.rerun()


def corner(store: Store, user: User | None) -> None:
    """Top right on every page: who is signed in, and the way out. Nothing where nobody has to sign in."""
    with st.container(key="corner"):
        if user:
            with st.popover(components.plain(user.name), icon=":material/account_circle:", type="tertiary"):
                st.markdown(f"**{components.plain(user.name)}**, {who.in_words(user)}")
                if user.email:
                    st.caption(components.plain(user.email))
                if state.session().token:  # signed in by password
                    _new_password(store.acting(user))
                st.button("Sign out", icon=":material/logout:", on_click=_sign_out, args=(store,))
        who.keep_cookie()


def _new_password(store: Store) -> None:
    with st.expander("Change password", icon=":material/key:"), st.form("password", border=False, clear_on_submit=True):
        old, new, again = (
            st.text_input(label, type="password", autocomplete=what, max_chars=team.LONGEST_PASSWORD)
            for label, what in (
                ("Your password now", "current-password"),
                ("Your new password", "new-password"),
                ("Your new password, once more", "new-password"),
            )
        )
        if st.form_submit_button("Change it"):
            with components.errors_in_words():
                if new != again:
                    raise SerError("The two new passwords differ, so nothing was changed. Try again.")
                who.change_password(store, old, new)
                st.success("Changed. You are signed out everywhere else.", icon=":material/check_circle:")


def _sign_out(store: Store) -> None:
    with components.errors_in_words():
        who.sign_out(store)


def keep_out(store: Store, page: str) -> None:
    """The engine's sentence for somebody who opened a page that is not for their role; it writes that down, too."""
    components.head("This page is not for your role", "An owner can give you another one.")
    try:
        store.require(who.OPENS[page])
    except Forbidden as refused:
        st.error(components.plain(str(refused)), icon=":material/block:")
    st.page_link("views/review.py", label="Go to Review", icon=":material/arrow_forward:")
