"""The error for a run that cannot be written names its cause."""

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from stabmon.errors import StoreError
from stabmon.store import RunWriter


@pytest.fixture
def refused(info, layout):
    def message(folder):
        with pytest.raises(StoreError) as raised:
            RunWriter.create(folder, info, layout)
        return str(raised.value)

    return message


def test_too_many_open_files_are_named_as_the_reason(refused, tmp_path):
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        said = refused(tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "creating the run failed: this process has too many files open" in said


def test_a_folder_without_write_permission_is_named_as_the_reason(refused):
    folder, us = Path(tempfile.mkdtemp()), os.geteuid()
    folder.chmod(0o555)
    if us == 0:
        os.seteuid(65534)
    try:
        said = refused(folder / "run")
    finally:
        os.seteuid(us)
        folder.rmdir()
    assert "creating the run failed: permission is missing" in said


@pytest.mark.parametrize(
    ("options", "cause"),
    [("nr_inodes=2", "the disk has no inodes left"), ("size=16k", "the disk is full"), ("ro", "is read-only")],
)
def test_a_disk_without_inodes_space_or_write_permission_is_named_as_the_reason(options, cause, refused, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        said = refused(disk / "run")
        with contextlib.suppress(OSError):
            assert not list((disk / "run").glob("run.sqlite*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert f"creating the run failed: {cause}" in said.replace("the file system is", "is")
