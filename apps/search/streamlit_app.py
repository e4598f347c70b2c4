"""The search app: ask in one language, find in all of them.

    streamlit run apps/search/streamlit_app.py

This is the router; the pages are in ``app_pages``. They draw what ``f2rag`` returns and know no torch and no database.
Each is always in one of four states: home, loading, no result, error. What was asked stands in the address, which can
be passed on.
"""

from __future__ import annotations

from pathlib import Path

import controls
import streamlit as st
import ui

from f2rag import F2RagError

# A file: the icons of Streamlit's own set would make every browser ask another server for them.
ICON = str(Path(__file__).with_name("icon.svg"))

st.set_page_config(page_title="f2rag search", page_icon=ICON, layout="wide")
st.html(ui.STYLE)
chosen = st.navigation(
    [
        st.Page("app_pages/search.py", title="Search", icon=":material/search:", default=True),
        st.Page("app_pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
        st.Page("app_pages/map.py", title="Map", icon=":material/scatter_plot:"),
        st.Page("app_pages/documents.py", title="Documents", icon=":material/description:"),
        st.Page("app_pages/about.py", title="About", icon=":material/info:"),
    ],
    position="top",
)
try:
    chosen.run()
except F2RagError as problem:
    controls.failed(problem)
