"""Playground: what a model thinks of responses somebody writes, which words matter to it, and files of them."""

from collections.abc import Sequence
from typing import Any

import charts
import components
import scored_file
import state
import streamlit as st
import words
from picture import show_figure

from ser_backend.attribution import levels
from ser_backend.errors import SerError
from ser_backend.records import Run
from ser_backend.scorer import choice, client
from ser_backend.scorer.choice import Choice
from ser_backend.store import Store

QUESTION = "What does the model think?"
LINE = "Write responses to a prompt: the model gives each a reward. Nothing written here is stored or trained on."
FEWEST, MOST = 2, 8
COMPARE = "Compare responses"
PLACES = {"pool": "pool", "heldout": "held-out set"}
SEVERAL = "The probability of being the best of all is Plackett and Luce's reading of the same rewards (softmax)."
SPREAD = (
    "± is one standard error of the margin, from five models that were each trained without a fifth of people's labels "
    "(delete-a-group jackknife). It is rough, and knows nothing of texts that are unlike those labels."
)
PROMPT_KEY, PANE_KEY = "playground-prompt", "playground-pane"


def page() -> None:
    store = components.open_store()
    action = components.head(QUESTION, LINE)
    run = components.run_picker(store)
    if run is None:
        components.nothing_yet("There is no run yet, so there is no model to ask.", "views/train.py", "Start one")
        return
    with components.errors_in_words():
        found = choice.choices(store, run.id)
        if not found:
            components.nothing_yet(
                "This run has no finished round yet; its seed model is the first that can be asked.",
                "views/watch.py",
                "Watch it",
            )
            return
        client.begin(store, found[0].name)  # it loads while one writes
        what = st.segmented_control(
            "What", [COMPARE, *scored_file.FILES], default=COMPARE, required=True, label_visibility="collapsed"
        )
        if what == COMPARE:
            _compare(store, run, found, action)
        else:
            scored_file.draw(store, str(what), found, action)


# ---- responses that somebody writes


def _compare(store: Store, run: Run, found: Sequence[Choice], action: "st.delta_generator.DeltaGenerator") -> None:
    draft = state.session().playground
    labels = {one.name: one.label for one in found}
    models = [found[0].name]
    if len(found) > 1:
        chosen = st.pills(
            "Models side by side",
            list(labels),
            selection_mode="multi",
            default=models,
            format_func=labels.__getitem__,
            key=f"models-{run.id}",
        )
        models = [name for name in labels if name in chosen] or models
    _panes(store, run, draft)
    texts = [text for text in draft.responses if text.strip()]
    with action:
        # with one response written it can be pressed: that of the field one is in arrives with the press itself
        pressed = st.button(
            "Ask the model",
            type="primary",
            icon=":material/psychology:",
            disabled=not texts,
            help=None if texts else "Write two responses first, or try a random pair.",
        )
    if pressed:
        draft.asked, draft.answer, draft.words = (), [], None
        if len(texts) < FEWEST:
            st.info("Write two responses at least: a single reward says nothing.", icon=":material/info:")
            return
        loading = "The model is being loaded, which takes some seconds. Further answers come at once."
        with st.spinner("The model reads." if client.is_ready() else loading):
            draft.answer = client.ask(store, models, draft.prompt, texts)
        draft.asked = (run.id, draft.prompt, *texts)
    if not draft.answer or draft.asked[0] != run.id:
        return
    _answer(store, draft, labels, (run.id, draft.prompt, *texts))


def _panes(store: Store, run: Run, draft: state.AtPlayground) -> None:
    draft.prompt = _text("Prompt", PROMPT_KEY, draft.prompt, 100)
    for begin in range(0, len(draft.responses), 2):
        for place, column in zip(range(begin, min(begin + 2, len(draft.responses))), st.columns(2), strict=False):
            with column:
                label = f"Response {place + 1}"
                draft.responses[place] = _text(label, f"{PANE_KEY}-{place}", draft.responses[place], 150)
    if draft.people:
        st.caption(draft.people)
    with st.container(horizontal=True):
        n = len(draft.responses)
        st.button("Add a response", icon=":material/add:", disabled=n >= MOST, on_click=_add)
        st.button("Remove the last", icon=":material/remove:", disabled=n <= FEWEST, on_click=_remove)
        places = ["pool", *(["heldout"] if run.heldout else [])]
        for of in places:
            st.button(
                f"Try a random pair ({PLACES[of]})",
                icon=":material/casino:",
                on_click=_random,
                args=(store, run.id, of),
            )


def _text(label: str, key: str, value: str, height: int) -> str:
    if key not in st.session_state:  # new, or the page was left in between
        st.session_state[key] = value
    return str(st.text_area(label, key=key, height=height))


def _add() -> None:
    state.session().playground.responses.append("")


def _remove() -> None:
    draft = state.session().playground
    draft.responses.pop()
    st.session_state.pop(f"{PANE_KEY}-{len(draft.responses)}", None)


def _random(store: Store, run_id: str, of: str) -> None:
    draft = state.session().playground
    try:
        pair, said = choice.random_pair(store, run_id, of)
    except SerError as error:
        draft.people = components.plain(str(error))
        return
    draft.prompt, draft.responses = pair.response_a.prompt, [pair.response_a.text, pair.response_b.text]
    verdict = {
        "a": "People preferred response 1.",
        "b": "People preferred response 2.",
        "tie": "People called it a tie.",
    }
    draft.people = f"From the {PLACES[of]}. {verdict.get(said, 'People have not labelled it in the pool.')}"
    draft.asked, draft.answer, draft.words = (), [], None
    for key in [key for key in st.session_state if str(key).startswith((PROMPT_KEY, PANE_KEY))]:
        del st.session_state[key]


# ---- the answer


def _answer(store: Store, draft: state.AtPlayground, labels: dict[str, str], now: tuple[str, ...]) -> None:
    st.subheader("What it thinks", anchor=False)
    if now != draft.asked:
        st.caption("The texts were changed since; this is the answer to what stood there before.")
    texts = draft.asked[2:]
    names = [f"Response {place + 1}" for place in range(len(texts))]
    for told in draft.answer:
        if "error" in told:
            st.error(
                components.plain(f"{labels.get(told['model'], told['model'])}: {told['error']}"),
                icon=":material/error:",
            )
    good = [told for told in draft.answer if "error" not in told]
    if not good:
        return
    for told in good:
        _in_words(told, labels.get(told["model"], ""), len(good) > 1)
    _cut(good[0], names)
    _table(good, labels, names, texts)
    shown = [(labels.get(told["model"], told["model"]), told["margin"], told["spread"]) for told in good]
    left, right = st.columns(2)
    show_figure(charts.margins(names, shown), "margins", left)
    with right:
        if len(texts) > 2:
            show_figure(charts.preferences(names, good[0]["preferred"]), "preferences")
            if len(good) > 1:
                st.caption(f"Of the model {labels.get(good[0]['model'], '')}.")
    captions = [scored_file.OFFSET, *([SEVERAL] if len(texts) > 2 else []), *([SPREAD] if good[0]["spread"] else [])]
    st.caption(" ".join(captions))
    for note in good[0]["notes"]:
        st.caption(components.plain(note))
    _words(store, draft, good, labels, names, texts)


def _in_words(told: dict[str, Any], label: str, several: bool) -> None:
    best = max(range(len(told["margin"])), key=lambda place: told["margin"][place])
    second = max(
        (place for place in range(len(told["margin"])) if place != best), key=lambda place: told["margin"][place]
    )
    of = f"{label[0].upper()}{label[1:]}: " if several and label else ""
    if told["margin"][second] == 0:
        st.markdown(f"**{components.plain(of)}no response is ahead of the others.**")
        return
    share = f"{100 * told['preferred'][best][second]:.0f} %"
    spread = f" ± {told['spread'][second]:.2f}" if told["spread"] else ""
    st.markdown(
        f"{components.plain(of)}**{'r' if of else 'R'}esponse {best + 1} is the best**, "
        f"{-told['margin'][second]:.2f}{spread} ahead of response {second + 1}: preferred to it with probability {share}."
    )


def _cut(told: dict[str, Any], names: Sequence[str]) -> None:
    most = told["max_length"]
    for name, read in zip(names, told["read"], strict=True):
        if read["response_cut"]:
            st.warning(
                f"{name} is longer than the {most:,} tokens this model reads: its end, and the prompt, were not read.",
                icon=":material/content_cut:",
            )
        elif read["prompt_cut"]:
            st.warning(
                f"With {name.lower()} the text is longer than the {most:,} tokens this model reads: the prompt lost its "
                "beginning.",
                icon=":material/content_cut:",
            )


def _table(good: Sequence[dict[str, Any]], labels: dict[str, str], names: Sequence[str], texts: Sequence[str]) -> None:
    rows = []
    for told in good:
        for place, name in enumerate(names):
            row: dict[str, Any] = {"model": labels.get(told["model"], told["model"])} if len(good) > 1 else {}
            row |= {"response": name, "rank": told["rank"][place], "reward": told["rewards"][place]}
            row["behind the best"] = told["margin"][place]
            if told["spread"]:
                row["±"] = told["spread"][place]
            if len(names) > 2:
                row["best of all, %"] = 100 * told["best"][place]
            row |= {"tokens read": told["read"][place]["tokens"], "characters": len(texts[place])}
            rows.append(row)
    formats = {"reward": "%.3f", "behind the best": "%+.3f", "±": "%.3f", "best of all, %": "%.1f"}
    st.dataframe(
        rows,
        hide_index=True,
        column_config={name: st.column_config.NumberColumn(format=told) for name, told in formats.items()},
    )


# ---- which words


def _words(
    store: Store,
    draft: state.AtPlayground,
    good: Sequence[dict[str, Any]],
    labels: dict[str, str],
    names: Sequence[str],
    texts: Sequence[str],
) -> None:
    st.subheader("Which words matter?", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        place = st.selectbox("Response", range(len(names)), format_func=names.__getitem__, width=180)
        told = good[0]
        if len(good) > 1:
            told = st.selectbox("Model", good, format_func=lambda one: labels.get(one["model"], ""), width=240)
        how = "occlusion"
        if told["kind"] != "head":
            options = {"occlusion": "Leave out", "gradient": "Gradient x input"}
            how = st.segmented_control(
                "How", list(options), default=how, required=True, format_func=options.__getitem__
            )
        pressed = st.button("Show which words matter", icon=":material/format_color_text:")
    if pressed:
        draft.words = None
        with st.spinner("The model reads the response again and again, each time without a piece of it."):
            found = client.explain(store, told["model"], draft.asked[1], texts[place], str(how))
        draft.words = (told["model"], names[place], found)
    if draft.words:
        model, name, found = draft.words
        st.markdown(f"**{name}**" + (f", {components.plain(labels.get(model, ''))}" if len(good) > 1 else ""))
        st.html(words.marked(found.pieces, found.effect, levels(found.effect)))
        st.caption(components.plain(found.in_words()))


page()
