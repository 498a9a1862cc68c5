"""Fashion-MNIST comes whole, split and offline from the repository; what is broken is named."""

import gzip
import hashlib
import json
import re
import socket
import stat
import urllib.request

import pytest
import torch

from compresslab.data.fashion_mnist import FILES, cache_folder, fashion_mnist, read_manifest, unpack
from compresslab.data.images import Images, normalize
from compresslab.data.location import DATA
from compresslab.data.torchvision_import import import_torchvision
from compresslab.errors import CompressionError

SOURCE = DATA / "fashion_mnist"


@pytest.fixture(scope="module")
def splits():
    return fashion_mnist()


def parts(splits):
    return splits.train, splits.validation, splits.test


# the real data


def test_there_are_as_many_images_as_the_data_set_has(splits):
    assert [len(part) for part in parts(splits)] == [50_000, 10_000, 10_000]
    for part in parts(splits):
        assert (part.pixels.shape[1:], part.pixels.dtype, part.labels.dtype) == (
            (1, 28, 28),
            torch.uint8,
            torch.int64,
        )


def test_every_class_has_6000_images_to_learn_and_choose_from_and_1000_to_test_on(splits):
    learning = torch.cat([splits.train.labels, splits.validation.labels])
    assert learning.bincount().tolist() == [6_000] * 10
    assert splits.test.labels.bincount().tolist() == [1_000] * 10


def test_mean_and_deviation_are_the_data_sets_own(splits):
    learning = torch.cat([splits.train.pixels, splits.validation.pixels]).double() / 255
    assert learning.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert learning.std().item() == pytest.approx(0.3530, abs=5e-5)


def test_train_and_validation_share_no_image_and_lose_none(splits):
    learning = import_torchvision().datasets.FashionMNIST(root=str(cache_folder()), train=True)

    def images(pixels):
        return sorted(map(bytes, pixels.flatten(1).numpy()))

    assert images(torch.cat([splits.train.pixels, splits.validation.pixels])) == images(learning.data)


def test_the_split_is_the_same_each_time_and_another_than_the_files_order(splits):
    again = fashion_mnist()
    for one, other in zip(parts(splits), parts(again), strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.pixels[:100], other.pixels[:100])
    filed = import_torchvision().datasets.FashionMNIST(root=str(cache_folder()), train=True).targets
    assert not torch.equal(splits.train.labels, filed[:50_000])


def test_no_socket_is_opened_when_the_files_are_there(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the loader went to the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(AssertionError, match="went to the network"):  # without the files it would have
        fashion_mnist(source=tmp_path / "nowhere", cache=tmp_path / "empty")
    assert len(fashion_mnist(cache=tmp_path / "fresh").test) == 10_000


def test_the_readme_states_the_sums_of_the_manifest():
    rows = re.findall(
        r"^\| ([\w-]+-ubyte) \| ([\d,]+) \| `(\w{64})` \|$", (DATA / "README.md").read_text(), re.M
    )
    stated = {name: {"bytes": int(size.replace(",", "")), "sha256": sha} for name, size, sha in rows}
    assert stated == read_manifest(SOURCE)


# small parts, made here


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (7, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(7))


def test_normalizing_takes_black_and_white_to_their_distance_from_the_mean():
    wanted = torch.tensor([(0 - 0.2860) / 0.3530, (1 - 0.2860) / 0.3530])
    torch.testing.assert_close(normalize(torch.tensor([0, 255], dtype=torch.uint8)), wanted)


def test_batches_are_all_images_once_in_order(images):
    batches = list(images.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), images.inputs())


def test_the_first_images_are_a_stated_subset(images):
    assert images.first(2).labels.tolist() == [0, 1]
    assert len(images.first(7)) == 7


@pytest.mark.parametrize("count", [0, -1, 8])
def test_a_subset_larger_than_the_set_is_refused(images, count):
    with pytest.raises(
        CompressionError, match=f"count must be a whole number from 1 to 7 here, got {count}; try 7"
    ):
        images.first(count)


# unpacking, with four small made files


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    contents = {name: name.encode() * 50 for name in FILES}
    sums = {n: {"bytes": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in contents.items()}
    (folder / "manifest.json").write_text(json.dumps(sums))
    for name, content in contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def test_unpacked_files_are_what_was_packed_and_everybody_may_read_them(source, tmp_path):
    unpack(source, tmp_path / "raw")
    assert sorted(place.name for place in (tmp_path / "raw").iterdir()) == sorted(FILES)
    for name in FILES:
        assert (tmp_path / "raw" / name).read_bytes() == name.encode() * 50
        assert (tmp_path / "raw" / name).stat().st_mode & stat.S_IROTH, "a shared cache serves every user"


def test_whole_files_are_not_written_again_and_broken_ones_are(source, tmp_path):
    unpack(source, tmp_path / "raw")
    whole, broken = (tmp_path / "raw" / name for name in FILES[:2])
    before = whole.stat().st_mtime_ns
    broken.write_bytes(b"half")
    unpack(source, tmp_path / "raw")
    assert whole.stat().st_mtime_ns == before
    assert broken.read_bytes() == FILES[1].encode() * 50


def test_the_packed_files_are_not_needed_once_they_are_unpacked(source, tmp_path):
    unpack(source, tmp_path / "raw")
    for name in FILES:
        (source / f"{name}.gz").unlink()
    unpack(source, tmp_path / "raw")


def flipped(content: bytes) -> bytes:
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


@pytest.mark.parametrize(
    ("damage", "came"),
    [
        (lambda place: place.unlink(), "is missing"),
        (lambda place: place.write_bytes(b""), "unpacks to 0 bytes"),
        (lambda place: place.write_bytes(place.read_bytes()[:-9]), "can't be unpacked"),
        (lambda place: place.write_bytes(flipped(place.read_bytes())), "can't be unpacked"),
        (lambda place: place.write_bytes(b"not gzip at all"), "can't be unpacked"),
        (lambda place: place.write_bytes(gzip.compress(b"short")), "unpacks to 5 bytes"),
        (lambda place: place.write_bytes(gzip.compress(b"x" * 50 * len(FILES[0]))), "has the SHA-256"),
    ],
    ids=["missing", "empty", "truncated", "a bit flipped", "no gzip", "shorter", "other content"],
)
def test_a_damaged_file_is_named_with_what_was_expected_and_how_to_get_it_back(
    source, tmp_path, damage, came
):
    damage(source / f"{FILES[0]}.gz")
    expected = read_manifest(source)[FILES[0]]
    words = f"expected {expected['bytes']:,} bytes with the SHA-256 {expected['sha256'][:12]}"
    back = f"git checkout -- data/fashion_mnist/{FILES[0]}.gz"
    with pytest.raises(CompressionError, match=f"{FILES[0]}.gz {came}.*{words}.*{back}"):
        unpack(source, tmp_path / "raw")
    assert not list((tmp_path / "raw").glob("*")), "nothing half is left behind"


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"train-images-idx3-ubyte": {}}', "{" * 9])
def test_a_bad_manifest_is_named_with_how_to_get_it_back(source, tmp_path, text):
    manifest = source / "manifest.json"
    manifest.unlink() if text is None else manifest.write_text(text)
    with pytest.raises(
        CompressionError, match=r"manifest.json can't be read .* git checkout -- data/fashion_mnist"
    ):
        unpack(source, tmp_path / "raw")


def test_a_cache_that_cannot_be_written_is_named_with_another_way(source, tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(CompressionError, match=r"can't be written .* 55 MB .* COMPRESSLAB_CACHE"):
        unpack(source, tmp_path / "taken" / "raw")


def test_a_failed_download_says_where_the_data_are(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(CompressionError, match=r"can't be downloaded .* Clone the repository"):
        fashion_mnist(source=tmp_path / "nowhere", cache=tmp_path / "empty")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("COMPRESSLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "compresslab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path / "home")
    assert cache_folder() == tmp_path / "home" / ".cache" / "compresslab"
