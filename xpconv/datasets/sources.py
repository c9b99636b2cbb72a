"""Where the files of a set come from: the package, a directory, or a checked download into the user's cache.

Whatever the way, no array leaves this module unless the uncompressed content of its file has the SHA-256 that
catalog.py lists.
"""

import hashlib
import importlib.resources
import os
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xpconv.datasets.catalog import IMAGE_SETS, IdxFile, ImageSet
from xpconv.datasets.idx import decode_idx, open_content, read_at_most
from xpconv.errors import DataError
from xpconv.files import atomic_write

DATA_VARIABLE = "XPCONV_DATA"
CACHE_VARIABLE = "XPCONV_CACHE"


def full_set_available(name: str) -> bool:
    """Tell whether a full set is at hand, that is, whether ``data="full"`` needs no network.

    Args:
        name: "mnist" or "fashion_mnist".

    Returns:
        With the environment variable XPCONV_DATA set: whether its directory has the four files (their contents are
        checked when they are loaded). Otherwise: whether the cache has them, undamaged.

    Raises:
        ValueError: no set has that name.

    Example:
        >>> import xpconv as xc
        >>> xc.datasets.full_set_available("mnist") in (True, False)
        True
    """
    for image_set in IMAGE_SETS:
        if image_set.name == name:
            break
    else:
        known = ", ".join(repr(image_set.name) for image_set in IMAGE_SETS)
        raise ValueError(f"full_set_available: name must be one of {known}, got {name!r}")
    directory = _data_directory()
    if directory is not None:
        return _find_files(image_set, directory) is not None
    cache = _cache_directory(image_set)
    return all(_is_downloaded(cache, file) for file in image_set.full)


def read_bundled(image_set: ImageSet) -> list[NDArray[Any]]:
    """Read the part that comes with xpconv: training images, training labels, test images, test labels."""
    assert image_set.bundled is not None
    arrays = []
    for file in image_set.bundled:
        resource = importlib.resources.files("xpconv.datasets.bundled") / f"{file.name}.gz"
        with importlib.resources.as_file(resource) as path:
            arrays.append(_read_checked(path, file, image_set))
    return arrays


def read_full(image_set: ImageSet) -> list[NDArray[Any]]:
    """Read the full set, from the directory that XPCONV_DATA names, else from the cache, downloading what it lacks."""
    directory = _data_directory()
    if directory is not None:
        return read_directory(image_set, directory, f" (the environment variable {DATA_VARIABLE})")
    return read_directory(image_set, _download(image_set))


def read_directory(image_set: ImageSet, directory: Path, origin: str = "") -> list[NDArray[Any]]:
    """Read the full set from a directory; `origin` says in the error texts who named it."""
    if not directory.is_dir():
        problem = "is not a directory" if directory.exists() else "does not exist"
        raise DataError(f"the directory {directory}{origin} {problem}, so {image_set.title} cannot be read from it")
    paths = _find_files(image_set, directory)
    if paths is None:
        raise DataError(
            f"the directory {directory}{origin} does not have the four files of {image_set.title}. Looked for, "
            "also without '.gz', and with '.' for the '-' before 'idx':\n"
            + "\n".join(
                f"  {location / file.name}.gz: {'found' if _find_file(location, file) else 'missing'}"
                for location in _locations(image_set, directory)
                for file in image_set.full
            )
        )
    return [_read_checked(path, file, image_set) for path, file in zip(paths, image_set.full, strict=True)]


def _data_directory() -> Path | None:
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).expanduser() if value else None


def _locations(image_set: ImageSet, directory: Path) -> tuple[Path, Path]:
    # The set's own folder first: beside it may lie the files of another set, under the same names.
    return directory / image_set.directory, directory


def _find_files(image_set: ImageSet, directory: Path) -> list[Path] | None:
    for location in _locations(image_set, directory):
        paths = [path for file in image_set.full if (path := _find_file(location, file))]
        if len(paths) == len(image_set.full):
            return paths
    return None


def _find_file(location: Path, file: IdxFile) -> Path | None:
    names = [file.name, file.name.replace("-idx", ".idx")]
    candidates = (location / f"{name}{suffix}" for suffix in (".gz", "") for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _known_files() -> list[tuple[ImageSet, IdxFile]]:
    return [(image_set, file) for image_set in IMAGE_SETS for file in image_set.full]


def _read_checked(path: Path, file: IdxFile, image_set: ImageSet) -> NDArray[Any]:
    with open_content(path) as stream:  # more than the file's own size, to recognise another file in its place
        content = read_at_most(stream, 1 + max(known.size for _, known in _known_files()))
    digest = hashlib.sha256(content).hexdigest()
    if digest == file.sha256:
        return decode_idx(content, str(path))
    difference = _difference(content, file, digest)
    raise DataError(f"{path} does not hold the {image_set.title} {file.contents}: {difference}")


def _difference(content: bytearray, file: IdxFile, digest: str) -> str:
    for image_set, known in _known_files():
        if known.sha256 == digest:
            return f"it holds the {image_set.title} {known.contents}"
    if len(content) > file.size:
        return f"it holds more than their {file.size:,} bytes"
    try:
        array = decode_idx(content, "it")
    except DataError as error:
        return f"{error}"
    if len(content) < file.size:
        return f"it holds an array of shape {array.shape}, {len(content):,} bytes in place of {file.size:,}"
    return f"the size is right but bytes differ (SHA-256 {digest}, expected {file.sha256})"


def _cache_directory(image_set: ImageSet) -> Path:
    import pooch

    root = os.environ.get(CACHE_VARIABLE)
    return (Path(root).expanduser() if root else Path(pooch.os_cache("xpconv"))) / image_set.directory


def _is_downloaded(cache: Path, file: IdxFile) -> bool:
    try:
        with (cache / f"{file.name}.gz").open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.gzip_sha256
    except OSError:
        return False


def _download(image_set: ImageSet) -> Path:
    """Bring the files that the cache lacks into it, and return its directory."""
    cache = _cache_directory(image_set)
    for file in image_set.full:
        if not _is_downloaded(cache, file):
            _download_file(image_set, file, cache)
    return cache


def _download_file(image_set: ImageSet, file: IdxFile, cache: Path) -> None:
    import pooch

    # pooch.retrieve would do for one address; the file that it leaves is readable by its owner alone, which a cache
    # shared through XPCONV_CACHE can't use, so its parts are put together here.
    fetch = pooch.HTTPDownloader(chunk_size=1 << 16)
    path = cache / f"{file.name}.gz"
    failures = []
    for mirror in image_set.mirrors:
        url = f"{mirror}{file.name}.gz"
        pooch.get_logger().info("Downloading %s to %s", url, path)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                fetch(url, str(temporary), None)
                pooch.hashes.hash_matches(str(temporary), file.gzip_sha256, strict=True, source=url)
            return
        except (OSError, ValueError) as error:  # what requests raises is an OSError, a wrong checksum a ValueError
            failures.append(f"  {url}: {error}")
    bundled = 'take the part that comes with xpconv, data="bundled"; or ' if image_set.bundled else ""
    raise DataError(
        f"{path.name} of {image_set.title} could not be downloaded to {path}. Tried:\n"
        + "\n".join(failures)
        + f"\nTo go on without the download: {bundled}put the four .gz files into a directory and name it, "
        f"data=DIRECTORY or the environment variable {DATA_VARIABLE}."
    )
