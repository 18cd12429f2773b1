"""Files that are replaced as a whole."""

import os
import stat
import threading

import pytest

from conslaw.paper.files import check_writable, replace_file, replace_files


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "records.json"
    replace_file(target, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace_file(target, "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["records.json"]


def test_all_or_none(tmp_path):
    (tmp_path / "a").write_text("old", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=f"cannot write folder into the folder {tmp_path}: Is a directory"):
        replace_files({tmp_path / "a": "new", tmp_path / "folder": "new"})
    assert (tmp_path / "a").read_text(encoding="utf-8") == "old"
    assert sorted(os.listdir(tmp_path)) == ["a", "folder"]
    replace_files({tmp_path / "a": "α", tmp_path / "new" / "b": b"\xff"})
    assert (tmp_path / "a").read_bytes() == "α".encode()
    assert (tmp_path / "new" / "b").read_bytes() == b"\xff"


def test_permissions_and_links_stay(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o640)
    link.symlink_to("file")
    replace_file(link, "new")
    assert link.is_symlink()
    assert file.read_text(encoding="utf-8") == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    replace_file(tmp_path / "fresh", "x")
    (tmp_path / "plain").write_text("x", encoding="utf-8")
    assert (tmp_path / "fresh").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_pipes_and_devices_are_written_to(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    check_writable(pipe)
    replace_file(pipe, "through")
    reader.join()
    assert got == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    before = os.stat(os.devnull)
    replace_file(tmp_path / os.devnull, "gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    assert os.stat(os.devnull).st_ino == before.st_ino


def test_what_the_user_gave_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("nodir/x.csv", "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(
            OSError, match=r"cannot write (x.csv into the folder nodir: No such|folder into .*: Is a dir)"
        ):
            check_writable(type(tmp_path)(path))
    check_writable(tmp_path / "x.csv")
    assert os.listdir(tmp_path) == ["folder"]
