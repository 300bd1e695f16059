"""streamlit run app/main.py: the frame of the pages. Draws nothing of its own but the navigation."""

from pathlib import Path

import components
import streamlit as st

from ser_backend import jobs

st.set_page_config(page_title="SER Studio", page_icon=":material/balance:", layout="wide")
st.logo(Path(__file__).parent / "logo.svg", size="large")
st.html(components.STYLE)

page = st.navigation(
    [
        st.Page("views/data.py", title="Data", icon=":material/database:", default=True),
        st.Page("views/train.py", title="Train", icon=":material/model_training:"),
        st.Page("views/watch.py", title="Watch", icon=":material/monitoring:"),
        st.Page("views/review.py", title="Review", icon=":material/rate_review:"),
        st.Page("views/export.py", title="Export", icon=":material/ios_share:"),
    ],
    position="top",
)
with components.errors_in_words():
    store = components.open_store()
    if jobs.active(store):
        jobs.ensure_supervisor()
    page.run()
