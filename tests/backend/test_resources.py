"""What a worker takes of the machine: measured on processes that take a known amount."""

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ser_backend import resources
from ser_backend.resources import MOST, NAME, Meter, Sample, read

MIB = 1 << 20


def look_again(meter: Meter) -> Sample:
    meter.looked -= meter.every  # as if the time had passed
    meter.look()
    found = read(meter.folder)
    assert found
    return found.now


def test_memory_and_processor_time_of_a_child_are_counted(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"x" * 5_000)
    meter = Meter(tmp_path)
    alone = look_again(meter)
    assert alone.cpu == 0  # nothing to compare with yet
    me = psutil.Process()  # tests before this one may have left children
    family = sum(one.memory_info().rss for one in (me, *me.children(recursive=True)))
    assert alone.memory == pytest.approx(family, rel=0.1)
    assert alone.disk == 5_000
    assert alone.free == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.1)
    code = "import sys\nheld = bytearray(b'x' * (200 << 20))\nprint('there', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "there\n"
            meter.listed = float("-inf")
            look_again(meter)
            began = time.monotonic()
            spent = psutil.Process(child.pid).cpu_times()
            time.sleep(1.0)
            meter.looked, meter.every = began, 0.5
            meter.look()
            used = psutil.Process(child.pid).cpu_times()
            found = read(tmp_path)
            assert found
            took = time.monotonic() - began
            # on a busy machine the child gets less than a core; what the system says it got is what is told
            expected = (used.user + used.system - spent.user - spent.system) / took
            assert found.now.cpu == pytest.approx(expected, abs=0.35)
            assert found.now.cpu > 0.05
            assert found.now.memory - alone.memory > 190 * MIB
        finally:
            child.kill()
    meter.every = 0.0
    meter.listed = float("-inf")
    meter.look()  # the child is gone, and nothing minds
    found = read(tmp_path)
    assert found
    assert found.now.memory < alone.memory + 100 * MIB
    assert found.peak.memory > alone.memory + 190 * MIB  # but the peak stays


def test_it_samples_only_when_it_is_time(tmp_path: Path) -> None:
    meter = Meter(tmp_path, every=60)
    meter.look()
    meter.look()
    found = read(tmp_path)
    assert found
    assert len(found.samples) == 1


def test_a_long_run_keeps_few_samples_over_all_of_its_time(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    n = 5 * MOST
    for at in range(n):
        meter._add(Sample(float(at), at / n, at, 0, at, n - at))
    found = read(tmp_path)
    assert found
    assert MOST / 2 <= len(found.samples) <= MOST
    assert found.samples[0].at < n / 20
    assert found.now.at == n - 1
    assert found.peak == Sample(n - 1, (n - 1) / n, n - 1, 0, n - 1, 1)
    assert found.every > resources.EVERY_S
    assert len((tmp_path / NAME).read_bytes()) < 60_000


def test_a_run_that_goes_on_keeps_its_peak(tmp_path: Path) -> None:
    first = Meter(tmp_path)
    first._add(Sample(1.0, 0.5, 10**15, 7, 0, 1))
    second = Meter(tmp_path)
    look_again(second)
    found = read(tmp_path)
    assert found
    assert len(found.samples) == 2
    assert (found.peak.memory, found.peak.gpu, found.peak.free) == (10**15, 7, 1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"samples": [], "peak": {}, "every": 1}', '{"samples": [[1]]}'])
def test_a_damaged_file_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert read(tmp_path) is None
    meter = Meter(tmp_path)
    look_again(meter)  # and is written anew
    assert json.loads((tmp_path / NAME).read_text())["samples"]


def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "removed")
    meter.look()
    assert read(tmp_path / "removed") is None


def test_gpu_memory_is_asked_of_torch_only_where_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert resources.gpu_memory() == 0
    assert "torch" not in sys.modules

    class Cuda:
        used = True

        @classmethod
        def is_initialized(cls) -> bool:
            return cls.used

        @staticmethod
        def mem_get_info() -> tuple[int, int]:
            return 3 * MIB, 10 * MIB

    class Torch:
        cuda = Cuda

    monkeypatch.setitem(sys.modules, "torch", Torch)
    assert resources.gpu_memory() == 7 * MIB
    Cuda.used = False
    assert resources.gpu_memory() == 0
    Cuda.is_initialized = None  # type: ignore[assignment]
    assert resources.gpu_memory() == 0


def test_a_look_costs_next_to_nothing(tmp_path: Path) -> None:
    meter = Meter(tmp_path, every=0.0)
    began = time.process_time()
    for _ in range(20):
        meter.look()
    a_look = (time.process_time() - began) / 20
    assert a_look < 0.01 * resources.EVERY_S  # under a hundredth of a core
