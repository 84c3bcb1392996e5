"""The walk over a folder's files."""

import errno
import subprocess
import sys

import pytest

from mrdiff_jax.errors import UserError
from mrdiff_jax.storage import files
from mrdiff_jax.storage.files import scratch_folder, walk_files


def write(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def names(folder, **arguments):
    return [path.relative_to(folder).as_posix() for path in walk_files(folder, **arguments)]


def test_files_come_in_order_through_links_and_without_hidden_names(tmp_path):
    write(tmp_path / "store/b/2.nii", tmp_path / "store/1.nii", tmp_path / "in/a/._x.nii", tmp_path / "in/.git/y.nii")
    write(tmp_path / "in/a/x.nii")
    (tmp_path / "in/linked").symlink_to(tmp_path / "store")
    (tmp_path / "in/file.nii").symlink_to(tmp_path / "store/1.nii")
    (tmp_path / "in/dangling.nii").symlink_to(tmp_path / "nowhere")
    expected = ["dangling.nii", "file.nii", "a/x.nii", "linked/1.nii", "linked/b/2.nii"]
    assert names(tmp_path / "in") == expected


def test_links_in_circles_end_and_two_links_to_one_folder_are_both_followed(tmp_path):
    write(tmp_path / "in/a/x.nii", tmp_path / "in/b/y.nii")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/b/self").symlink_to(".")
    (tmp_path / "in/b/circle").symlink_to("circle")
    (tmp_path / "in/c").symlink_to("b")
    assert names(tmp_path / "in") == ["a/x.nii", "b/circle", "b/y.nii", "c/circle", "c/y.nii"]


def test_a_folder_that_cannot_be_listed_is_told(tmp_path):
    errors = []
    assert names(tmp_path / "nowhere", onerror=errors.append) == []
    assert errors[0].filename == str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="nowhere"):
        list(walk_files(tmp_path / "nowhere"))


def test_a_scratch_folder_does_without_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    with files.scratch_folder(tmp_path, ".made-") as first, files.scratch_folder(tmp_path, ".made-") as second:
        assert first.is_dir()  # the second does not take it for left
        assert second.is_dir()
    assert not list(tmp_path.iterdir())


def test_scratch_folders_of_the_killed_are_removed_and_of_the_living_are_not(tmp_path):
    code = "import sys, pathlib, os; from mrdiff_jax.storage.files import scratch_folder\n"
    code += "with scratch_folder(pathlib.Path(sys.argv[1]), '.preparing-'): os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    with scratch_folder(tmp_path, ".preparing-") as first, scratch_folder(tmp_path, ".preparing-") as second:
        assert not left.exists()
        assert first.is_dir()
        assert second.is_dir()
    assert not list(tmp_path.iterdir())
