"""What a policy leaves and what it was asked for: its model and its settings."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import describe

LOAD = """from {package} import {auto}
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("{path}")
model = {auto}.from_pretrained("{path}")"""


def model(folder: PolicyFolder) -> None:
    path = folder.path / "model"
    if not (path / "README.md").exists():
        st.caption("The model is saved when the training has ended.")
        return
    adapter = (path / "adapter_config.json").exists()
    package, auto = ("peft", "AutoPeftModelForCausalLM") if adapter else ("transformers", "AutoModelForCausalLM")
    what = "A LoRA adapter with its tokeniser" if adapter else "A plain model with its tokeniser"
    st.markdown(f"{what}, and a README.md that says what came of it, lie on the server in")
    st.code(str(path), language=None)
    st.markdown("It loads as")
    st.code(LOAD.format(package=package, auto=auto, path=path), language="python")


def settings(found: Mapping[str, Any]) -> None:
    described = describe()
    rows = [
        {"setting": name, "value": str(value), "meaning": described[name]["help"] if name in described else ""}
        for name, value in found.items()
        if value != ""
    ]
    st.dataframe(rows, hide_index=True, column_config={"meaning": st.column_config.TextColumn(width="large")})
