"""The settings of a run as a configuration: what `mrdiff train --workdir=RUN` goes on with where no --config is given."""

from pathlib import Path

from ml_collections import ConfigDict

from mrdiff_jax.config import fields_from_json
from mrdiff_jax.errors import UserError
from mrdiff_jax.storage import json_files
from mrdiff_jax.workdir import CONFIG


def get_config(workdir: str) -> ConfigDict:
    """The settings of the run in a workdir. Raises UserError, naming the file, where they cannot be read."""
    path, otherwise = Path(workdir, CONFIG), "give the --config that began the run"
    values = json_files.read(path, otherwise)
    try:
        return fields_from_json(values).lock()
    except UserError as error:
        raise UserError(f"{path}: {error}; {otherwise}") from error
