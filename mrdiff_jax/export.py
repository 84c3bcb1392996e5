"""Writes a model as two files to pass on: mrdiff export --workdir=runs/mine --output=mine.safetensors."""

from absl import flags

from mrdiff_jax import cli
from mrdiff_jax.errors import UserError
from mrdiff_jax.storage.paths import local_path

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a trained run.")
_OUTPUT = flags.DEFINE_string("output", None, "File to write, .safetensors; its description goes beside it, as .json.")
_MAPS = flags.DEFINE_bool("maps", False, "Writes as well what the feature maps need (synthesize --maps); a larger file.")
flags.mark_flags_as_required(["workdir", "output"])


def main() -> None:
    """Reads the checkpoint that is evaluated, and writes the pair."""
    from mrdiff_jax.synthesis import model_files

    output = local_path(_OUTPUT.value, "--output")
    if output.suffix != ".safetensors":
        raise UserError(f"--output={output}: name it .safetensors")
    model = model_files.load(local_path(_WORKDIR.value, "--workdir"), _MAPS.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    model_files.export(model, output)
    print(f"{output} and {output.with_suffix('.json').name}: {model.config.method.name}, step {model.step}; keep them together")


if __name__ == "__main__":
    cli.run(main, __doc__)
