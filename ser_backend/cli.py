"""python -m ser_backend: the same functions as the pages, from a terminal.

Every command ends with 0, or with 1 and one sentence on standard error.
"""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_backend import __version__, forecast, home, jobs, machine, team
from ser_backend.config import DEFAULT_PRESET, ENGINES, PRESETS, RunConfig, describe, from_preset, number
from ser_backend.errors import NotFound, SerError
from ser_backend.records import ACTIVE, PROGRESS, ROLES, USER_ROLES, Dataset, Event, Role, Run, Status, User
from ser_backend.report import verdict
from ser_backend.run_folder import RunFolder
from ser_backend.store import DatabaseTrouble, Store

if TYPE_CHECKING:
    from ser_backend.distil import Distilled

POLL_S = 0.3
SAY_S = 10.0
MARKS = {"ok": "ok", "warning": "WARNING", "failed": "FAILED", "skipped": "skipped"}
SAMPLES = home.ROOT / "data" / "samples"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m ser_backend", description="SER Studio from the command line.")
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add = commands.add_parser("import", help="import a file, folder or Hugging Face data set")
    add.add_argument("file", help="file (.csv .tsv .json .jsonl .parquet, also .gz), folder, or hub name")
    add.add_argument("--role", required=True, choices=ROLES)
    add.add_argument("--name", help="name of the data set (default: the file's)")
    add.set_defaults(act=_import)

    listed = commands.add_parser("datasets", help="list imported data sets")
    listed.set_defaults(act=_datasets)

    run = commands.add_parser("run", help="start a run and wait for its end")
    _add_what_to_run(run)
    run.add_argument("--name", default="", help="name of the run")
    run.add_argument("--out", type=Path, metavar="DIR", help="export the result there, with report.json")
    run.set_defaults(act=_run)

    guess = commands.add_parser("estimate", help="how long a run would take and how much memory, by a dry run")
    _add_what_to_run(guess)
    guess.set_defaults(act=_estimate)

    presets = commands.add_parser("presets", help="list presets and engines, and the engine that suits this machine")
    presets.set_defaults(act=_presets)

    runs = commands.add_parser("runs", help="list runs")
    runs.set_defaults(act=_runs)

    for name, text in (
        ("retrain", "one more round with all reviews given so far"),
        ("resume", "go on with a stopped or failed run"),
    ):
        again = commands.add_parser(name, help=text)
        again.add_argument("run", help="id or name of the run")
        again.set_defaults(act=_again)

    stop = commands.add_parser("stop", help="stop a run; finished rounds stay")
    stop.add_argument("run", help="id or name of the run")
    stop.set_defaults(act=_stop)

    export = commands.add_parser("export", help="write preferences, reward model and report of a run")
    export.add_argument("run", help="id or name of the run")
    export.add_argument("--out", type=Path, required=True, metavar="DIR")
    export.add_argument("--without-base-model", action="store_true", help="leave the base model's files out")
    export.add_argument(
        "--distil", action="store_true", help="also fine-tune a standard model on the final labels, and measure it"
    )
    export.add_argument(
        "--base-model", metavar="NAME", help="with --distil: the model to fine-tune (default: the bundled one)"
    )
    export.set_defaults(act=_export)

    score = commands.add_parser("score", help="give rewards to the responses of a file")
    score.add_argument(
        "model", metavar="MODEL", help="a reward_model folder, any model folder with one output, or a hub id of one"
    )
    score.add_argument("file", help="prompt and response columns, or pairs in any importable format")
    score.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON lines to write")
    score.set_defaults(act=_score)

    doctor = commands.add_parser("doctor", help="check a model, and labelled pairs as it reads them")
    doctor.add_argument("model", metavar="MODEL", help="'bundled', a hub name, or the folder of a base or reward model")
    doctor.add_argument("--data", metavar="FILE", help="labelled pairs in any importable format; nothing is stored")
    doctor.set_defaults(act=_doctor)

    _add_users(commands.add_parser("users", help="list, add and change the users of a team"))

    worker = commands.add_parser("worker", help="run the supervisor here, as a service, until stopped")
    worker.set_defaults(act=_worker)

    demo = commands.add_parser("demo", help="import the sample and run it")
    demo.add_argument("--out", type=Path, metavar="DIR", help="export the result there")
    demo.set_defaults(act=_demo)
    return top


def _add_users(users: argparse.ArgumentParser) -> None:
    users.set_defaults(act=_users)
    commands = users.add_subparsers(metavar="COMMAND", help="default: list the users")
    add = commands.add_parser("add", help="add a user; asks for the password")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--role", required=True, choices=USER_ROLES)
    add.add_argument(
        "--email", default="", help="by which a sign-in elsewhere knows the user; then no password is needed"
    )
    add.add_argument("--password-stdin", action="store_true", help="read the password from the standard input")
    add.set_defaults(act=_add_user)
    change = commands.add_parser("change", help="change a user; what is not given stays")
    change.add_argument("name", metavar="NAME")
    change.add_argument("--role", choices=USER_ROLES)
    switch = change.add_mutually_exclusive_group()
    switch.add_argument("--activate", dest="active", action="store_true", default=None, help="let the user in again")
    switch.add_argument(
        "--deactivate", dest="active", action="store_false", default=None, help="keep the user out; answers stay"
    )
    change.add_argument("--password", action="store_true", help="ask for a new password; ends the user's sessions")
    change.add_argument("--password-stdin", action="store_true", help="read it from the standard input")
    change.set_defaults(act=_change_user)
    refusals = commands.add_parser("refusals", help="who was kept from doing what, newest first")
    refusals.set_defaults(act=_refusals)


def _add_what_to_run(command: argparse.ArgumentParser) -> None:
    """Data and settings: the same for a run and for its estimate."""
    command.add_argument("--seed", required=True, metavar="X", help="labelled pairs: a file or an imported name")
    command.add_argument("--pool", required=True, metavar="Y", help="pairs to label: a file or an imported name")
    command.add_argument("--heldout", metavar="Z", help="labelled pairs that only measure; default: part of the seed")
    command.add_argument("--preset", default=DEFAULT_PRESET, choices=list(PRESETS), help="how labels are chosen")
    command.add_argument(
        "--engine",
        choices=list(ENGINES),
        help="what is trained; default: by this machine (see presets), or none where fit or base_model is given",
    )
    for setting in ("method", "fit", "rounds"):
        command.add_argument(f"--{setting}", help=describe()[setting]["help"])
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any setting of docs/configuration.md; repeatable; wins over preset and engine",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    try:
        return chosen.act(chosen)
    except SerError as error:
        print(str(error), file=sys.stderr)
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileNotFoundError, FileExistsError) as error:
        print(f"{error.filename} cannot be used: {error.strerror}. Give another path.", file=sys.stderr)
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
    except (OSError, UnicodeError, DatabaseTrouble) as error:
        print(f"{str(error).splitlines()[0]}. Check the disk and the paths, then try again.", file=sys.stderr)
    return 1


def _import(chosen: argparse.Namespace) -> int:
    dataset, notes = _imported(Store.open(), chosen.file, chosen.role, chosen.name)
    print(f"{dataset.name}: {_in_words(dataset)}")
    for note in notes:
        print(f"  {note}")
    return 0


def _datasets(_: argparse.Namespace) -> int:
    for dataset in Store.open().datasets():
        print(f"{dataset.role:8} {dataset.name}: {_in_words(dataset)}")
    return 0


def _run(chosen: argparse.Namespace) -> int:
    _check_out(chosen.out)
    config = _config(chosen)
    store = Store.open()
    seed, pool, heldout = _sets(store, chosen)
    run = jobs.submit(store, config, seed, pool, heldout, chosen.name)
    return _follow(store, run, chosen.out)


def _config(chosen: argparse.Namespace) -> RunConfig:
    """Preset, then engine, then what was set by name. Says which engine the machine decided on, and what speaks against it."""
    settings: dict[str, Any] = {
        name: value for name in ("method", "fit", "rounds") if (value := getattr(chosen, name)) is not None
    }
    for text in chosen.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise SerError(f"--set {text!r} has no value. Write --set name=value.")
        settings[name.strip()] = value
    engine = chosen.engine or ""
    if not engine and not {"fit", "base_model"} & set(settings):
        engine = machine.engine_for(machine.this_machine())
        print(machine.why(machine.this_machine()))
    config = from_preset(chosen.preset, engine).changed(settings)
    if engine and (against := machine.warning(engine, machine.this_machine())):
        print(against, file=sys.stderr)
    return config


def _sets(store: Store, chosen: argparse.Namespace) -> tuple[str, str, str | None]:
    """Ids of seed, pool and held-out set."""
    named = {role: _stored(store, source, role).id for role in ROLES if (source := getattr(chosen, role))}
    return named["seed"], named["pool"], named.get("heldout")


def _estimate(chosen: argparse.Namespace) -> int:
    from ser_backend.estimate import estimate

    config = _config(chosen)
    store = Store.open()
    said = ""

    def tell(state: str, sentence: str) -> None:
        nonlocal said
        if sentence and sentence != said:
            print(sentence, flush=True)
        said = sentence

    found = forecast.forecast(estimate(store, config, *_sets(store, chosen), tell), config)
    print(forecast.in_words(found))
    for note in (*forecast.warnings(found), *found.notes):
        print(f"  {note}")
    return 0


def _presets(_: argparse.Namespace) -> int:
    here = machine.this_machine()
    print(f"This machine: {here}.")
    for title, presets, default in (
        ("Presets: how labels are chosen (--preset)", PRESETS, DEFAULT_PRESET),
        ("Engines: what is trained (--engine)", ENGINES, machine.engine_for(here)),
    ):
        print(title)
        for name, preset in presets.items():
            settings = ", ".join(f"{key}={number(value)}" for key, value in preset.settings.items()) or "the defaults"
            print(f"  {name}{' (default)' if name == default else ''}: {preset.help}\n      {settings}")
    print(machine.why(here))
    return 0


def _demo(chosen: argparse.Namespace) -> int:
    _check_out(chosen.out)
    store = Store.open()
    sets = {role: _stored(store, str(SAMPLES / f"sample-{role}.jsonl"), role) for role in ROLES}
    run = jobs.submit(
        store, from_preset(DEFAULT_PRESET), sets["seed"].id, sets["pool"].id, sets["heldout"].id, "Sample"
    )
    return _follow(store, run, chosen.out)


def _runs(_: argparse.Namespace) -> int:
    for run in Store.open().runs():
        print(f"{run.id}  {run.status:11} {run.created_at[:16]}  {run.name}  {run.error or run.stopped_because or ''}")
    return 0


def _again(chosen: argparse.Namespace) -> int:
    store = Store.open()
    run = store.run(chosen.run)
    last = store.events(run.id, last=1)
    (jobs.retrain if chosen.command == "retrain" else jobs.resume)(store, run.id)
    return _follow(store, run, None, last[-1].seq if last else 0)


def _stop(chosen: argparse.Namespace) -> int:
    store = Store.open()
    run = store.run(chosen.run)
    jobs.stop(store, run.id)
    print(f"Run {run.id} {'is asked to stop' if run.status in ACTIVE else f'was not active ({run.status})'}.")
    return 0


def _export(chosen: argparse.Namespace) -> int:
    from ser_backend import export

    store = Store.open()
    run = store.run(chosen.run).id
    _check_out(chosen.out)
    if chosen.base_model and not chosen.distil:
        raise SerError("--base-model names the model that --distil fine-tunes. Add --distil, or leave it out.")
    if chosen.without_base_model and export.shape(run).fit == "full":
        raise SerError(
            "This run trained all weights, so there is no base model to leave out. Drop --without-base-model."
        )
    beside: dict[str, Path] = {}
    sentence = ""
    if chosen.distil:
        distilled = _distilled(store, run, chosen.base_model or "bundled")
        beside = {"distilled_model": distilled.folder, distilled.facts_file.name: distilled.facts_file}
        sentence = distilled.facts["sentence"]
    done = export.write(store, run, chosen.out, not chosen.without_base_model, beside)
    counts = ", ".join(f"{count:,} {origin}" for origin, count in done.counts.items())
    print(f"{done.folder}: {counts}")
    if sentence:
        print(sentence)
    return 0


def _distilled(store: Store, run: str, base_model: str) -> "Distilled":
    """Ctrl+C is heard between two steps, so that what was trained is kept."""
    from ser_backend import distil

    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    telling = distil.distil(store, run, base_model)
    doing, bar = "", _Bar("Distilling")
    try:
        with closing(telling):
            while True:
                told = next(telling)
                if told.doing != doing:
                    bar.clear()
                    doing, bar = told.doing, _Bar(told.doing)
                bar.show(told.done, told.total)
                if stop.is_set():
                    telling.close()
                    print("\nThe same command goes on where this one was.", file=sys.stderr)
                    raise KeyboardInterrupt
    except StopIteration as done:
        return done.value
    finally:
        bar.clear()
        signal.signal(signal.SIGINT, before)


def _score(chosen: argparse.Namespace) -> int:
    from ser_backend.scoring import score_file

    if chosen.out.is_symlink() or (chosen.out.exists() and not chosen.out.is_file()):
        raise SerError(f"{chosen.out} is not a plain file. Give the name of a file to write.")
    with _Bar("Scoring") as bar:
        found = score_file(chosen.model, chosen.file, chosen.out, bar.show)
    bad = f"; {found.problems:,} rows could not be used" if found.problems else ""
    print(f"{chosen.out}: rewards for {found.rows:,} rows{bad}")
    for note in found.notes:
        print(f"  {note}")
    return 0


def _doctor(chosen: argparse.Namespace) -> int:
    from ser_backend.checks import in_words
    from ser_backend.doctor import diagnose

    made = []
    with _Bar("rewarding texts") as bar:
        for one in diagnose(chosen.model, chosen.data, bar.show):
            bar.clear()
            made.append(one)
            print(f"{MARKS[one.outcome]:8} {one.name}: {one.found}", flush=True)
            if one.remedy:
                print(f"{'':11}{one.remedy}", flush=True)
    print(in_words(made) + ".")
    return 1 if any(one.outcome == "failed" for one in made) else 0


def _users(_: argparse.Namespace) -> int:
    for user in Store.open().users():
        print(
            f"{user.role:10} {user.name}{f' <{user.email}>' if user.email else ''}{'' if user.active else ', not active'}"
        )
    return 0


def _add_user(chosen: argparse.Namespace) -> int:
    store = Store.open()
    password = _password(chosen.password_stdin, may_be_none=bool(chosen.email))
    made = store.add_user(User(chosen.name, chosen.role, chosen.email, True, ""), password)
    print(f"{made.name} is {team.WITH_ARTICLE[made.role]} now.")
    if not any(user.role == "owner" and user.active for user in store.users()):
        print("Nobody is an owner yet, so nobody can manage users on the page. Add one.", file=sys.stderr)
    return 0


def _change_user(chosen: argparse.Namespace) -> int:
    store = Store.open()
    name = store.user_named(chosen.name).name
    password = _password(chosen.password_stdin) if chosen.password or chosen.password_stdin else None
    made = store.change_user(name, chosen.role, chosen.active, password)
    print(f"{made.name}: {made.role}, {'active' if made.active else 'not active'}")
    return 0


def _refusals(_: argparse.Namespace) -> int:
    for refusal in Store.open().refusals():
        print(f"{refusal.at[:16]}  {refusal.act:12} {refusal.sentence}")
    return 0


def _password(from_stdin: bool, may_be_none: bool = False) -> str | None:
    """Asked for twice; None for none, where there may be none. Raises SerError when the two differ."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass(f"Password{' (empty for none)' if may_be_none else ''}: ")
    if not password and may_be_none:
        return None
    if getpass("Once more: ") != password:
        raise SerError("The two passwords differ, so nothing was changed. Try again.")
    return password


def _worker(_: argparse.Namespace) -> int:
    from ser_backend import supervisor

    sys.argv = sys.argv[:1]
    return supervisor.main()


def _follow(store: Store, run: Run, out: Path | None, after: int = 0) -> int:
    """Print a run's events until its job ends; Ctrl+C asks it to stop."""
    job = store.jobs(run=run.id)[-1]
    print(f"Run {run.id} ({run.name})")
    if (place := store.queue_position(run.id) or 0) > 1 or len(jobs.active(store)) > 1:
        print(f"  waiting: number {max(place, 1)} in the queue")
    try:
        with _Bar("reading texts") as bar:
            while True:
                ended = store.job(job.id).status not in ACTIVE  # asked first, so that no event is missed
                for event in store.events(run.id, after):
                    after = event.seq
                    _print_event(store, run, event, bar)
                if ended:
                    break
                jobs.ensure_supervisor()
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        jobs.stop(store, run.id)
        print(f"\nRun {run.id} is asked to stop; finished rounds stay. Go on with: resume {run.id}", file=sys.stderr)
        return 1
    job, run = store.job(job.id), store.run(run.id)
    if job.status == Status.FAILED:
        raise SerError(job.error or "The run failed.")
    print(run.stopped_because or f"The run is {run.status}.")
    if sentence := verdict(store.rounds(run.id)):
        print(sentence)
    if out and RunFolder.of(run.id).finished():
        from ser_backend import export

        export.write(store, run.id, out)
        print(f"Written to {out}")
    return 0 if job.status == Status.SUCCEEDED else 1


def _print_event(store: Store, run: Run, event: Event, bar: "_Bar") -> None:
    payload = event.payload
    if event.kind == "data_prepared":
        counts = payload["counts"]
        print(
            f"  {counts['seed_trained']:,} seed pairs to train on, {counts['heldout_pairs']:,} held out, "
            f"{counts['pool_open']:,} pool pairs to label"
        )
        for note in payload["notes"]:
            print(f"  {note}")
    elif event.kind in PROGRESS:
        where = f"round {event.round}: " if event.round is not None else ""
        bar.show(payload["done"], payload["total"], where + PROGRESS[event.kind].format(of=payload.get("of", "model")))
    elif event.kind == "texts_encoded":
        bar.clear()
        print(f"  {payload['responses']:,} texts read ({payload['computed']:,} new) in {payload['seconds']:.1f} s")
    elif event.kind == "round_finished":
        round_ = next(r for r in store.rounds(run.id) if r.index == event.round)
        print(
            f"  round {round_.index}: accuracy {round_.heldout}; control {round_.control}; "
            f"kept {round_.n_kept:,} of {round_.n_pool:,}; {round_.why}; {round_.seconds:.1f} s"
        )
    elif event.kind in ("job_interrupted", "run_resumed"):
        print(f"  {payload['message']}")


def _stored(store: Store, source: str, role: Role) -> Dataset:
    """An imported data set by name, or a file that is imported now (or was before)."""
    try:
        return store.dataset(source)
    except NotFound:
        if not Path(source).exists() and "/" not in source and not Path(source).suffix:
            raise
    dataset, notes = _imported(store, source, role, None)
    print(f"{dataset.name}: {_in_words(dataset)}")
    for note in notes:
        print(f"  {note}")
    return dataset


def _imported(store: Store, source: str, role: Role, name: str | None) -> tuple[Dataset, list[str]]:
    from ser_backend.ingest import import_source

    with _Bar(f"Importing {Path(source).name}") as bar:
        found = import_source(store, source, role, name=name, progress=bar.show)
    return found.dataset, found.notes


def _in_words(dataset: Dataset) -> str:
    return (
        f"{dataset.n_pairs:,} pairs, {dataset.n_responses:,} distinct responses, {dataset.n_groups:,} prompt groups, "
        f"{dataset.n_problems:,} rows left out"
    )


def _check_out(out: Path | None) -> None:
    """Before the work, not after it."""
    if out and not os.access(next(p for p in (out, *out.absolute().parents) if p.exists()), os.W_OK):
        raise SerError(f"{out} cannot be written to. Give a folder in a place that is yours.")
    if out and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SerError(f"{out} exists already and is not an empty folder. Give a folder that does not exist yet.")


class _Bar:
    """A progress bar on standard error; where that is not a terminal, a line every ten seconds."""

    def __init__(self, title: str) -> None:
        self.title, self.shown = title, False
        self.started = self.said = time.monotonic()

    def show(self, done: int, total: int, title: str = "") -> None:
        if title and title != self.title:
            self.clear()
            self.title, self.started = title, time.monotonic()
        if sys.stderr.isatty() and total:
            width = max(10, min(30, shutil.get_terminal_size().columns - len(self.title) - 30))
            filled = width * done // total
            left = (time.monotonic() - self.started) * (total - done) / done if done else 0
            bar = "#" * filled + "." * (width - filled)
            sys.stderr.write(f"\r  {self.title} [{bar}] {done:,}/{total:,}, {left:.0f} s left ")
            sys.stderr.flush()
            self.shown = True
        elif total and time.monotonic() - self.said > SAY_S:
            self.said = time.monotonic()
            print(f"  {self.title}: {done:,} of {total:,}", file=sys.stderr)

    def clear(self) -> None:
        if self.shown:
            sys.stderr.write("\r\033[K")
            self.shown = False

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
