"""What the metrics share: checked, scaled images, masks, and the box filter and gradient of the metrics' authors."""

import jax
import jax.numpy as jnp

SMALLEST_SIDE = 16


def checked(*images: jax.Array) -> tuple[jax.Array, ...]:
    """The images in float32, or float64 if one already is.

    Raises ValueError, naming the shapes, unless all are (B, H, W), equal in shape, with sides of 16 or more.
    """
    images = tuple(map(jnp.asarray, images))
    shapes = [image.shape for image in images]
    if len(shapes[0]) != 3 or min(shapes[0][1:]) < SMALLEST_SIDE:
        raise ValueError(f"expected images (B, H, W) of at least 16 x 16, got {shapes[0]}")
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"prediction and target differ in shape: {shapes[0]} and {shapes[1]}")
    dtype = jnp.result_type(jnp.float32, *images)
    return tuple(image.astype(dtype) for image in images)


def on_8_bit_scale(prediction: jax.Array, target: jax.Array, data_range: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both images, checked, on the scale 0..255 for which the metrics' constants are defined."""
    prediction, target = checked(prediction, target)
    scale = jnp.reshape(255 / jnp.asarray(data_range, prediction.dtype), (-1, 1, 1))
    return prediction * scale, target * scale


def box_downsample(images: jax.Array, factor: int) -> jax.Array:
    """Box mean ('same', zero padded) at every factor-th pixel: (B, H, W) -> (B, ceil(H / f), ceil(W / f))."""
    b, h, w = images.shape
    rows, columns = -(-h // factor), -(-w // factor)
    before = (factor - 1) // 2
    padded = jnp.pad(images, ((0, 0), (before, factor), (before, factor)))
    padded = padded[:, : rows * factor, : columns * factor]
    return padded.reshape(b, rows, factor, columns, factor).mean((2, 4))


def gradient_magnitude(images: jax.Array, smoothing: tuple[float, float, float]) -> jax.Array:
    """Length of the 3 x 3 gradient, zero padded: differences across, `smoothing` along. Shape as given."""
    h, w = images.shape[1:]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1)))
    down = padded[:, 2:] - padded[:, :h]
    right = padded[:, :, 2:] - padded[:, :, :w]
    down = sum(weight * down[:, :, i : i + w] for i, weight in enumerate(smoothing))
    right = sum(weight * right[:, i : i + h] for i, weight in enumerate(smoothing))
    return jnp.sqrt(down**2 + right**2)


def pixel_weights(mask: jax.Array | None, values: jax.Array) -> jax.Array:
    """1 where the mask (B, H, W) holds, else 0, in the type of values (B, H, W); no mask and an empty one hold everywhere."""
    if mask is None:
        return jnp.ones_like(values)
    return (mask | ~mask.any((1, 2), keepdims=True)).astype(values.dtype)


def pixel_mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean of maps (B, H, W) over the pixels of a mask (B, H, W), all where it is None or empty: (B,)."""
    if mask is None:
        return values.mean((1, 2))
    weights = pixel_weights(mask, values)
    return (values * weights).sum((1, 2)) / weights.sum((1, 2))
