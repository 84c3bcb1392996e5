"""The authors' PyTorch network as a state dict, and the same network as our parameters (docs/fidelity.md shows that it is)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from mrdiff_jax.networks.unet import Backbone

StateDict = Mapping[str, np.ndarray]

# our layers and theirs: single ones, and those inside a residual or an attention block
_SINGLE = {
    "step_embedding/in": "time_embed.0",
    "step_embedding/out": "time_embed.2",
    "target_stem": "input_conv.0",
    "source_stem_0": "cond_enc.0",
    "source_stem_1": "cond_enc.1",
    "source_stem_2": "cond_enc.3",
    "encoder/conv_in": "input_blocks.0.0",
    "generator/norm_out": "out.0",
    "generator/conv_out": "out.2",
    "decoder/norm_out": "out2.0",
    "decoder/conv_out": "out2.2",
}
_INSIDE = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "film": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
    "norm": "norm",
    "qkv": "qkv",
    "out": "proj_out",
}
_TRAILING = {"skip_connection": (1, 1), "qkv": (1,), "proj_out": (1,)}  # linear layers that they have as 1 x 1 convolutions


def blocks(size: Backbone) -> Iterator[tuple[str, str]]:
    """Our residual and attention blocks and theirs; attention is named at every level, whether it is there or not."""
    yield "map_block", "features_extraction.0"
    yield "signal_block", "features_accumulation.0"
    levels, place = range(len(size.channels)), 0
    for level in levels:
        if level:
            place += 1
            yield f"encoder/down_{level}", f"input_blocks.{place}.0"
        for i in range(size.blocks_per_level):
            place += 1
            yield f"encoder/block_{level}_{i}", f"input_blocks.{place}.0"
            yield f"encoder/attention_{level}_{i}", f"input_blocks.{place}.1"
    for ours, suffix in (("generator", ""), ("decoder", "2")):
        for i, part in enumerate(("middle_in", "middle_attention", "middle_out")):
            yield f"{ours}/{part}", f"middle_block{suffix}.{i}"
        place = -1
        for level in reversed(levels):
            for i in range(size.blocks_per_level + 1):
                place += 1
                yield f"{ours}/block_{level}_{i}", f"output_blocks{suffix}.{place}.0"
                yield f"{ours}/attention_{level}_{i}", f"output_blocks{suffix}.{place}.1"
            yield f"{ours}/up_{level}", f"output_blocks{suffix}.{place}.{2 if level in size.attention_levels else 1}"


def entries(like: dict[str, Any], size: Backbone) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each of our parameters, by path ('spectral/map_block/film/u'), name and shape of the entry that fills it."""
    layers = _SINGLE | {f"{ours}/{a}": f"{theirs}.{b}" for ours, theirs in blocks(size) for a, b in _INSIDE.items()}
    leaves, found = flatten_dict(like, sep="/"), {}
    for path, leaf in leaves.items():
        layer, _, leaf_name = path.partition("/")[2].rpartition("/")
        weight = "weight_orig" if f"spectral/{layer}/u" in leaves else "weight"
        name = {"kernel": weight, "scale": weight, "bias": "bias", "u": "weight_u", "v": "weight_v"}[leaf_name]
        trailing = _TRAILING.get(layers[layer].rpartition(".")[2], ()) if leaf_name == "kernel" else ()
        found[path] = f"{layers[layer]}.{name}", np.shape(leaf)[::-1] + trailing
    return found


def haar_filters(size: Backbone) -> dict[str, np.ndarray]:
    """The wavelet filters in their state dict, which are constant: LL, LH (minus our cV), HL (minus our cH), HH."""
    low, high = (1, 1), (-1, 1)
    bands = {"LL": (low, low), "LH": (low, high), "HL": (high, low), "HH": (high, high)}
    deepest = size.channels[-1] // 4
    channels = {"wt": size.base_channels // 8, "iwt": 1, "iwt_c": 2, "iwt_f": deepest, "wt_f": deepest}
    return {
        f"{module}.{band}.weight": np.tile(np.float32(0.5) * np.outer(*sides), (count, 1, 1, 1))
        for module, count in channels.items()
        for band, sides in bands.items()
    }


def check(theirs: StateDict, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks that a state dict has just the entries that are wanted.

    Raises:
      ValueError: some are missing, surplus, of another shape or not finite; the message names the first of them.
    """
    missing = [name for name in shapes if name not in theirs]
    surplus = [name for name in theirs if name not in shapes]
    misshapen = [
        f"{name} {np.shape(theirs[name])} in place of {shape}"
        for name, shape in shapes.items()
        if name in theirs and np.shape(theirs[name]) != shape
    ]
    for what, names in (("lacks", missing), ("has the surplus", surplus), ("has the ill-shaped", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ValueError(f"{what} {', '.join(names[:3])}{more}; give the --config.model that it was trained with")
    for name in shapes:
        if not np.isfinite(theirs[name]).all():
            raise ValueError(f"{name} has values that are not finite; take an earlier checkpoint")


def arrange(theirs: StateDict, like: dict[str, Any], size: Backbone) -> dict[str, Any]:
    """Their entries under our names, in our layout: channels last, inputs before outputs, and q, k, v before heads."""
    flat = {}
    for path, (name, _) in entries(like, size).items():
        value = theirs[name]
        if ".qkv." in name:
            c = len(value) // 3
            heads = max(c // size.head_channels, 1)
            value = value.reshape(heads, 3, c // heads, -1).swapaxes(0, 1).reshape(value.shape)
        if value.shape[2:] == (3, 3):
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim > 1:
            value = value.reshape(value.shape[:2]).T
        flat[path] = np.array(value, np.float32)
    return unflatten_dict(flat, sep="/")


# parameters of a block by which it reads channels, and by which it writes them: name, axis of the channels, and whether a
# channel's sign goes into it; a normalisation gives the sign back, so that what follows sees another order alone
_READS = (
    ("norm_in/scale", -1, True),
    ("norm_in/bias", -1, False),
    ("conv_in/kernel", -2, False),
    ("norm/scale", -1, True),
    ("norm/bias", -1, False),
    ("qkv/kernel", -2, False),
    ("skip/kernel", -2, True),
)
_WRITES = tuple((f"{layer}/{leaf}", -1, True) for layer in ("conv_out", "skip", "out") for leaf in ("kernel", "bias"))


def in_our_bands(variables: dict[str, Any], size: Backbone) -> dict[str, Any]:
    """The same network on our bands, cA, cH, cV, cD, where theirs has LL, LH, HL, HH = cA, -cV, -cH, cD.

    The bands are channels of the encoder's input, of both outputs, and of the deepest features: the last level of the encoder
    writes e_t, which is split into bands, and the signals come back as bands, for both decoders to read.
    """
    flat, last, deepest = flatten_dict(variables["params"], sep="/"), len(size.channels) - 1, size.channels[-1]

    def turn(block: str, leaves: tuple[tuple[str, int, bool], ...], part: slice = slice(None)) -> None:
        for leaf, axis, signed in leaves:
            if (path := f"{block}/{leaf}") in flat:
                flat[path] = flat[path].copy()
                channels = np.moveaxis(flat[path], axis, 0)[part]
                channels[:] = _other_bands(channels, signed)

    turn("encoder", (("conv_in/kernel", -2, True),))
    for i in range(size.blocks_per_level):
        for block in (f"encoder/block_{last}_{i}", f"encoder/attention_{last}_{i}"):
            turn(block, _WRITES)
            if block != f"encoder/block_{last}_0":
                turn(block, _READS)
    for half in ("generator", "decoder"):
        for block in ("middle_in", "middle_attention", "middle_out"):
            turn(f"{half}/{block}", _READS)
            turn(f"{half}/{block}", _WRITES)
        turn(f"{half}/block_{last}_0", _READS, slice(None, deepest))
        for i in range(size.blocks_per_level):
            turn(f"{half}/block_{last}_{i}", _READS, slice(deepest, None))
        turn(half, (("conv_out/kernel", -1, True), ("conv_out/bias", -1, True)))
    return variables | {"params": unflatten_dict(flat, sep="/")}


def _other_bands(x: np.ndarray, signed: bool) -> np.ndarray:
    """Trades the second and the third band along the first axis; this undoes itself."""
    sign = -1 if signed else 1
    low, second, third, diagonal = np.split(x, 4)
    return np.concatenate([low, sign * third, sign * second, diagonal])


def to_variables(theirs: StateDict, like: dict[str, Any], size: Backbone) -> dict[str, Any]:
    """The network's variables ('params', 'spectral'), in the structure and shapes of `like`, from their whole state dict.

    Raises:
      ValueError: an entry is missing, surplus or ill-shaped, or a wavelet filter is not Haar's; the message names it.
    """
    filters = haar_filters(size)
    check(theirs, dict(entries(like, size).values()) | {name: value.shape for name, value in filters.items()})
    for name, value in filters.items():
        if not np.allclose(theirs[name], value, atol=1e-6):
            raise ValueError(f"has {name} that is not the filter of the Haar transform")
    return in_our_bands(arrange(theirs, like, size), size)
