"""python -m ser_backend.profile.apart ID: counts a large set in a process of its own, for one that serves many.

Half a gigabyte of hashes and ten seconds of one core are nothing a page's process should take: it would keep the memory, and
everybody else would wait.
"""

import os
import subprocess
import sys
from collections.abc import Callable

from ser_backend import home, profile
from ser_backend.errors import SerError


def counted(dataset_id: str, progress: Callable[[int, int], None]) -> profile.Profile:
    """As profile.profile. A caller that ends early (whatever progress raises) ends the counting; nothing is kept then.

    Raises SerError when the process is ended from outside, for instance by a machine out of memory.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "ser_backend.profile.apart", dataset_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=home.home(),
        env={**os.environ, "SER_HOME": str(home.home()), "PYTHONUNBUFFERED": "1"},
        text=True,
    ) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                done, of = line.split()
                progress(int(done), int(of))
            code = child.wait()
        finally:
            child.kill()
    if code:
        raise SerError(
            f"The process that counted ended with exit code {code}, so nothing was counted. Was the machine out of memory? "
            "Close other programs, then count again."
        )
    return profile.profile(dataset_id)  # read from its file; counted here where that could not be kept


if __name__ == "__main__":
    profile.profile(sys.argv[1], lambda done, of: print(done, of))
