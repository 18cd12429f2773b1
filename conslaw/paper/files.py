"""Files that are replaced as a whole: a reader sees the old content or the new one, and several change together."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from tempfile import NamedTemporaryFile

__all__ = ["check_writable", "replace_file", "replace_files"]


def replace_file(path: Path, content: bytes | str) -> None:
    """Replace one file; see `replace_files`."""
    replace_files({path: content})


def replace_files(contents: Mapping[Path, bytes | str]) -> None:
    """Write files under temporary names and then rename all of them, so that the old ones stay until all is written.

    A file keeps its permissions, a link stays a link to what is replaced, and a device or pipe is written to.

    Args:
        contents: What each file shall hold; text is written as UTF-8. Folders are made where missing.

    Raises:
        OSError: If one cannot be written; then none is replaced. The message names it as it was given.
    """
    ready: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            data = content.encode() if isinstance(content, str) else content
            with _named(path):
                if _is_stream(path):
                    path.write_bytes(data)
                    continue
                target = _target(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".{target.name}.{token_hex(4)}")
                ready[temporary] = target
                temporary.write_bytes(data)
                if target.exists():
                    shutil.copymode(target, temporary)
        for temporary, target in ready.items():
            with _named(target):
                temporary.replace(target)
    except BaseException:
        for temporary in ready:
            temporary.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Find out before any work whether a file can be replaced.

    Args:
        path: The file, which need not exist; its folder must.

    Raises:
        OSError: If it cannot; the message names it as it was given.
    """
    with _named(path):
        if not _is_stream(path):
            with NamedTemporaryFile(dir=_target(path).parent):
                pass


def _is_stream(path: Path) -> bool:
    """Tell a device, pipe or socket."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _target(path: Path) -> Path:
    """Follow links to the file that is to be replaced."""
    target = path.resolve()
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return target


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file that the caller gave in whatever goes wrong with it."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {path.name} into the folder {path.parent}: {error.strerror or error}") from error
