"""The commands under one name: `mrdiff train` is `python -m mrdiff_jax.main`; the others are called as their modules are."""

import sys
from importlib import import_module

from mrdiff_jax import __version__, cli
from mrdiff_jax.fields import did_you_mean

COMMANDS = {  # by the module that has its flags
    "prepare": ("prepare", "scans, as the scanner or the archive left them, to training slices"),
    "train": ("main", "training and evaluation of a method on a data set"),
    "synthesize": ("synthesize", "the scan that was not acquired, from those that were"),
    "compare": ("compare", "tables with paired tests, figures and a page of several runs"),
    "export": ("export", "the weights that synthesis needs, as two files to pass on"),
}


def main() -> None:
    """Hands the arguments to the command that the first one names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print("usage: mrdiff COMMAND [FLAGS]; mrdiff COMMAND --help has its flags, mrdiff --version tells the version\n")
        print(*(f"  {command:<12}{what}" for command, (_, what) in COMMANDS.items()), sep="\n")
        return
    if name == "--version":
        print(__version__)
        return
    if name not in COMMANDS:
        print(f"error: {name}: no such command{did_you_mean(name, COMMANDS)}; mrdiff --help lists them", file=sys.stderr)
        sys.exit(2)
    module = import_module(f"mrdiff_jax.{COMMANDS[name][0]}")
    sys.argv = [f"mrdiff {name}", *arguments]
    cli.run(module.main, module.__doc__, settings_of_run=name == "train")


if __name__ == "__main__":
    main()
