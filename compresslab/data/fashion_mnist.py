"""Fashion-MNIST in three splits, read offline from the files in the repository.

The four gzipped files in ``data/fashion_mnist`` are unpacked once into a cache folder, checked against
the SHA-256 sums in ``manifest.json`` and read from there by torchvision. The test split is the data set's
own 10,000 test images. The 60,000 training images are divided once, with a fixed seed, into 50,000 for
training and 10,000 for validation. **Every choice uses validation; test is read once, at the end.**

Source: Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST", arXiv:1708.07747.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from compresslab.data.images import Images, Splits
from compresslab.data.location import DATA, way_back
from compresslab.data.torchvision_import import import_torchvision
from compresslab.errors import DamagedFile, NotAvailable
from compresslab.storage.atomic import write_bytes

__all__ = ["CLASSES", "FILES", "cache_folder", "fashion_mnist", "read_manifest", "unpack"]

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CACHE_ADVICE = (
    "the unpacked data need a folder with 55 MB free. Name one of yours in the environment variable "
    "COMPRESSLAB_CACHE"
)
_SPLIT_SEED = 2017
_VALIDATION_IMAGES = 10_000


def cache_folder() -> Path:
    """The folder of unpacked files: ``$COMPRESSLAB_CACHE``, or ``compresslab`` in the user's cache folder.

    Raises:
        NotAvailable: neither is named, and this user has no home folder.
    """
    chosen, caches = os.environ.get("COMPRESSLAB_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen)
    try:
        return (Path(caches) if caches else Path.home() / ".cache") / "compresslab"
    except RuntimeError as error:
        raise NotAvailable(f"HOME is not set, and this user has no home folder; {_CACHE_ADVICE}") from error


def fashion_mnist(*, source: Path = DATA / "fashion_mnist", cache: Path | None = None) -> Splits:
    """Load Fashion-MNIST: 50,000 training, 10,000 validation and 10,000 test images.

    Args:
        source: the folder with the four ``.gz`` files and ``manifest.json``. If it does not exist (the
            package was installed without the repository), torchvision downloads the data set instead.
        cache: the folder for the unpacked files; by default ``cache_folder()``.

    Raises:
        CompressionError: a file is missing, truncated or changed (the text names it, what was expected and
            how to restore it), the cache can't be written, or the download failed.
    """
    root = cache if cache is not None else cache_folder()
    if source.exists():
        unpack(source, root / "FashionMNIST" / "raw")
    learning, test = (_read(root, train=train, download=not source.exists()) for train in (True, False))
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(_SPLIT_SEED))
    everything = Images(learning.data.unsqueeze(1), learning.targets)
    return Splits(
        train=_choose(everything, order[_VALIDATION_IMAGES:]),
        validation=_choose(everything, order[:_VALIDATION_IMAGES]),
        test=Images(test.data.unsqueeze(1), test.targets),
    )


def _read(root: Path, *, train: bool, download: bool):
    """Read one part with torchvision's reader, which uses the network only if ``download`` is set."""
    try:
        return import_torchvision().datasets.FashionMNIST(root=str(root), train=train, download=download)
    except (OSError, RuntimeError) as error:
        if not download:
            raise
        raise NotAvailable(
            f"Fashion-MNIST can't be downloaded ({error}); it is in the repository's data folder or on "
            "the network. Clone the repository and install from there, or try again with a network"
        ) from error


def _choose(images: Images, index: Tensor) -> Images:
    return Images(images.pixels[index], images.labels[index])


def unpack(source: Path, target: Path) -> None:
    """Unpack the four files into ``target`` and verify them; files that are already there and valid stay.

    Each file is first written under a temporary name and then renamed, so an interruption leaves no
    incomplete file.

    Raises:
        CompressionError: a file in ``source`` is missing, truncated or changed, or ``target`` is read-only.
    """
    for name, expected in read_manifest(source).items():
        path = target / name
        if not (path.exists() and _digest(path.read_bytes()) == expected["sha256"]):
            _write(path, _verified(source / f"{name}.gz", expected))


def _write(place: Path, content: bytes) -> None:
    """Write the file atomically, readable by every user of a shared cache."""
    write_bytes(
        place,
        content,
        advice=_CACHE_ADVICE,
    )


def read_manifest(source: Path) -> dict[str, dict]:
    """Read the size and checksum of each of the unpacked files: {name: {"bytes": int, "sha256": hex}}."""
    try:
        manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
        entries = {name: manifest[name] for name in FILES}
        return {name: {"bytes": int(e["bytes"]), "sha256": str(e["sha256"])} for name, e in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(
            f"{source / 'manifest.json'} can't be read ({error!r}); it lists the SHA-256 of each data file. "
            f"{way_back('data/fashion_mnist')}"
        ) from error


def _verified(packed: Path, expected: dict) -> bytes:
    """Unpack one gzipped file and check it against its entry in the manifest."""
    try:
        content = gzip.decompress(packed.read_bytes())
    except FileNotFoundError:
        raise _broken(packed, "is missing", expected) from None
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(packed, f"can't be unpacked ({error})", expected) from error
    if len(content) != expected["bytes"]:
        raise _broken(packed, f"unpacks to {len(content):,} bytes", expected)
    if _digest(content) != expected["sha256"]:
        raise _broken(packed, f"has the SHA-256 {_digest(content)[:12]}…", expected)
    return content


def _broken(packed: Path, came: str, expected: dict) -> DamagedFile:
    return DamagedFile(
        f"{packed} {came}; expected {expected['bytes']:,} bytes with the SHA-256 {expected['sha256'][:12]}… "
        f"once unpacked. {way_back(f'data/fashion_mnist/{packed.name}')}"
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
