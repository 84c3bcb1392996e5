"""One process at a time writes to a folder."""

import os
import subprocess
import sys
import threading

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage import lock

HOLDER = """
import sys, time
from pathlib import Path
from mrdiff_jax.storage import lock
with lock.hold(Path(sys.argv[1]), "trains"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_refused_and_told_who_is_there(holder, tmp_path):
    with (
        pytest.raises(UserError, match=rf"^{tmp_path}: process {holder.pid} on .* trains here"),
        lock.hold(tmp_path / "lock", "trains"),
    ):
        pass


def test_a_process_that_was_killed_holds_nothing(holder, tmp_path):
    holder.kill()
    holder.wait()
    with lock.hold(tmp_path / "lock", "trains"):
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_who_waits_comes_next(holder, tmp_path):
    threading.Timer(0.3, holder.kill).start()
    with lock.hold(tmp_path / "lock", "trains", wait=True):
        assert holder.wait(timeout=5) < 0
