"""The vision transformer ViT-B/16 (Dosovitskiy et al. 2021): its encoder, and the weights that Google published for it."""

import math
import zipfile
from typing import Any

import flax.linen as nn
import numpy as np
import scipy
from jax import Array

from mrdiff_jax.errors import UserError
from mrdiff_jax.networks.attention import attend
from mrdiff_jax.networks.convolutions import dropout
from mrdiff_jax.networks.initializers import Initializer, normal, ones, uniform, zeros
from mrdiff_jax.streams import stream

_SMALL = normal(1e-6)


class VisionTransformer(nn.Module):
    """Layers of attention and perceptrons, each after a layer normalisation and added to its input, and a last normalisation.

    Attributes:
      layers: of the published ViT-B, 12.
      heads: of the attention; their number divides the width.
      rate: of the dropout in the perceptrons.
    """

    layers: int = 12
    heads: int = 12
    rate: float = 0.1

    @nn.compact
    def __call__(self, tokens: Array, keys: Array | None = None) -> Array:
        """Maps tokens (B, N, C) to as many; `keys` (B,) are those of the dropout, None does without."""
        for i in range(self.layers):
            own = None if keys is None else stream(keys, "layer", i)
            tokens = tokens + MultiHeadAttention(self.heads, name=f"attention_{i}")(_layer_norm(f"norm_attention_{i}")(tokens))
            tokens = tokens + Perceptron(self.rate, name=f"perceptron_{i}")(_layer_norm(f"norm_perceptron_{i}")(tokens), own)
        return _layer_norm("norm_out")(tokens)


class MultiHeadAttention(nn.Module):
    """Self-attention over all tokens."""

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, n, c = x.shape
        q, k, v = (_dense(c, c, name)(x).reshape(b, n, self.heads, c // self.heads) for name in ("query", "key", "value"))
        return _dense(c, c, "out")(attend(q, k, v).reshape(b, n, c))


class Perceptron(nn.Module):
    """Two layers, the inner one four times as wide; dropout after each."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, keys: Array | None) -> Array:
        c = x.shape[-1]
        first, second = (None, None) if keys is None else (stream(keys, "inner"), stream(keys, "outer"))
        bound = (6 / (5 * c)) ** 0.5  # Xavier: 6 / (inputs + outputs)
        h = nn.gelu(nn.Dense(4 * c, kernel_init=uniform(bound), bias_init=_SMALL, name="in")(x), approximate=False)
        h = dropout(h, self.rate, first)
        return dropout(nn.Dense(c, kernel_init=uniform(bound), bias_init=_SMALL, name="out")(h), self.rate, second)


def _dense(inputs: int, outputs: int, name: str) -> nn.Dense:
    """A layer that starts within 1 / sqrt(inputs), as torch does by default."""
    start: Initializer = uniform(inputs**-0.5)
    return nn.Dense(outputs, kernel_init=start, bias_init=start, name=name)


def _layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, scale_init=ones, bias_init=zeros, name=name)


class Pretrained:
    """Weights in the layout of the `.npz` files that Google published (say R50+ViT-B_16.npz).

    Keys that are read: 'embedding/kernel' (1, 1, 1024, C) and 'embedding/bias', the patch embedding;
    'Transformer/posembed_input/pos_embedding' (1, 1 + n^2, C), of which the first is the class token's;
    'Transformer/encoderblock_<i>/' with 'LayerNorm_0/', 'LayerNorm_2/' ('scale', 'bias'),
    'MultiHeadDotProductAttention_1/query|key|value|out/' and 'MlpBlock_3/Dense_0|Dense_1/' ('kernel', 'bias');
    'Transformer/encoder_norm/'. Others are left alone.
    """

    def __init__(self, path: str):
        """Opens a file. Raises UserError where it is missing, or not such a file."""
        self.path = path
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                self.arrays = {name: file[name] for name in file.files if _is_read(name)}
        except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "not a .npz file of arrays"
            raise UserError(f"{path}: cannot be read ({why.lower()}); give Google's .npz of R50+ViT-B/16") from error

    def transformer(self, layers: int, heads: int, width: int) -> dict[str, Any]:
        """The parameters of a `VisionTransformer` of this size."""
        split = (heads, width // heads)
        found = {"norm_out": self._norm("Transformer/encoder_norm", width)}
        for i in range(layers):
            block = f"Transformer/encoderblock_{i}"
            attention, perceptron = f"{block}/MultiHeadDotProductAttention_1", f"{block}/MlpBlock_3"
            found[f"norm_attention_{i}"] = self._norm(f"{block}/LayerNorm_0", width)
            found[f"norm_perceptron_{i}"] = self._norm(f"{block}/LayerNorm_2", width)
            found[f"attention_{i}"] = {
                name: self._dense(f"{attention}/{name}", (width,), split) for name in ("query", "key", "value")
            } | {"out": self._dense(f"{attention}/out", split, (width,))}
            found[f"perceptron_{i}"] = {
                "in": self._dense(f"{perceptron}/Dense_0", (width,), (4 * width,)),
                "out": self._dense(f"{perceptron}/Dense_1", (4 * width,), (width,)),
            }
        return found

    def embedding(self, features: int, width: int) -> dict[str, np.ndarray]:
        """Kernel and bias of the patch embedding, a 1 x 1 convolution from this many features."""
        return {"kernel": self._array("embedding/kernel", 1, 1, features, width), "bias": self._array("embedding/bias", width)}

    def positions(self, side: int, width: int) -> np.ndarray:
        """The position embeddings (side, side, width), resized bilinearly from the file's square."""
        name = "Transformer/posembed_input/pos_embedding"
        tokens = self.arrays[name].shape[1] - 1 if name in self.arrays and self.arrays[name].ndim == 3 else 0
        own = math.isqrt(max(tokens, 1))
        square = self._array(name, 1, 1 + own**2, width)[0, 1:].reshape(own, own, width)
        return scipy.ndimage.zoom(square, (side / own, side / own, 1), order=1)

    def _norm(self, prefix: str, width: int) -> dict[str, np.ndarray]:
        return {name: self._array(f"{prefix}/{name}", width) for name in ("scale", "bias")}

    def _dense(self, prefix: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Kernel and bias as a matrix and a vector; in the file the heads are an axis of their own."""
        kernel, bias = self._array(f"{prefix}/kernel", *inputs, *outputs), self._array(f"{prefix}/bias", *outputs)
        return {"kernel": kernel.reshape(math.prod(inputs), math.prod(outputs)), "bias": bias.ravel()}

    def _array(self, name: str, *shape: int) -> np.ndarray:
        """An array of the file, of this shape."""
        if name not in self.arrays:
            raise UserError(f"{self.path}: has no array {name!r}; give Google's .npz of R50+ViT-B/16")
        array = self.arrays[name]
        if array.shape != shape or not np.issubdtype(array.dtype, np.floating) or not np.all(np.isfinite(array)):
            raise UserError(f"{self.path}: {name!r} holds {array.dtype} {array.shape}; finite numbers {shape} are needed")
        return array.astype(np.float32)


def _is_read(name: str) -> bool:
    return name.startswith(("embedding/", "Transformer/"))
