"""The frame of every page: the door, the navigation and who is signed in. main.py serves it."""

import gc
from pathlib import Path

import components
import door
import state
import streamlit as st
import who

from ser_backend import jobs

VIEWS = {
    "home": ":material/home:",
    "data": ":material/database:",
    "train": ":material/model_training:",
    "watch": ":material/monitoring:",
    "review": ":material/rate_review:",
    "export": ":material/ios_share:",
    "compare": ":material/compare_arrows:",
    "playground": ":material/experiment:",
    "agreement": ":material/handshake:",
    "policy": ":material/forum:",
    "users": ":material/group:",
}
FIRST = "home"
# the others are the way from data to an export
FOLDED, UNDER = ("compare", "playground", "agreement", "policy", "users"), "More"

HERE = Path(__file__).parent


@st.cache_resource(show_spinner=False)
def keep_modules(view: str) -> None:
    """Streamlit looks for garbage after every run of a page or a part of it; what modules hold is none, and to look through
    it takes 0.1 s, the most of a vote."""
    gc.collect()
    gc.freeze()


# a Material icon here would be fetched from another host
st.set_page_config(page_title="SER Studio", page_icon=HERE / "icon.svg", layout="wide")
st.logo(HERE / "logo.svg", size="large")
st.html(components.STYLE)

is_known = None  # None: could not be found out, and why stands on the page
with components.errors_in_words():
    is_known = who.known(components.any_store())
# every page has its address for everybody, so that a link leads there after signing in, and says no in words
pages = {
    view: st.Page(
        f"views/{view}.py",
        title=view.capitalize(),
        icon=icon,
        default=view == FIRST,
        visibility="visible" if who.may_open(view) else "hidden",
    )
    for view, icon in VIEWS.items()
}
menu = {"": [page for view, page in pages.items() if view not in FOLDED], UNDER: [pages[view] for view in FOLDED]}
opened = st.navigation(menu, position="top" if is_known else "hidden")
with components.errors_in_words():
    if is_known:
        store = components.open_store()
        door.corner(components.any_store(), state.session().user)
        view = next(name for name, page in pages.items() if page is opened)
        if not who.may_open(view):
            if view == FIRST:
                st.switch_page(pages["review"], query_params=st.query_params.to_dict())
            door.keep_out(store, view)
        else:
            if jobs.active(store):
                jobs.ensure_supervisor()
            opened.run()
            keep_modules(view)  # each page loads more
    elif is_known is False:
        door.sign_in(components.any_store())
