"""How long a training takes to its first step."""

import os
import resource
import subprocess
import time

from mrdiff_jax import host
from mrdiff_jax.measuring.timing import Record, cpu_seconds

FIRST_STEP = "first step after"  # what the log of a training says then


def first_step(command: list[str], cache: str) -> Record:
    """Wall and CPU seconds of a training until it says that its first step was made; then it is ended.

    Raises:
      RuntimeError: it ended before, with what it said.
    """
    start, before, said = time.perf_counter(), cpu_seconds(resource.RUSAGE_CHILDREN), []
    environment = {name: value for name, value in os.environ.items() if name not in host.RESTART} | {"MRDIFF_CACHE": cache}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            said.append(line)
            if FIRST_STEP in line:
                break
        else:
            raise RuntimeError("".join(said)[-300:])
        seconds = time.perf_counter() - start
        process.kill()
    return {"seconds": seconds, "cpu_seconds": cpu_seconds(resource.RUSAGE_CHILDREN) - before}
