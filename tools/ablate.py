"""What each component of MRDiff does: trains it without them (the paper's Figure 4), and with other settings of them.

    python tools/ablate.py --config=configs/demo.py --output=runs/ablation --parts=components --minutes=8 --seeds=0,1,2

Takes any configuration and any of its fields, as `mrdiff train` does; they count for all rows, so that parts are crossed
with a field by another call (`--config.mrdiff.decoder_skips=False`). Each of --parts is some rows of the table:

    components   L_G alone; with L_D, but without the physics M before D; with M; with L_CCT, which is all
    maps         D without the encoder's features; and one D for each source's own signals; softplus in place of relu
    draws        N = 1, 2, 3, 5 noise draws
    consistency  L_CCT with a tenth and with ten times its weight
    distance     L_G and L_D of l1, of l2, and of l1 of wavelet packets
    wavelets     0, 1 and 2 levels of the wavelet transform

The first row, against which the others are tested, is the configuration as it is; rows equal to it are left out. Rules, seeds,
output folder and going on after a kill are those of tools/run_comparison.py. In comparison/ stand the table, and
figures/ablation.png, which is drawn like the paper's figure.
"""

import signal
import sys

from absl import flags

from mrdiff_jax import cli
from mrdiff_jax.errors import UserError
from mrdiff_jax.experiments import ablation, command
from mrdiff_jax.experiments.ablation import PARTS

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
    command.main(ablation.rows(config, names))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    cli.run(main, __doc__)
