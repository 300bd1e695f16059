"""streamlit run app/main.py: the server of the pages. What they show begins in frame.py."""

import ahead
import streamlit as st
from starlette.middleware import Middleware

app = st.App("frame.py", lifespan=ahead.imports, middleware=[Middleware(ahead.Figures)])
