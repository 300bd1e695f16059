"""What a run or a policy takes of the machine: now, at most, and over time."""

from pathlib import Path

import charts
import streamlit as st
from picture import show_figure

from ser_backend import resources
from ser_backend.cost.machine import gib, this_machine

EVERY_S = 5.0
GPU_HELP = "In use on the worker's GPU, by whomever."
MEMORY_HELP = "Of the worker and what it started. Memory that several of them share counts each time."


def draw(folder: Path, active: bool) -> None:
    """folder: that of the run or policy; active: waiting or under way, so that its figures change."""
    st.fragment(_draw, run_every=EVERY_S if active else None)(folder, active)


def _draw(folder: Path, active: bool) -> None:
    found = resources.read(folder)
    if found is None:
        st.caption("No worker has looked yet." if active else "No worker left figures of what it took.")
        return
    machine = this_machine()
    live, now, peak = active and found.is_live(), found.now, found.peak
    cores, total = f"of {machine.cores} cores", gib(machine.memory)
    rows = [("Processors", f"{now.cpu:.1f} {cores}", f"at most {peak.cpu:.1f} {cores}", "")]
    rows.append(("Memory", f"{gib(now.memory)} of {total}", f"at most {gib(peak.memory)}", MEMORY_HELP))
    if peak.gpu:
        rows.append(("GPU memory", gib(now.gpu), f"at most {gib(peak.gpu)}", GPU_HELP))
    rows.append(("Its folder on disk", _size(now.disk), f"at most {_size(peak.disk)}", ""))
    rows.append(("Free on its disk", gib(now.free), f"at least {gib(peak.free)}", ""))
    with st.container(horizontal=True, key="resources"):
        for title, value, most, help in rows:
            with st.container(border=True, width=198, gap="small"):
                st.markdown(f"**{title}**", help=help or None)
                if live:
                    st.markdown(value)
                    st.caption(most)
                else:
                    st.markdown(most[0].upper() + most[1:])
    left, right = st.columns(2)
    busy, memory = charts.resources(found.samples, machine.cores)
    show_figure(busy, "busy", left)
    show_figure(memory, "memory", right)
    st.caption(f"A sample every {found.every:g} s; what is resumed goes on with these figures.")


def _size(n_bytes: float) -> str:
    return f"{n_bytes / (1 << 20):,.0f} MiB" if n_bytes < 1 << 30 else gib(n_bytes)
