"""Paths as users write them."""

from pathlib import Path

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage.paths import cache_folder, check_workdir, check_writable, local_path


def test_the_home_folder_is_meant_by_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path("~/runs/a", "--workdir") == tmp_path / "runs" / "a"
    assert local_path("a~b/~c", "--workdir") == Path("a~b/~c")


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run", "https://host/run", "file:///scans/run"])
def test_a_url_is_no_folder(url):
    with pytest.raises(UserError, match=rf"^--workdir={url}: a URL"):
        local_path(url, "--workdir")


def test_without_a_home_the_cache_must_be_named(monkeypatch):
    import pwd

    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("MRDIFF_CACHE")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    with pytest.raises(UserError, match=r"^MRDIFF_CACHE=~/.cache/mrdiff_jax: the home folder is not known"):
        cache_folder()
    assert cache_folder("/somewhere") == Path("/somewhere")


@pytest.mark.parametrize("name", ["lr[3e-3]", "a\\b", "all*", "who?", "a]b"])
def test_a_path_that_checkpoints_do_not_bear_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="no checkpoint can be read in a path with"):
        check_workdir(tmp_path / name / "run")


@pytest.mark.parametrize("name", ["a b", "µ, 'x' (2) {3} #1 %41 @&$!;~+=^", "line\nbreak"])
def test_other_characters_may_stand_in_a_path(name, tmp_path):
    from helpers.models import tiny, write_run

    from mrdiff_jax.synthesis import model_files

    check_workdir(tmp_path / name)
    assert model_files.load(write_run(tmp_path / name / "run", tiny())).step == 7


def test_what_is_not_writable_is_seen_before_the_work(monkeypatch, tmp_path):
    import os

    check_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file stands where a folder is to be"):
        check_writable(tmp_path / "file" / "folder")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(UserError, match=rf"^{tmp_path}: is read-only"):
        check_writable(tmp_path / "new" / "folder")
