from __future__ import annotations

import json
from unicodedata import normalize

import pytest

from ptal_ray.data.user_files import read_csv, read_json, read_lines
from ptal_ray.errors import DataError

NFC, NFD = normalize("NFC", "café"), normalize("NFD", "café")
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_byte_order_marks_are_no_part_of_the_text(tmp_path, encoding):
    file = tmp_path / "file"
    file.write_text(f'{{"{NFC}": 1}}', encoding=encoding)
    assert read_json(file) == {NFC: 1}
    file.write_text(f"{NFC}\r\n\r\n  b \n", encoding=encoding)
    assert read_lines(file) == [(1, NFC), (3, "b")]
    file.write_text(f"class,n\n{NFC},1\n", encoding=encoding)
    assert read_csv(file) == (("class", "n"), [(2, {"class": NFC, "n": "1"})])


@pytest.mark.parametrize("escaped", [True, False])
def test_text_comes_in_one_unicode_form(tmp_path, escaped):
    file = tmp_path / "file.json"
    content = {"a": [{"label": NFD}, [NFD]], NFD: NFD, "n": [1.5, None, True]}
    file.write_text(json.dumps(content, ensure_ascii=escaped), encoding="utf-8")
    assert read_json(file) == {"a": [{"label": NFC}, [NFC]], NFC: NFC, "n": [1.5, None, True]}
    file.write_text(json.dumps(NFD, ensure_ascii=escaped), encoding="utf-8")
    assert read_json(file) == NFC
    file.write_text(f"{NFD}\n", encoding="utf-8")
    assert read_lines(file) == [(1, NFC)]
    assert read_csv(file)[0] == (NFC,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"database": {"a": 1, "b": 2, "a": 3}}', 'duplicate video a in "database"; keep'),
        ('{"results": {"a": 1, "b": 2, "b": 3, "a": 4}}', r"duplicate video a .*\(and 1 more: b\)"),
        (
            '{"database": {"a": {"duration": 1, "duration": 2}}}',
            "duplicate key 'duration' in one object",
        ),
        ('{"database": {}, "database": {}}', "duplicate key 'database' in one object"),
        (
            f'{{"database": {{"{NFC}": 1, "{NFD}": 2}}}}',
            f'duplicate video {NFC} in "database", in two Unicode forms',
        ),
        ("{", "not JSON: Expecting"),
        ("[" * 100_000, "cannot be read as JSON: it is nested too deeply"),
    ],
)
def test_what_json_would_lose_is_an_error(tmp_path, text, message):
    (tmp_path / "f.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"f\.json: " + message):
        read_json(tmp_path / "f.json")


@pytest.mark.parametrize("read", [read_json, read_lines, read_csv])
def test_another_encoding_is_named(tmp_path, read):
    (tmp_path / "file").write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match=r"file: .*utf-8.*save it as UTF-8"):
        read(tmp_path / "file")
    with pytest.raises(DataError, match=r"absent: cannot be read: No such file"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
def test_csv_files_of_other_programs(tmp_path, separator):
    lines = [["class", "n"], ["pour, then stir" if separator == ";" else "pour", "1.5"], ["", ""]]
    (tmp_path / "f.csv").write_text("\r\n".join(map(separator.join, lines)))
    assert read_csv(tmp_path / "f.csv")[1] == [(2, {"class": lines[1][0], "n": "1.5"})]


def test_a_csv_row_of_too_many_values_is_named(tmp_path):
    (tmp_path / "f.csv").write_text("video_id,point\na,1,5\n")
    with pytest.raises(DataError, match=r"f\.csv:2: 3 values for 2 columns; .*decimal point"):
        read_csv(tmp_path / "f.csv")
    (tmp_path / "f.csv").write_text("video_id,point\na,1,\n\nb\n")
    rows = [(2, {"video_id": "a", "point": "1"}), (4, {"video_id": "b", "point": ""})]
    assert read_csv(tmp_path / "f.csv")[1] == rows


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (['"wave,a,1', "wave,b,2", "wave,c,3"], 2),  # would take all lines behind it
        (["wave,a,1", '"wave,b,2', '"wave,c,3'], 3),  # would join two rows to one
        (["wave,a,1", "wave,b,2", 'wave,c,"3'], 4),
    ],
)
def test_a_quote_that_is_not_closed_is_named(tmp_path, lines, line):
    (tmp_path / "f.csv").write_text("\n".join(["class,video_id,note", *lines]) + "\n")
    with pytest.raises(DataError, match=rf"f\.csv:{line}: cannot be read as CSV: .*quote") as error:
        read_csv(tmp_path / "f.csv")
    assert "\n" not in str(error.value)


def test_quotes_and_lines_inside_of_a_quoted_value_are_kept(tmp_path):
    (tmp_path / "f.csv").write_text('class,note\n"a, b","say ""c""\nd"\n5" pipe,x\n')
    rows = [(3, {"class": "a, b", "note": 'say "c"\nd'}), (4, {"class": '5" pipe', "note": "x"})]
    assert read_csv(tmp_path / "f.csv")[1] == rows


def test_empty_lines_before_the_header_are_skipped(tmp_path):
    (tmp_path / "f.csv").write_text("\r\n;;\r\nclass;n\r\n\r\nwave;1\r\n")
    assert read_csv(tmp_path / "f.csv") == (("class", "n"), [(5, {"class": "wave", "n": "1"})])


def test_blanks_may_follow_a_closing_quote(tmp_path):
    (tmp_path / "f.csv").write_text('  \nclass;note\n"a; b" ;"say ""c""" \n"d"\t;"" \n')
    rows = [(3, {"class": "a; b", "note": 'say "c"'}), (4, {"class": "d", "note": ""})]
    assert read_csv(tmp_path / "f.csv") == (("class", "note"), rows)


def test_a_search_space_with_a_byte_order_mark_is_read(tmp_path):
    from ptal_ray.space.space import load_space

    plain = "method: apn\ndataset: watch\nbudget: {trials: 1, max_steps: 2, min_steps: 1}\n"
    for encoding in ENCODINGS:
        (tmp_path / "mine.yaml").write_text(plain, encoding=encoding)
        assert load_space(tmp_path / "mine.yaml").dataset == "watch"
