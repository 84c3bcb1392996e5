"""Weights of a trained run as the start of another training, or of another network."""

from functools import partial
from pathlib import Path

from flax.traverse_util import flatten_dict, unflatten_dict

from mrdiff_jax.errors import UserError
from mrdiff_jax.log import logger
from mrdiff_jax.methods.contract import Tree, Variables
from mrdiff_jax.methods.reading import flatten, restore_evaluated, unflatten

PLAYER, SPECTRAL = "generator", "spectral"


def trained_params(workdir: Path) -> Tree:
    """The parameters of a run's generator that are evaluated: their average, where one is kept.

    Raises:
      UserError: there is no checkpoint, or it is damaged, or its method has no such player, or one with spectral normalisation.
    """
    from mrdiff_jax.storage.checkpoints import restore_part  # orbax, which few runs need here

    def choose(shapes: Variables) -> Variables:
        if PLAYER not in shapes.params:
            raise UserError(f"{workdir}: a run without a {PLAYER}; give one of mrdiff or cdpm")
        if any(path.startswith(f"state/{PLAYER}/{SPECTRAL}/") for path in flatten(shapes)):
            raise UserError(
                f"{workdir}: its network divides weights by their singular values, this one does not; give a run with"
                " --config.mrdiff.spectral_norm=False"
            )
        return Variables({PLAYER: shapes.params[PLAYER]})

    return restore_evaluated(partial(restore_part, workdir), choose)[1].params[PLAYER]


def continued(fresh: Variables, workdir: Path) -> Variables:
    """Variables of a run, averages where they are kept, in the place of fresh ones: the start of fine-tuning.

    Raises:
      UserError: there is no checkpoint, or it is damaged, or is of another method or size; the message names what does not fit.
    """
    from mrdiff_jax.storage.checkpoints import restore_part  # likewise

    trained = flatten(restore_evaluated(partial(restore_part, workdir), lambda shapes: shapes)[1])
    for path, leaf in flatten(fresh).items():
        if path not in trained or trained[path].shape != leaf.shape:
            there = f"is {trained[path].shape} there, here {leaf.shape}" if path in trained else "is not there"
            fix = "give a run of the same method, config.model and number of sources"
            raise UserError(f"--config.train.init={workdir}: {path} {there}; {fix}")
    return unflatten({path: trained[path] for path in flatten(fresh)})


def fitting(fresh: Tree, trained: Tree, origin: Path) -> Tree:
    """Fresh parameters, with those of another network in the place of each that has the same name and shape.

    Raises:
      UserError: none has; the message names the run that the others come from.
    """
    own, other = flatten_dict(fresh), flatten_dict(trained)
    found = {path: other[path] for path, leaf in own.items() if path in other and other[path].shape == leaf.shape}
    if not found:
        raise UserError(
            f"{origin}: none of its weights fits the network; give a run of mrdiff or cdpm of the same config.model"
        )
    logger.info("%d of %d weights are those of %s", len(found), len(own), origin)
    return unflatten_dict(own | found)
