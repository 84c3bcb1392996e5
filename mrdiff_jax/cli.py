"""What the commands share: flags read, mistakes said in one line, exit status 0, 1 or 2.

Commands import what takes seconds (JAX and all that needs it) inside their `main`: --help and wrong flags are answered at once.
"""

import inspect
import math
import os
import re
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags, logging
from ml_collections import ConfigDict

from mrdiff_jax import host
from mrdiff_jax.errors import UserError
from mrdiff_jax.fields import did_you_mean
from mrdiff_jax.log import log_to_console, logger
from mrdiff_jax.storage.paths import cache_folder, local_path


def run(command: Callable[..., None], description: str, settings_of_run: bool = False) -> None:
    """Parses the flags and runs a command; exits with 0 on success, 2 on a user's mistake, said in one line on stderr.

    Args:
      command: one that takes an argument is given what is not a flag, as a list; elsewhere that is a mistake.
      description: what --help says first.
      settings_of_run: without --config the settings are those of the run that lies in --workdir.
    """
    positional = bool(inspect.signature(command).parameters)
    host.use_large_pages()
    flags.FLAGS.set_default("logtostderr", True)
    logging.set_verbosity(logging.WARNING)
    try:
        rest = _parse(command, description, settings_of_run)
        if rest and not positional:
            raise UserError(f"{rest[0]}: not a flag; flags start with --")
        _check_finite()
        log_to_console()
        threading.excepthook = _warn
        keep_programs()
        command(*([rest] if positional else []))
    except BrokenPipeError:  # who reads what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the rest goes
        sys.exit(1)
    except (UserError, OSError) as error:  # what the system refuses (a full disk, a folder not ours) is named in its text
        sys.exit(_say(error))
    except KeyboardInterrupt:
        leave("interrupted")


def keep_programs() -> None:
    """Lets JAX keep what it compiles in the cache folder, for the next process."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def leave(message: str) -> NoReturn:
    """Ends an interrupted command at once: the usual way out would tear down compilations that other threads still run."""
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _parse(command: Callable[..., None], description: str, settings_of_run: bool) -> list[str]:
    """What is not a flag."""
    flags.FLAGS.set_gnu_getopt(True)  # flags may stand after other arguments
    if {"--help", "-h", "--helpfull"} & set(sys.argv[1:]):
        module = command.__module__
        print(f"{description}\n{flags.FLAGS.module_help(sys.argv[0] if module == '__main__' else module)}")
        sys.exit(0)
    arguments = _last_of_each(sys.argv)
    if settings_of_run:
        arguments = _with_settings_of_run(arguments)
    try:
        return flags.FLAGS([_with_config_found(word) for word in arguments])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(_unknown_field(sys.argv) or _of_flags(error)) from error


def _of_flags(error: Exception) -> str:
    """What absl says of wrong flags, without the values of all that were looked at."""
    text = str(error.args[0] if error.args else error)
    if missing := re.match(r"flag --([\w-]+)=None: Flag --\1 must have a value", text):
        return f"--{missing[1]} is needed; --help has an example"
    return text.rpartition(": ")[2] if text.startswith("flags ") else f"flags: {text}"


def _unknown_field(arguments: Sequence[str]) -> str:
    """What is to be said of the first argument that sets a field which no configuration has; '' if there is none."""
    for flag in filter(None, (re.match(r"--?config\.([^=]+)", word) for word in arguments)):
        from mrdiff_jax.config import default  # not above: where all is well nobody waits for it

        group, path = default(), "config"
        for name in flag[1].split("."):
            names = list(group) if isinstance(group, ConfigDict) else []
            if name not in names:
                there = f"; {path} has {textwrap.shorten(', '.join(names), 100)}" if names else ""
                return f"--{path}.{name}: no such field{did_you_mean(name, names) or there}"
            group, path = group[name], f"{path}.{name}"
    return ""


def _last_of_each(arguments: Sequence[str]) -> list[str]:
    """The arguments without fields of the configuration that are given again: the last counts (ml_collections joins tuples)."""
    kept: dict[str, list[str]] = {}
    pending = list(arguments)
    while pending:
        words = [pending.pop(0)]
        name, equals, _ = words[0].lstrip("-").partition("=")
        field = re.fullmatch(r"-{1,2}config\.[^=]+", words[0].partition("=")[0])
        if field and not equals and pending and re.match(r"[^-]|-[\d.]", pending[0]):
            words.append(pending.pop(0))
        key = name if field else f"{len(kept)} {words[0]}"
        kept.pop(key, None)
        kept[key] = words
    return [word for words in kept.values() for word in words]


def _with_settings_of_run(arguments: list[str]) -> list[str]:
    """The arguments; where none of them is --config, with the settings of the run that lies in --workdir.

    Raises UserError where there is no run.
    """
    given = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            given[name] = value if equals else following
    if "config" in given or not given.get("workdir"):
        return arguments

    from mrdiff_jax.workdir import CONFIG  # not above: it takes seconds to import

    workdir = local_path(given["workdir"], "--workdir")
    if not (workdir / CONFIG).is_file():
        raise UserError(f"{workdir}: holds no run that could go on; give --config to begin one")
    return [arguments[0], f"--config={Path(__file__).with_name('settings_of_run.py')}:{workdir}", *arguments[1:]]


def _with_config_found(word: str) -> str:
    """An argument, but that of --config with its file in full: flags of ml_collections read the file as they are parsed.

    Raises UserError where there is no such file.
    """
    flag, equals, file = word.partition("=")
    if not (equals and flag.lstrip("-") == "config"):
        return word
    path, colon, preset = str(local_path(file, flag)).partition(":")
    if path.endswith(".py") and not os.path.exists(path):
        raise UserError(f"{flag}={file}: no such file; the configurations are in configs/ of a clone of the repository")
    return f"{flag}={path}{colon}{preset}"


def _check_finite() -> None:
    """Checks the numbers of all flags. Raises UserError for one that is infinite or NaN."""
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name}={value}: must be a finite number")


def _warn(failed: threading.ExceptHookArgs) -> None:
    """Says in a line that a thread beside the command failed."""
    logger.warning("%s: %s", failed.thread.name if failed.thread else "a thread", " ".join(str(failed.exc_value).split()))


def config_of(flag: flags.FlagHolder) -> ConfigDict:
    """The configuration that a flag names, with the fields that other flags set.

    Raises:
      UserError: there is no such file.
    """
    try:
        return flag.value
    except OSError as error:
        raise UserError(f"--{flag.name}: {str(error).partition(': ')[2] or error}") from error


def config_words(arguments: Sequence[str]) -> list[str]:
    """The arguments that make the configuration, to be given to another command, or compared.

    Raises:
      UserError: one stands apart from its value.
    """
    words = [word for word in arguments if re.match(r"--?config\b", word)]
    for word in words:
        if "=" not in word:
            raise UserError(f"{word}: write it with its value, as {word}=VALUE")
    return words


def _say(error: Exception) -> int:
    print(f"error: {' '.join(_words(error).split())}", file=sys.stderr)
    return 2


def _words(error: Exception) -> str:
    if not isinstance(error, OSError) or not error.filename:
        return str(error)
    in_the_way = isinstance(error, FileExistsError | NotADirectoryError)  # of a folder that was to be made
    return f"{error.filename}: {'a file stands where a folder is to be; name another' if in_the_way else error.strerror}"
