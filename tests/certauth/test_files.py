"""Files that survive a crash and that nobody else reads."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from certauth.errors import KeyMaterialError, StoreError
from certauth.files import PRIVATE, PUBLIC, lock, make_private_directory, read_private, write_atomic

ROOT = os.geteuid() == 0


@pytest.mark.parametrize("mode", [PRIVATE, PUBLIC])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_file_has_its_content_and_exactly_its_mode(tmp_path: Path, mode: int, umask: int) -> None:
    """Whatever the umask; replacing keeps one file and no remains."""
    path = tmp_path / "file"
    before = os.umask(umask)
    try:
        write_atomic(path, b"one", mode=mode)
        write_atomic(path, b"two", mode=mode)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_a_link_leaves_its_target_alone(tmp_path: Path) -> None:
    """A symbolic link at the target is replaced, not followed."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)
    write_atomic(link, b"new", mode=PRIVATE)
    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_a_reader_holding_the_old_file_sees_the_old_content(tmp_path: Path) -> None:
    """The file is replaced, never written into."""
    path = tmp_path / "file"
    write_atomic(path, b"old", mode=PRIVATE)
    with path.open("rb") as file:
        write_atomic(path, b"new", mode=PRIVATE)
        assert file.read() == b"old"


def test_a_failure_leaves_the_old_content_and_no_remains(tmp_path: Path) -> None:
    """A target that cannot be replaced, and a directory that is not there."""
    occupied = tmp_path / "occupied"
    (occupied / "inner").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot-write"):
        write_atomic(occupied, b"x", mode=PRIVATE)
    assert list(tmp_path.iterdir()) == [occupied]
    with pytest.raises(StoreError, match="cannot-write"):
        write_atomic(tmp_path / "missing" / "file", b"x", mode=PRIVATE)


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """A file-size limit, the kernel's refusal closest to a full disk, is an error and changes nothing."""
    path = tmp_path / "file"
    write_atomic(path, b"old", mode=PRIVATE)
    worker = multiprocessing.get_context("fork").Process(target=_write_with_a_limit, args=(path,))
    worker.start()
    worker.join(20)
    assert worker.exitcode == 0
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _write_with_a_limit(path: Path) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_atomic(path, b"x" * 100_000, mode=PRIVATE)
    except StoreError as error:
        os._exit(0 if error.code == "cannot-write" else 2)
    os._exit(1)


def test_a_private_directory_is_private(tmp_path: Path) -> None:
    """Created with its parents, mode 0700; one that exists is left alone."""
    made = make_private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o750)
    assert make_private_directory(made) == made
    assert stat.S_IMODE(made.stat().st_mode) == 0o750


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A file is in the way."""
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot-write"):
        make_private_directory(tmp_path / "a" / "b")


def test_a_private_file_is_read(tmp_path: Path) -> None:
    """Ours and closed to others."""
    path = tmp_path / "key"
    write_atomic(path, b"secret", mode=PRIVATE)
    assert read_private(path) == b"secret"
    path.chmod(0o400)
    assert read_private(path) == b"secret"


@pytest.mark.parametrize("bit", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_a_file_open_to_others_in_any_way_is_refused(tmp_path: Path, bit: int) -> None:
    """Reading is bad, writing is worse: somebody else could choose our key."""
    path = tmp_path / "key"
    write_atomic(path, b"secret", mode=PRIVATE)
    path.chmod(PRIVATE | bit)
    with pytest.raises(KeyMaterialError, match="key-file-open") as caught:
        read_private(path)
    assert "chmod 600" in (caught.value.hint or "")


@pytest.mark.skipif(not ROOT, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could read it and replace it."""
    path = tmp_path / "key"
    write_atomic(path, b"secret", mode=PRIVATE)
    os.chown(path, 12345, -1)
    with pytest.raises(KeyMaterialError, match="key-file-owner"):
        read_private(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """As is a directory in its place."""
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(KeyMaterialError, match="key-unreadable"):
            read_private(path)


def _hold(path: Path, held: object, release: object) -> None:
    with lock(path, timeout=5):
        held.set()  # type: ignore[attr-defined]  # an event of multiprocessing
        release.wait(20)  # type: ignore[attr-defined]


def test_a_lock_excludes_other_processes_until_it_is_released(tmp_path: Path) -> None:
    """While another process holds it we are refused; afterwards we get it."""
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    worker = context.Process(target=_hold, args=(path, held, release))
    worker.start()
    try:
        assert held.wait(20)
        with pytest.raises(StoreError, match="locked"), lock(path, timeout=0.02):
            raise AssertionError("two holders")
    finally:
        release.set()
        worker.join(20)
    with lock(path, timeout=5):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == PRIVATE


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    """A killed process leaves a file and no lock."""
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    worker = context.Process(target=_hold, args=(path, held, release))
    worker.start()
    assert held.wait(20)
    worker.kill()
    worker.join(20)
    with lock(path, timeout=5):
        pass


def test_a_lock_is_released_by_an_error(tmp_path: Path) -> None:
    """What goes wrong inside does not keep others out."""
    path = tmp_path / "lock"
    with pytest.raises(RuntimeError), lock(path, timeout=1):
        raise RuntimeError
    with lock(path, timeout=1):
        pass


def test_a_lock_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    """The directory is missing."""
    with pytest.raises(StoreError, match="cannot-write"), lock(tmp_path / "missing" / "lock", timeout=1):
        pass
