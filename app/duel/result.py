"""What people's votes say of a policy, as a card: verdict, win rates with their intervals, what stands behind it, the votes."""

from collections.abc import Mapping

import charts
import components
import streamlit as st
from picture import show_figure
from steering import known

from ser_backend import duel, home
from ser_backend.policy.folder import PolicyFolder
from ser_backend.records import Interval
from ser_backend.store import Store


def opened(name: str) -> duel.Duel:
    """Raises NotFound or SerError."""
    path = PolicyFolder.of(name).path / "policy.json"
    return _opened(str(home.home()), name, path.stat().st_mtime_ns if path.exists() else 0)


@st.cache_resource(show_spinner=False, max_entries=4)
def _opened(where: str, name: str, written: int) -> duel.Duel:
    """Some megabytes of texts, the same for everybody; anew when the policy was trained anew (`written`)."""
    return duel.Duel(name)


def strip(store: Store, folder: PolicyFolder) -> None:
    """The result so far and the way to the desk, on the policy's own page; nothing for a policy that is not trained."""
    if not (folder.path / "policy.json").exists():
        return
    with st.container(border=True):
        st.markdown("**What do people say?**")
        with components.errors_in_words():
            card(store, folder.name)
            st.page_link(
                "views/review.py",
                label="Compare blind on Review",
                icon=":material/rate_review:",
                query_params={"policy": folder.name},
            )


def card(store: Store, name: str) -> None:
    """Raises SerError, Forbidden."""
    of_two = opened(name)
    found = duel.result(store, of_two)
    st.markdown(f"**{components.plain(found.sentence())}**")
    labels = known.labels(store)
    behind = [components.plain(_named(sentence, labels)) for sentence in found.sentences()]
    if not found.votes:
        st.caption("  \n".join(behind))
        return
    show_figure(charts.win_rates(_rates(found, labels)), f"win-rates-{name}")
    st.caption(behind[0])
    with st.expander("What stands behind it"):
        st.markdown("\n".join(f"- {sentence}" for sentence in behind[1:]))
        if store.may("export"):
            st.download_button(
                "All votes as CSV",
                lambda: duel.votes_table(store, of_two),
                file_name=f"{name}-votes.csv",
                mime="text/csv",
                icon=":material/download:",
                on_click="ignore",
                key=f"votes-{name}",
            )


def _rates(found: duel.Result, labels: Mapping[str, str]) -> list[tuple[str, str, Interval]]:
    rows = [("people", "people", found.rate)]
    if found.equal_length:
        rows.append(("people, at equal length", "equal", found.equal_length))
    for claim in found.claims:
        rows.append((_named(claim.name, labels), "judge" if claim.is_judge else "reward", claim.says))
    return rows


def _named(words: str, labels: Mapping[str, str]) -> str:
    """Runs by their names."""
    for name, label in labels.items():
        words = words.replace(name, label)
    return words
