"""What a session remembers between two runs of a page. Nothing durable lives here: what matters is in the store.

One typed object under one key; the names of widget keys that code sets or reads stand below it.
"""

from dataclasses import dataclass, field
from typing import Any

import streamlit as st
from desk import AtDesk

from ser_backend.attribution import Effects
from ser_backend.ingest import Imported, Mapping
from ser_backend.records import User

KEY = "ser"

# widgets whose value code sets before they are drawn
RUN_PICKER = "run_picker"
QUEUE = "queue"
ANNOTATOR = "annotator"
UPLOAD = "upload"
ROLE = "role"
COOKIE = "cookie"
FILED, FILED_UNDER = "filed", "filed_under"
PROJECT = "project"
POLICY_PICKER = "policy_picker"
REVIEWED, VERSUS = "reviewed", "versus"


@dataclass(slots=True)
class AtPlayground:
    """What was written on Playground and what came of it."""

    prompt: str = ""
    responses: list[str] = field(default_factory=lambda: ["", ""])
    people: str = ""  # what people said of the pair that fills the panes
    asked: tuple[str, ...] = ()  # run, prompt and responses of the answer shown
    answer: list[dict[str, Any]] = field(default_factory=list)
    words: tuple[str, str, Effects] | None = None  # model and response, and what its words do
    file: str = ""  # id of the file that is read, or was


@dataclass(slots=True)
class Session:
    run: str | None = None  # id of the run that Watch, Review and Export show
    user: User | None = None  # who is signed in, as of this run (who.py); None where nobody has to
    token: str = field(default="", repr=False)  # by which the store knows the user
    cookie: str | None = field(default=None, repr=False)  # token the browser is to keep, "" to forget it; None: done
    said: str = ""  # outcome of the last change on Users, shown once more
    annotator: str = ""
    uploads: int = 0  # counts imports, so that the uploader starts empty after each
    upload: str = ""  # names the uploaded file that waits to be imported (shelf/upload.py)
    mapped: tuple[str, Mapping | None, str] = ("", None, "")  # a form of columns: key, what it began with, why
    imported: list[Imported] = field(default_factory=list)  # outcome of the last import, shown once more
    chosen: dict[str, str] = field(default_factory=dict)  # role -> data set id imported last
    picked: dict[str, str] = field(default_factory=dict)  # role -> data set id that was picked on Train
    desk: AtDesk = field(default_factory=AtDesk)
    duel: AtDesk = field(default_factory=AtDesk)  # the same, where a policy's A/B is answered
    versus: str = ""  # name of the policy whose A/B is on Review; "" for a run's pairs
    playground: AtPlayground = field(default_factory=AtPlayground)
    compared: list[str] = field(default_factory=list)  # ids of the runs on Compare
    begin: str = ""  # id of the run whose settings Train is to begin with, told to it once
    policy: str = ""  # name of the policy on Policy; "" for a new one
    live: bool = False  # figures are plotly's (picture)
    unfolded: set[str] = field(default_factory=set)  # projects of which Home shows every run


def session() -> Session:
    if KEY not in st.session_state:
        st.session_state[KEY] = Session()
    found: Session = st.session_state[KEY]
    return found
