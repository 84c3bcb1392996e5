import jax
import jax.numpy as jnp
import jaxwt
import numpy as np
import pytest
import pywt

from mrdiff_jax.wavelets import dwt2, idwt2, to_bands, to_pixels


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((2, 8, 12, 3)).astype(np.float32)


def test_perfect_reconstruction(images):
    np.testing.assert_allclose(idwt2(dwt2(images)), images, atol=1e-6)


def test_transform_is_orthonormal():
    matrix = dwt2(np.eye(16, dtype=np.float32).reshape(16, 4, 4, 1)).reshape(16, 16)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(16), atol=1e-6)


def test_bands_agree_with_pywt_band_major(images):
    c_a, (c_h, c_v, c_d) = pywt.dwt2(images, "haar", axes=(1, 2))
    np.testing.assert_allclose(dwt2(images), np.concatenate([c_a, c_h, c_v, c_d], axis=-1), atol=1e-6)


def test_bands_agree_with_jaxwt(images):
    c_a, (c_h, c_v, c_d) = jaxwt.wavedec2(jnp.moveaxis(jnp.asarray(images), -1, 1), "haar", level=1)
    expected = jnp.concatenate([jnp.moveaxis(band, 1, -1) for band in (c_a, c_h, c_v, c_d)], axis=-1)
    np.testing.assert_allclose(dwt2(images), expected, atol=1e-6)


def test_gradient_is_the_inverse_transform(images):
    """An orthonormal map has its inverse as transpose."""
    weights = np.random.default_rng(1).standard_normal((2, 4, 6, 12)).astype(np.float32)
    gradient = jax.grad(lambda x: jnp.sum(dwt2(x) * weights))(images)
    np.testing.assert_allclose(gradient, idwt2(weights), atol=1e-6)


def test_leading_axes_are_free(images):
    np.testing.assert_array_equal(dwt2(images[None]), dwt2(images)[None])
    np.testing.assert_array_equal(dwt2(images[0]), dwt2(images)[0])


def test_packets_transform_every_band_again(images):
    images = np.concatenate([images, images], axis=2)[:, :, :16]
    np.testing.assert_array_equal(to_bands(images, 0), images)
    bands = to_bands(images, 2)
    packet = pywt.WaveletPacket2D(images[0, :, :, 1], "haar", maxlevel=2)
    np.testing.assert_allclose(bands[0, :, :, 1], packet["aa"].data, atol=1e-6)
    np.testing.assert_allclose(bands[0, :, :, 12 * 2 + 3 * 1 + 1], packet["hv"].data, atol=1e-6)  # the cV of cH
    np.testing.assert_allclose(to_pixels(bands, 2), images, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 7, 8, 1), (1, 8, 7, 1)])
def test_odd_sides_are_refused_by_shape(shape):
    with pytest.raises(ValueError, match=rf"\(1, {shape[1]}, {shape[2]}, 1\)"):
        dwt2(jnp.zeros(shape))


def test_missing_bands_are_refused_by_shape():
    with pytest.raises(ValueError, match=r"\(1, 4, 4, 6\)"):
        idwt2(jnp.zeros((1, 4, 4, 6)))
