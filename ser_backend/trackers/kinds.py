"""The trackers people have, each with three calls: open, log, end. Addresses and keys are their own environment variables'.

A package is imported when its tracker is opened. Opening again goes on with the same run there.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Axis = Literal["round", "step"]
GROUP: Mapping[Axis, str] = {"round": "round", "step": "train"}  # before a figure's name: round/accuracy, train/loss
PROJECT = "ser-studio"  # unless the tracker's own variable names another
SHOWN = ("accuracy", "control", "difference", "kept", "precision_claimed", "precision_audited")


class Tracker(Protocol):
    def __init__(self, run_id: str, name: str, config: Mapping[str, Any], folder: Path) -> None: ...

    def log(self, axis: Axis, x: int, figures: Mapping[str, float]) -> None: ...

    def end(self, well: bool) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard; every opening adds one, and TensorBoard reads them as one run."""

    def __init__(self, run_id: str, name: str, config: Mapping[str, Any], folder: Path) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        where = folder / "tensorboard"
        is_new = not where.exists()
        # its names tell seconds apart: one opened within the same second would overwrite the file before
        self.writer = SummaryWriter(str(where), filename_suffix=f".{time.time_ns()}")
        if is_new:
            for summary in hparams(dict(config), dict.fromkeys((f"round/{name}" for name in SHOWN), 0.0))[:2]:
                self.writer.file_writer.add_summary(summary)
            self.writer.add_text("run", f"{name} ({run_id})")

    def log(self, axis: Axis, x: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(f"{GROUP[axis]}/{name}", value, x)
        self.writer.flush()

    def end(self, well: bool) -> None:
        self.writer.close()


class Wandb:
    def __init__(self, run_id: str, name: str, config: Mapping[str, Any], folder: Path) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=run_id,
            name=name,
            resume="allow",
            config=dict(config),
            dir=os.environ.get("WANDB_DIR") or str(folder),
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        for axis, group in GROUP.items():  # its own step only counts calls
            self.run.define_metric(f"{group}/{axis}")
            self.run.define_metric(f"{group}/*", step_metric=f"{group}/{axis}")

    def log(self, axis: Axis, x: int, figures: Mapping[str, float]) -> None:
        group = GROUP[axis]
        self.run.log({f"{group}/{axis}": x, **{f"{group}/{name}": value for name, value in figures.items()}})

    def end(self, well: bool) -> None:
        self.run.finish(exit_code=0 if well else 1)


class Mlflow:
    """Our run is found again by its tag."""

    def __init__(self, run_id: str, name: str, config: Mapping[str, Any], folder: Path) -> None:
        import mlflow

        self.mlflow = mlflow
        if not (os.environ.get("MLFLOW_EXPERIMENT_NAME") or os.environ.get("MLFLOW_EXPERIMENT_ID")):
            mlflow.set_experiment(PROJECT)
        wanted = f"tags.ser_studio_run = '{run_id}'"
        before = mlflow.search_runs(filter_string=wanted, max_results=1, output_format="list")
        if before:
            mlflow.start_run(run_id=before[0].info.run_id)
        else:
            mlflow.start_run(run_name=name, tags={"ser_studio_run": run_id})
            mlflow.log_params(dict(config))

    def log(self, axis: Axis, x: int, figures: Mapping[str, float]) -> None:
        self.mlflow.log_metrics({f"{GROUP[axis]}/{name}": value for name, value in figures.items()}, step=x)

    def end(self, well: bool) -> None:
        self.mlflow.end_run("FINISHED" if well else "FAILED")


class Trackio:
    """It knows a run by its name, so that has the id in it. Its step is the axis: rounds and steps are logged apart."""

    def __init__(self, run_id: str, name: str, config: Mapping[str, Any], folder: Path) -> None:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        # what would open a page, or measure the machine, is switched off
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        self.run = trackio.init(project=project, name=f"{name} {run_id}", resume="allow", config=dict(config), **quiet)

    def log(self, axis: Axis, x: int, figures: Mapping[str, float]) -> None:
        group = GROUP[axis]
        named = {f"{group}/{name}": value for name, value in figures.items()}
        self.run.log({f"{group}/{axis}": x, **named}, step=x)

    def end(self, well: bool) -> None:
        self.run.finish()


KINDS: Mapping[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
