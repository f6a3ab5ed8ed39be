"""Feature files that are damaged or unusual: each is named in one line."""

from __future__ import annotations

import zipfile
from unicodedata import normalize

import numpy as np
import pytest

from ptal_ray.data.features.feature_file import npy, npz, side_by_side, sliced, table
from ptal_ray.errors import DataError


def check_refused(opened):
    for act in (opened.shape, opened.read):
        with pytest.raises(DataError, match=r"a\.np[yz]: not (a )?whole") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_an_array_whose_header_is_damaged_is_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 4), np.float32))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content.replace(b"}", b" ", 1))  # numpy: TokenError
    check_refused(npy(tmp_path / "a.npy"))


def test_an_archive_whose_compressed_data_are_damaged_is_named(tmp_path):
    file = tmp_path / "a.npz"
    np.savez_compressed(file, feats=np.zeros((30, 4)))
    content = bytearray(file.read_bytes())
    data = 30 + content[26] + content[28]  # behind the local header, the name and the extra field
    content[data] |= 0b110  # a kind of block that there is not: zlib.error
    file.write_bytes(content)
    check_refused(npz(file))


def test_an_archive_of_another_compression_or_of_other_names_is_named(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, feats=np.zeros((30, 4)))
    file.write_bytes(file.read_bytes().replace(b"PK\x03\x04-", b"PK\x03\x04\xff")
                     .replace(b"PK\x01\x02-\x03-", b"PK\x01\x02-\x03\xff"))  # fmt: skip
    check_refused(npz(file))  # a version of zip that zipfile does not know
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("feats", b"x")
    check_refused(npz(file))  # KeyError: no feats.npy


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_names_of_columns_have_any_encoding(tmp_path, encoding, form):
    text = normalize(form, "Gerät x, time\n1,2\n3,4\n")
    (tmp_path / "a.csv").write_text(text, encoding=encoding)
    opened = table(tmp_path / "a.csv")
    assert opened.columns() == (normalize("NFC", "Gerät x"), "time")
    assert opened.shape() == opened.read().shape == (2, 2)


def test_a_single_number_is_no_array(tmp_path):
    np.save(tmp_path / "a.npy", 5.0)
    np.savez(tmp_path / "a.npz", feats=5.0)
    for opened in (npy(tmp_path / "a.npy"), npz(tmp_path / "a.npz")):
        for made in (sliced(opened, 2), side_by_side([opened, opened])):
            with pytest.raises(DataError, match=r"a\.np[yz]: not an array of numbers"):
                made.shape()
