"""What each component of MRDiff does: trains it without them (the paper's Figure 4), and with other settings of them.

    python tools/ablate.py --config=configs/demo.py --output=runs/ablation --parts=components --minutes=8 --seeds=0,1,2

Takes any configuration and any of its fields, as `mrdiff_jax.main` does; they count for all rows, so that parts are crossed
with a field by another call (`--config.mrdiff.decoder_skips=False`). Each of --parts is some rows of the table:

    components   L_G alone; with L_D, but without the physics M before D; with M; with L_CCT, which is all
    maps         D without the encoder's features; softplus in place of relu
    draws        N = 1, 2, 3, 5 noise draws
    consistency  L_CCT with a tenth and with ten times its weight
    wavelets     0, 1 and 2 levels of the wavelet transform

The first row, against which the others are tested, is the configuration as it is; rows equal to it are left out. Rules, seeds,
output folder and going on after a kill are those of tools/run_comparison.py. In comparison/ stand the table, and
figures/ablation.png, which is drawn like the paper's figure.
"""

import signal
import sys
from collections.abc import Mapping, Sequence
from operator import attrgetter

from absl import flags
from ml_collections import ConfigDict

from mrdiff_jax import cli
from mrdiff_jax.errors import UserError
from mrdiff_jax.experiments import command
from mrdiff_jax.experiments.plan import Rows

WHOLE = "MRDiff"
PARTS: Mapping[str, Rows] = {
    "components": {
        "L_G": {"mrdiff.lambda_d": 0.0, "mrdiff.lambda_cct": 0.0},
        "L_G+L_D_without_M": {"mrdiff.modulation": False, "mrdiff.lambda_cct": 0.0},
        "L_G+L_D": {"mrdiff.lambda_cct": 0.0},
    },
    "maps": {"no_skips_to_D": {"mrdiff.decoder_skips": False}, "softplus": {"mrdiff.positivity": "softplus"}},
    "draws": {f"N_{count}": {"mrdiff.draws": count} for count in (1, 2, 3, 5)},
    "consistency": {f"lambda_3_{weight:g}": {"mrdiff.lambda_cct": weight} for weight in (0.001, 0.1)},
    "wavelets": {f"wavelet_levels_{levels}": {"model.wavelet_levels": levels} for levels in (0, 1, 2)},
}
_PARTS = flags.DEFINE_string("parts", "components", f"Of {', '.join(PARTS)}, comma-separated.")
flags.adopt_module_key_flags(command)


def main() -> None:
    """The rows of all the parts, after the configuration itself."""
    names = command.distinct("parts", _PARTS.value)
    for name in names:
        if name not in PARTS:
            raise UserError(f"--parts={_PARTS.value}: no part {name!r}; choose from {', '.join(PARTS)}")
    config = command.config()
    if config.method.name != "mrdiff":
        raise UserError(f"--config.method.name={config.method.name}: these are the components of mrdiff; leave it out")
    command.main(rows(config, names))


def rows(config: ConfigDict, parts: Sequence[str]) -> Rows:
    """The configuration as it is, and the rows of the parts that change it."""
    others = {row: fields for part in parts for row, fields in PARTS[part].items()}
    changing = {row: fields for row, fields in others.items() if any(attrgetter(f)(config) != fields[f] for f in fields)}
    return {WHOLE: {}} | changing


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    cli.run(main, __doc__)
