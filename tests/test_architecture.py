"""Who may import what, read from the source with ast."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / "ser_backend"
APP = ROOT / "app"

BASE = {"records", "errors", "settings", "config", "home", "metrics"}
VIEWS_MAY = BASE | {"checks", "forecast", "jobs", "ingest", "machine", "review", "export", "report", "store", "pairs"}
VIEWS_MAY |= {"alarms", "run_folder", "team"}
VIEWS_MAY |= {"agreement", "desk_figures"}
VIEWS_MAY |= {"annotators", "votes_file"}
VIEWS_MAY |= {"profile", "versions"}
VIEWS_MAY |= {"attribution", "scorer"}
VIEWS_MAY |= {"audit_groups", "buckets", "funnel", "labels_table", "notify", "resources"}
VIEWS_MAY |= {"comparison", "comparison_tables", "config_difference", "config_file", "paired", "table_file"}
VIEWS_MAY |= {"first_steps", "overview"}
VIEWS_MAY |= {"duel"}
VIEWS_MAY |= {"checked", "matching", "terms"}
VIEWS_MAY |= {"rewardbench"}
VIEWS_MAY |= {"policy"}
# module -> what of ours it may import, beside BASE
ALLOWED = {
    "records": set(),
    "errors": set(),
    "settings": set(),
    "config": {"settings"},
    "home": set(),
    "metrics": set(),
    "calibration": set(),
    "agreement": {"calibration"},
    "desk_figures": {"calibration"},
    "self_label": set(),
    "training": set(),
    "learning_curve": {"training"},
    "seed_audit": set(),
    "gate": {"calibration"},
    "bases": set(),
    "cores": set(),
    "packed": set(),
    "tokens": set(),
    "prefix": {"cores", "tokens"},
    "shared_prompt": {"tokens"},
    "classifier": {"bases", "cores", "heads", "opening", "packed", "shared_prompt", "tokens"},
    "heads": {"bases"},
    "opening": {"bases", "heads", "tokens"},
    "checks": set(),
    "model_checks": {"checks", "classifier", "heads", "opening", "tokens"},
    "blind_rules": {"metrics"},
    "pair_checks": {"blind_rules", "checks", "tokens"},
    "doctor": {"bases", "checks", "classifier", "features", "heads", "ingest", "pairs", "reward_model", "tokens"}
    | {"model_checks", "pair_checks"},
    "fine_tune": {"classifier", "cores", "plan", "prefix", "shared_prompt", "tokens"},
    "plan": set(),
    "features": {"bases", "cores", "tokens"},
    "run_folder": set(),
    "team": set(),
    "store": {"team"},
    "pairs": set(),
    "ingest": {"pairs"},
    "profile": {"pairs"},
    "versions": {"ingest", "pairs", "review", "store"},
    "run_data": {"pairs"},
    "reward_model": {"bases", "classifier", "features"},
    "scoring": {"ingest", "reward_model"},
    "attribution": set(),
    "best_of": {"ingest", "reward_model"},
    "scorer": {
        *("attribution", "best_of", "classifier", "machine", "packed", "pairs", "report", "reward_model"),
        *("rewardbench", "run_folder", "scoring", "store", "tokens"),
    },
    "rewardbench": {"ingest", "pairs", "reward_model", "store", "table_file"},
    "projection": {"features", "training", "run_data", "run_folder"},
    "learners": {
        *("checks", "classifier", "fine_tune", "model_checks", "pair_checks", "plan"),
        *("learning_curve", "projection", "run_data", "run_folder", "tokens", "training"),
    },
    "teacher": {"training"},
    "certify": {"calibration"},
    "acquisition": {"teacher"},
    "choosing": {
        *("acquisition", "calibration", "certify", "learners", "projection", "run_data", "run_folder"),
        *("self_label", "teacher", "training"),
    },
    "alarms": set(),
    "people": {"learners", "run_data", "training"},
    "rounds": {
        *("acquisition", "alarms", "calibration", "choosing", "gate", "learners", "people", "run_data", "run_folder"),
        *("seed_audit", "self_label", "state"),
    },
    "state": {"learners", "people"},
    "loop": {"choosing", "learners", "rounds", "run_data", "run_folder", "state"},
    "review": {"calibration", "pairs", "run_folder", "store"},
    "annotators": {"agreement", "alarms", "calibration", "desk_figures", "pairs", "review", "store"},
    "votes_file": {"store"},
    "labels_table": {"pairs", "review", "run_folder", "store", "votes_file"},
    "buckets": {"blind_rules", "calibration", "pairs", "run_folder", "store"},
    "audit_groups": {"calibration", "pairs", "review"},
    "funnel": set(),
    "checked": set(),
    "matching": set(),
    "terms": set(),
    "resources": set(),
    "trackers": {"run_folder"},
    "notify": {"alarms", "calibration", "certify", "report", "store"},
    "table_file": {"votes_file"},
    "config_difference": set(),
    "config_file": {"store"},
    "paired": set(),
    "comparison": {"calibration", "config_difference", "paired", "pairs", "report", "run_folder", "store"},
    "comparison_tables": {"comparison", "config_difference", "paired", "table_file"},
    "report": {"alarms", "checked", "calibration", "review", "run_folder", "store"},
    "card": {"checked", "report"},
    "merge": {"classifier"},
    "export": {"card", "merge", "pairs", "report", "review", "reward_model", "run_folder", "store"},
    "distil": {
        *("card", "classifier", "export", "fine_tune", "pairs", "plan", "report", "run_data", "run_folder", "store"),
        "tokens",
    },
    "policy": {
        *(
            "bases",
            "best_of",
            "export",
            "ingest",
            "jobs",
            "pairs",
            "report",
            "reward_model",
            "scorer",
            "store",
            "tokens",
        ),
    },
    "duel": {"calibration", "desk_figures", "policy", "review", "store", "table_file"},
    "first_steps": {"store"},
    "overview": {"alarms", "calibration", "checked", "desk_figures", "report", "review", "run_folder", "store"},
    "machine": set(),
    "forecast": {"machine"},
    "dry_run": {
        *("classifier", "fine_tune", "forecast", "learners", "machine", "model_checks", "plan", "prefix", "run_data"),
        "training",
    },
    "estimate": {
        "dry_run",
        "features",
        "forecast",
        "learners",
        "machine",
        "pairs",
        "run_data",
        "run_folder",
        "store",
        "training",
    },
    "jobs": {"forecast", "machine", "bases", "pairs", "run_data", "run_folder", "store"},
    "subject": {"notify", "policy", "run_folder", "store"},
    "supervisor": {"machine", "store", "subject"},
    "driven": {"loop", "notify", "pairs", "policy", "report", "review", "run_data", "run_folder", "store", "trackers"},
    "worker": {"driven", "resources", "store"},
    "cli": VIEWS_MAY | {"distil", "estimate", "doctor", "supervisor", "scoring", "best_of", "policy"},
    "__main__": {"cli"},
    "__init__": set(),
}
# folders whose modules are judged one by one; any other package is one noun
ROOMS = {"transformer", "selection", "evolution", "health", "cost", "compare", "shipping"}
ALLOWED |= {room: set() for room in ROOMS}  # their __init__ imports nothing
STANDARD_ONLY = ("records", "errors", "settings", "config", "home")


def modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "migrations" not in path.parts)


def noun(path: Path) -> str:
    """ser_backend/ingest/shapes.py -> ingest; ser_backend/selection/teacher.py -> teacher."""
    return noun_of([part.removesuffix(".py") for part in path.relative_to(ENGINE).parts])


def noun_of(parts: Sequence[str]) -> str:
    return parts[1] if parts[0] in ROOMS and len(parts) > 1 and parts[1] != "__init__" else parts[0]


def imports(path: Path) -> set[str]:
    """Dotted names imported anywhere in the file, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {noun_of(name.split(".")[1:]) for name in imports(path) if name.startswith("ser_backend.")} - {"__version__"}


@pytest.mark.parametrize("path", modules(ENGINE), ids=lambda path: str(path.relative_to(ROOT)))
def test_engine_modules_import_only_what_they_may(path: Path) -> None:
    name = noun(path)
    base = set() if name in ("records", "errors") else {"records", "errors"} if name in STANDARD_ONLY else BASE
    assert ours(path) <= ALLOWED[name] | base | {name}
    outside = {dotted.split(".")[0] for dotted in imports(path)}
    assert not outside & {"streamlit", "plotly", "app"}
    if name in STANDARD_ONLY:
        assert outside <= set(sys.stdlib_module_names) | {"ser_backend"}


def test_only_the_store_knows_sql() -> None:
    users = {
        noun(path)
        for path in modules(ENGINE)
        if {n.split(".")[0] for n in imports(path)} & {"sqlalchemy", "sqlite3", "alembic"}
    }
    assert users == {"store"}


@pytest.mark.parametrize("path", modules(APP), ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_draw_and_ask_only(path: Path) -> None:
    assert ours(path) <= VIEWS_MAY
    outside = {dotted.split(".")[0] for dotted in imports(path)}
    assert not outside & {"torch", "transformers", "peft", "sqlalchemy", "scipy", "sklearn", "subprocess"}
    views = {view.stem for view in (APP / "views").glob("*.py")}
    if path.parent.name == "views":
        assert not outside & views, "one view must not import another"
    if "charts" in path.parts:
        assert "streamlit" not in outside


def test_importing_the_app_and_what_it_uses_loads_no_torch() -> None:
    rooms = {module.stem: f"{room}." for room in ROOMS for module in (ENGINE / room).glob("*.py")}
    names = sorted(f"ser_backend.{rooms.get(name, '')}{name}" for name in VIEWS_MAY)
    code = f"""
import sys
sys.path.insert(0, {str(APP)!r})
import charts, components, state, {", ".join(names)}
print(sorted({{"torch", "transformers", "peft", "sklearn"}} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
