"""Users: add them, change what they may do, and see who was kept from doing what."""

from datetime import datetime

import components
import state
import streamlit as st
import who

from ser_backend import team
from ser_backend.errors import SerError
from ser_backend.records import USER_ROLES, User, UserRole
from ser_backend.store import Store

QUESTION = "Who may do what?"
ROLE_HELP = "Annotators answer pairs, engineers run everything else, owners manage users, too."
PASSWORD_HELP = f"{team.SHORTEST_PASSWORD} to {team.LONGEST_PASSWORD} characters. Nobody can read it here again."


def page() -> None:
    store = components.open_store()
    if not store.has_users():
        _first_owner(store)
        return
    users = store.users()
    components.head(QUESTION, _line(users))
    session = state.session()
    if session.said:
        st.success(components.plain(session.said), icon=":material/check_circle:")
        if session.cookie is None:  # that the browser kept it draws the page once more
            session.said = ""
    _list(users)
    left, right = st.columns(2)
    with left.container(border=True, height="stretch"):
        _add(store, users)
    with right.container(border=True, height="stretch"):
        _change(store, users)
    _roles()
    _refusals(store)


def _line(users: list[User]) -> str:
    active = [user for user in users if user.active]
    counts = [(sum(user.role == role for user in active), role) for role in USER_ROLES]
    words = [components.count(n, role) for n, role in counts if n]
    if off := len(users) - len(active):
        words.append(f"{off:,} switched off")
    return ", ".join(words) + "."


# ---- before there is anybody


def _first_owner(store: Store) -> None:
    components.head(QUESTION, "Nobody has to sign in here: whoever opens these pages may do everything.")
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(
            "That suits one person's own machine. For a team, add yourself as its first **owner**. From then on everybody has "
            "to sign in, you are signed in already, and you add the others: annotators, who answer pairs in their own name, "
            "and engineers, who run everything else."
        )
        st.markdown(
            "There is no way back on the page: users are switched off, never deleted. What you have here stays as it is. "
            "A password that is lost is set anew by `python -m ser_backend users change NAME --password`."
        )
    with right, st.form("first-owner"):
        st.markdown("**Add the first owner**")
        name = st.text_input("Your name", max_chars=team.LONGEST_NAME, autocomplete="username")
        email = st.text_input("E-mail, if you like", autocomplete="email")
        password = st.text_input("Password", type="password", autocomplete="new-password", help=PASSWORD_HELP)
        wanted = st.form_submit_button("Turn sign-in on", type="primary", icon=":material/lock:")
    if wanted:
        with right, components.errors_in_words():
            made = store.add_user(User(name, "owner", email, True, ""), password)
            who.sign_in(store, made.name, password)
            state.session().said = f"Sign-in is on, and you are signed in as {made.name}. Now add the others."
            st.rerun()
    _roles()


# ---- who there is


def _list(users: list[User]) -> None:
    st.dataframe(
        [
            {
                "name": user.name,
                "role": user.role,
                "signs in": "yes" if user.active else "switched off",
                "e-mail": user.email,
                "since": datetime.fromisoformat(user.created_at).astimezone().date(),
            }
            for user in users
        ],
        hide_index=True,
        column_config={"since": st.column_config.DateColumn(format="D MMM YYYY")},
    )


def _add(store: Store, users: list[User]) -> None:
    st.markdown("**Add a user**")
    with st.form(f"add-{len(users)}", border=False):  # empty again when somebody was added
        name = st.text_input("Name", max_chars=team.LONGEST_NAME, key=f"add-name-{len(users)}")
        role: UserRole = st.selectbox(
            "Role", USER_ROLES, USER_ROLES.index("annotator"), help=ROLE_HELP, key=f"add-role-{len(users)}"
        )
        email = st.text_input(
            "E-mail", help="By which a sign-in provider knows them.", key=f"add-email-{len(users)}", autocomplete="off"
        )
        password = st.text_input(
            "Password",
            type="password",
            autocomplete="new-password",
            help=f"{PASSWORD_HELP} Leave it empty for somebody who signs in by e-mail only.",
            key=f"add-password-{len(users)}",
        )
        wanted = st.form_submit_button("Add", type="primary", icon=":material/person_add:")
    if wanted:
        with components.errors_in_words():
            if not (password or email.strip()):
                raise SerError("There is neither a password nor an e-mail, so nobody could sign in. Give one of them.")
            made = store.add_user(User(name, role, email, True, ""), password or None)
            how = "by the password you gave" if password else f"through a provider, as {made.email}"
            state.session().said = f"{made.name} is {team.WITH_ARTICLE[made.role]} now and signs in {how}."
            st.rerun()


def _change(store: Store, users: list[User]) -> None:
    st.markdown("**Change a user**")
    names = {user.name: user for user in users}
    user = names[st.selectbox("Who", list(names), key="change-who")]
    as_it_is = f"{user.name}-{user.role}-{user.active}"  # fields begin with what is stored
    with st.form(f"change-{as_it_is}", border=False, clear_on_submit=True):
        role: UserRole = st.selectbox(
            "Role", USER_ROLES, USER_ROLES.index(user.role), help=ROLE_HELP, key=f"change-role-{as_it_is}"
        )
        active = st.toggle("May sign in", user.active, key=f"change-active-{as_it_is}", help="Answers stay either way.")
        password = st.text_input(
            "New password",
            type="password",
            autocomplete="new-password",
            help=f"{PASSWORD_HELP} Empty: stays as it is. A new one ends their sessions.",
            key=f"change-password-{as_it_is}",
        )
        wanted = st.form_submit_button("Save", icon=":material/save:")
    if wanted:
        with components.errors_in_words():
            changed = store.change_user(user.name, role, active, password or None)
            if password and store.user and store.user.name == changed.name and changed.active:
                who.sign_in(store, changed.name, password)  # one's own session ended with the old password
            can = "may sign in" if changed.active else "is switched off"
            new = ", with a new password" if password else ""
            state.session().said = f"{changed.name} is {team.WITH_ARTICLE[changed.role]} and {can}{new}."
            st.rerun()


# ---- what is allowed, and what was refused


def _roles() -> None:
    """The engine's own table in words."""
    st.subheader("What each role may do", anchor=False)
    lines = [f"| | {' | '.join(reversed(USER_ROLES))} |", "|---|" + ":-:|" * len(USER_ROLES)]
    for act, roles in team.MAY.items():
        marks = (":material/check:" if role in roles else "" for role in reversed(USER_ROLES))
        lines.append(f"| {team.IN_WORDS[act]} | {' | '.join(marks)} |")
    st.markdown("\n".join(lines))
    st.caption("A role that changes counts at once. The command line may do everything.")


def _refusals(store: Store) -> None:
    st.subheader("What was refused", anchor=False)
    refused = store.refusals()
    if not refused:
        st.caption("Nobody tried what their role may not do.")
        return
    st.dataframe(
        [
            {
                "when": components.when(refusal.at),
                "who": refusal.user,
                "was told": refusal.sentence,
            }
            for refusal in refused
        ],
        hide_index=True,
        column_config={
            "when": st.column_config.TextColumn(width=110),
            "who": st.column_config.TextColumn(width=110),
            "was told": st.column_config.TextColumn(width="large"),
        },
    )


page()
