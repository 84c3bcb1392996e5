import flax.linen as nn
import jax
import numpy as np
import pytest

from mrdiff_jax import methods
from mrdiff_jax.errors import UserError
from mrdiff_jax.networks.initializers import init_on_host
from mrdiff_jax.networks.vit import Pretrained, VisionTransformer

HEADS, WIDTH, FEATURES, SIDE = 2, 8, 16 * 4, 14


def arrays(layers=2):
    """Made-up weights in the layout of Google's file."""
    rng = np.random.default_rng(0)

    def pair(*shape, outputs=1, name="kernel"):
        return {name: rng.standard_normal(shape), "bias": rng.standard_normal(shape[-outputs:])}

    found = {
        "embedding": pair(1, 1, FEATURES, WIDTH),
        "Transformer/encoder_norm": pair(WIDTH, name="scale"),
        "Transformer/posembed_input": {"pos_embedding": rng.standard_normal((1, 1 + SIDE**2, WIDTH))},
        "head": pair(WIDTH, 3),
    }
    for i in range(layers):
        block = f"Transformer/encoderblock_{i}"
        found |= {f"{block}/LayerNorm_{n}": pair(WIDTH, name="scale") for n in (0, 2)}
        attention = f"{block}/MultiHeadDotProductAttention_1"
        found |= {f"{attention}/{name}": pair(WIDTH, HEADS, WIDTH // HEADS, outputs=2) for name in ("query", "key", "value")}
        found[f"{attention}/out"] = pair(HEADS, WIDTH // HEADS, WIDTH)
        found[f"{block}/MlpBlock_3/Dense_0"] = pair(WIDTH, 4 * WIDTH)
        found[f"{block}/MlpBlock_3/Dense_1"] = pair(4 * WIDTH, WIDTH)
    return {f"{name}/{leaf}": x.astype(np.float32) for name, part in found.items() for leaf, x in part.items()}


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "vit.npz", **arrays())
    return str(tmp_path / "vit.npz")


def witness(weights, x, layers=2):
    """The same by flax's own attention."""
    attention = nn.MultiHeadDotProductAttention(HEADS)

    def under(prefix):
        return {name[len(prefix) + 1 :]: array for name, array in weights.items() if name.startswith(f"{prefix}/")}

    def norm(x, prefix):
        return nn.LayerNorm(epsilon=1e-6).apply({"params": under(prefix)}, x)

    for i in range(layers):
        block = f"Transformer/encoderblock_{i}"
        own = f"{block}/MultiHeadDotProductAttention_1"
        params = {name: under(f"{own}/{name}") for name in ("query", "key", "value", "out")}
        x = x + attention.apply({"params": params}, norm(x, f"{block}/LayerNorm_0"))
        first, second = under(f"{block}/MlpBlock_3/Dense_0"), under(f"{block}/MlpBlock_3/Dense_1")
        h = jax.nn.gelu(norm(x, f"{block}/LayerNorm_2") @ first["kernel"] + first["bias"], approximate=False)
        x = x + h @ second["kernel"] + second["bias"]
    return norm(x, "Transformer/encoder_norm")


def test_weights_of_a_file_compute_what_flax_computes_of_them(path):
    params = Pretrained(path).transformer(2, HEADS, WIDTH)
    x = np.random.default_rng(1).standard_normal((2, 9, WIDTH)).astype(np.float32)
    found = VisionTransformer(2, HEADS).apply({"params": params}, x)
    np.testing.assert_allclose(found, witness(arrays(), x), rtol=1e-4, atol=1e-5)


def test_a_file_fills_every_weight_of_the_transformer(path):
    fresh = init_on_host(VisionTransformer(2, HEADS), jax.random.key(0), np.zeros((1, 4, WIDTH), np.float32))["params"]
    read = Pretrained(path).transformer(2, HEADS, WIDTH)
    assert jax.tree.map(np.shape, read) == jax.tree.map(np.shape, fresh)


def test_fresh_weights_start_as_published():
    fresh = init_on_host(VisionTransformer(1, 4), jax.random.key(0), np.zeros((1, 4, 64), np.float32))["params"]
    perceptron, attention = fresh["perceptron_0"], fresh["attention_0"]
    for leaf in (perceptron["in"]["kernel"], perceptron["out"]["kernel"]):
        assert np.abs(leaf).max() == pytest.approx((6 / 320) ** 0.5, rel=0.01)
        assert np.abs(leaf).max() <= (6 / 320) ** 0.5
    assert np.std(perceptron["in"]["bias"]) == pytest.approx(1e-6, rel=0.3)
    assert np.abs(attention["query"]["kernel"]).max() == pytest.approx(1 / 8, rel=0.01)


def test_positions_are_resized_by_places(path):
    """The corners stay, the same size is the same, and the class token's embedding is left out."""
    own = arrays()["Transformer/posembed_input/pos_embedding"][0, 1:].reshape(SIDE, SIDE, WIDTH)
    file = Pretrained(path)
    np.testing.assert_array_equal(file.positions(SIDE, WIDTH), own)
    for side in (4, 16):
        resized = file.positions(side, WIDTH)
        assert resized.shape == (side, side, WIDTH)
        np.testing.assert_allclose(resized[[0, 0, -1, -1], [0, -1, 0, -1]], own[[0, 0, -1, -1], [0, -1, 0, -1]], rtol=1e-5)
    ramp = np.broadcast_to(np.linspace(0, 1, SIDE)[:, None, None], own.shape).reshape(-1, WIDTH)
    file.arrays["Transformer/posembed_input/pos_embedding"] = np.concatenate([np.full((1, WIDTH), 9.0), ramp])[None]
    np.testing.assert_allclose(file.positions(16, WIDTH)[:, 3, 5], np.linspace(0, 1, 16), atol=1e-6)


def test_resvit_starts_from_a_file(path):
    """The transformer, and in both blocks the patch embedding and the positions."""
    from conftest import make_batch
    from helpers.players import settings

    size = {"base_channels": 4, "vit_layers": 2, "vit_width": WIDTH, "vit_heads": HEADS, "blocks": 2}
    batch, found = make_batch(1, 64), {}
    for start in ("random", path):
        method = methods.create(settings("resvit", 64, vit_init=start, **size))
        found[start] = method.begin(method.init(jax.random.key(0), batch))
    random, read = (variables.params["generator"] for variables in found.values())
    assert jax.tree.map(np.shape, random) == jax.tree.map(np.shape, read)
    np.testing.assert_array_equal(read["transformer"]["perceptron_1"]["in"]["kernel"],
                                  arrays()["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"])  # fmt: skip
    for i in (0, 1):
        block = read[f"aggregations_{i}"]
        np.testing.assert_array_equal(block["embedding"]["kernel"], arrays()["embedding/kernel"])
        np.testing.assert_array_equal(block["positions"], Pretrained(path).positions(4, WIDTH))
        np.testing.assert_array_equal(block["down_1"]["kernel"], random[f"aggregations_{i}"]["down_1"]["kernel"])


def broken(tmp_path, name, array):
    weights = arrays()
    weights.pop(name)
    np.savez(tmp_path / "broken.npz", **weights | ({} if array is None else {name: array}))
    return str(tmp_path / "broken.npz")


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("Transformer/encoder_norm/scale", None, r"broken\.npz: has no array 'Transformer/encoder_norm/scale'"),
        ("Transformer/encoder_norm/bias", np.zeros(9), r"'Transformer/encoder_norm/bias' holds float64 \(9,\)"),
        ("Transformer/encoder_norm/bias", np.full(8, np.nan), r"finite numbers \(8,\) are needed"),
        ("Transformer/encoder_norm/bias", np.zeros(8, np.int32), r"holds int32"),
    ],
)
def test_arrays_that_are_missing_or_do_not_fit_are_named(tmp_path, name, array, message):
    with pytest.raises(UserError, match=message):
        Pretrained(broken(tmp_path, name, array)).transformer(2, HEADS, WIDTH)


def test_positions_that_make_no_square_and_other_heads_are_refused(tmp_path, path):
    name = "Transformer/posembed_input/pos_embedding"
    with pytest.raises(UserError, match=r"pos_embedding' holds float64 \(1, 12, 8\)"):
        Pretrained(broken(tmp_path, name, np.zeros((1, 12, 8)))).positions(4, WIDTH)
    with pytest.raises(UserError, match=r"query/kernel' holds float32 \(8, 2, 4\); finite numbers \(8, 4, 2\)"):
        Pretrained(path).transformer(2, 4, WIDTH)


def test_a_file_that_is_missing_or_none_of_these_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.npz: cannot be read \(no such file"):
        Pretrained(str(tmp_path / "nowhere.npz"))
    (tmp_path / "text.npz").write_text("weights")
    (tmp_path / "empty.npz").write_text("")
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "objects.npz", **{"embedding/kernel": np.array([None])})
    (tmp_path / "cut.npz").write_bytes((tmp_path / "objects.npz").read_bytes()[:60])
    for name in ("text.npz", "empty.npz", "one.npy", "objects.npz", "cut.npz"):
        with pytest.raises(UserError, match=rf"{name}: cannot be read \(not a \.npz file of arrays"):
            Pretrained(str(tmp_path / name))
    with pytest.raises(UserError, match="cannot be read"):
        Pretrained(str(tmp_path))
