"""The file of the import: uploaded once and kept with what was chosen for it, until it is imported or a day has passed.

A reload, another page and back, or a lost connection cost no second upload: the address names the kept file, and only whoever
uploaded it gets it.
"""

import json
import re
import shutil
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import components
import state
import streamlit as st

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.ingest import Mapping
from ser_backend.records import ROLES, Role

SUFFIXES = ["jsonl", "json", "ndjson", "csv", "tsv", "parquet", "arrow", "gz"]
KEPT_S = 24 * 3600
PARAM = "upload"
FACTS = ".chosen.json"
KB, MB = 1e3, 1e6


def ask() -> Path | None:
    """The uploader, or the file that was uploaded before."""
    session = state.session()
    key = f"{state.UPLOAD}-{session.uploads}"
    kept = at_hand()
    if kept and st.session_state.get(key) is None:
        with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            n = kept.stat().st_size
            size = f"{n / MB:,.1f} MB" if n > MB / 10 else f"{n / KB:,.1f} KB"
            st.markdown(f":material/draft: **{components.plain(kept.name)}** :gray[{size}, uploaded before]")
            st.button("Use another file", icon=":material/close:", type="tertiary", on_click=forget)
        return kept
    if st.query_params.get(PARAM) and not kept:
        st.caption("The file that was uploaded here before is not kept any more. Upload it again.")
        del st.query_params[PARAM]
    uploaded = st.file_uploader(
        "File", type=SUFFIXES, key=key, label_visibility="collapsed", on_change=_changed, args=(key,)
    )  # fmt: skip
    if uploaded is None:
        return None
    path = _keep(uploaded)
    session.upload = st.query_params[PARAM] = path.parent.name
    return path


def at_hand() -> Path | None:
    """The kept file of this session, or of the address; None when it is gone or somebody else's."""
    session = state.session()
    token = session.upload or st.query_params.get(PARAM, "")
    if not re.fullmatch(r"[\w-]{1,64}", token):
        return None
    folder = _uploads() / token
    files = [path for path in folder.glob("*") if path.name != FACTS and not path.name.startswith(home.HALF_WRITTEN)]
    if len(files) != 1 or time.time() - folder.stat().st_mtime > KEPT_S or _facts(folder).get("user") != _user():
        session.upload = ""
        return None
    session.upload = st.query_params[PARAM] = token
    return files[0]


def role() -> Role | None:
    """What the kept file was to be."""
    kept = at_hand()
    found = _facts(kept.parent).get("role") if kept else None
    return found if found in ROLES else None


def mapping(path: Path) -> Mapping | None:
    """How its columns were mapped when it was looked at last."""
    facts = _facts(path.parent).get("mapping")
    with suppress(TypeError, ValueError):
        return (
            Mapping(**{**facts, "values": tuple((word, meaning) for word, meaning in facts["values"])})
            if facts
            else None
        )
    return None


def note(path: Path, role: Role, mapping: Mapping | None) -> None:
    """What was chosen, for the next time the page is opened."""
    if not is_kept(path):
        return
    facts = {"user": _user(), "role": role, "mapping": asdict(mapping) if mapping else None}
    if json.loads(json.dumps(facts)) != _facts(path.parent):
        with suppress(OSError, SerError), home.atomic_file(path.parent / FACTS) as temporary:
            temporary.write_text(json.dumps(facts), "utf-8")


def is_kept(path: Path) -> bool:
    return path.parent.parent == _uploads()


def forget() -> None:
    """The kept file is removed: it is imported, or another is wanted."""
    session = state.session()
    if kept := at_hand():
        shutil.rmtree(kept.parent, ignore_errors=True)
    session.upload = ""
    session.uploads += 1
    if PARAM in st.query_params:
        del st.query_params[PARAM]


def _changed(key: str) -> None:
    if st.session_state.get(key) is None:
        forget()


def _keep(uploaded: "st.typing.UploadedFile") -> Path:
    """The uploaded bytes as a file of the same name, since its suffix says what it is."""
    for old in _uploads().glob("*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > KEPT_S:
                shutil.rmtree(old, ignore_errors=True)
    name = Path(uploaded.name).name
    path = _uploads() / uploaded.file_id / (name if name not in ("", FACTS) else "upload")
    if not path.exists():
        with home.atomic_file(path) as temporary, temporary.open("wb") as out:
            shutil.copyfileobj(uploaded, out)
        note(path, st.session_state.get(state.ROLE, "seed"), None)
    return path


def _uploads() -> Path:
    return home.home() / "uploads"  # not the cache: nobody could compute it again


def _user() -> str:
    user = state.session().user
    return user.name if user else ""


def _facts(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads((folder / FACTS).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
