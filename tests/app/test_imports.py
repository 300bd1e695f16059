"""Pages must open in under a second: importing what they import may not load torch."""

import subprocess
import sys

from fabricate import APP

CODE = """
import sys
import state, components, charts
from ser_backend import export, ingest, jobs, report, review
heavy = {"torch", "transformers", "peft"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_pages_load_no_torch():
    done = subprocess.run([sys.executable, "-c", CODE], cwd=APP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
