"""streamlit run app/main.py: the server of the pages. What they show begins in frame.py."""

import ahead
import streamlit as st

app = st.App("frame.py", lifespan=ahead.imports)
