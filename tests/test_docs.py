"""The docs name every command, setting and preset, and their links lead somewhere."""

import argparse
import re
from pathlib import Path

import pytest

from ser_backend.cli import parser
from ser_backend.config import engines_table, markdown_table, presets_table

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "DECISIONS.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> dict[str, argparse.ArgumentParser]:
    found = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "operating.md").read_text().split("## Command line")[1]
    for name, command in commands().items():
        row = next((line for line in text.splitlines() if re.match(rf"\| `{name}[ `]", line)), None)
        assert row, f"docs/operating.md has no row for {name}"
        for action in command._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or option in row, f"{name} {option}"


def test_no_command_is_documented_that_does_not_exist() -> None:
    section = (ROOT / "docs" / "operating.md").read_text().split("## Command line")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+)", section, re.M)) == set(commands())


def test_every_setting_and_preset_is_documented_as_the_code_describes_it() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert markdown_table() in text
    assert presets_table() in text
    assert engines_table() in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_the_two_commands_and_ci_runs_the_second() -> None:
    readme = (ROOT / "README.md").read_text()
    start = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/streamlit run app/main.py"
    test = "python3 -m venv .venv && .venv/bin/pip install -r requirements-dev.txt && .venv/bin/pytest"
    assert start in readme
    assert test in readme
    assert "pip install -q -r requirements-dev.txt && .venv/bin/pytest" in (ROOT / ".ci" / "run").read_text()
