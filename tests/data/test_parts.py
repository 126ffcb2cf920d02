"""Parts packed by several tasks, joined, are byte for byte what one task writes; parts that do not fit are refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_records

from protloc_jax.cli.main import main
from protloc_jax.data import parts, records
from protloc_jax.data.info import RecordsError
from protloc_jax.data.parts import Part

N, SHARD = 50, 8  # seven shards, the last of two records


def image(index: int) -> np.ndarray:
    """Every ninth image has a channel of one value, which `dataset.json` lists."""
    found = small_records.image(index)
    found[..., 1] = 3 if index % 9 == 0 else found[..., 1]
    return found


def pack(directory: Path, part: str = "", **options) -> Path:
    """The data set, or a part of it."""
    with parts.only(parts.parse(part) if part else None):
        options = {"shard_size": SHARD, "images": image, "n": N, **options}
        return small_records.pack(directory, options.pop("n"), **options)


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parts")
    return [pack(folder / f"p{i}", f"{i}/3") for i in (1, 2, 3)]


@pytest.fixture
def copies(three, tmp_path) -> list[Path]:
    return [Path(shutil.copytree(p, tmp_path / "copies" / p.name)) for p in three]


@pytest.mark.parametrize("of", [1, 3, 7, 9])  # of nine parts two are empty
def test_joined_parts_are_what_one_task_writes(tmp_path, of):
    whole = pack(tmp_path / "one" / "set")
    each = [pack(tmp_path / f"p{i}", f"{i}/{of}") for i in range(1, of + 1)]
    info = parts.join(each[::-1], tmp_path / "joined" / "set")
    assert small_records.contents(tmp_path / "joined" / "set") == small_records.contents(whole)
    assert info.constant["count"] == 6 and info.n == N
    assert records.verify(tmp_path / "joined" / "set").ok
    held = sorted(p.name for folder in each for p in folder.glob("*.array_record"))
    assert held == sorted(p.name for p in whole.glob("*.array_record"))


def test_a_stream_of_images_gives_each_part_its_own(tmp_path):
    whole = pack(tmp_path / "one" / "set")
    for i in (1, 2):
        pack(tmp_path / f"p{i}", f"{i}/2", images=(image(k) for k in range(N)))
    parts.join([tmp_path / "p1", tmp_path / "p2"], tmp_path / "joined" / "set")
    assert small_records.contents(tmp_path / "joined" / "set") == small_records.contents(whole)


def test_a_part_goes_on_where_it_was_interrupted(tmp_path, three):
    def dies(index: int) -> np.ndarray:
        if index >= 5 * SHARD:
            raise MemoryError
        return image(index)

    out = tmp_path / "p3"
    with pytest.raises(MemoryError):
        pack(out, "3/3", images=dies)
    with pytest.raises(RecordsError, match="interrupted"):
        parts.join([*three[:2], out], tmp_path / "joined")
    made: list[int] = []
    pack(out, "3/3", images=lambda i: made.append(i) or image(i))
    assert set(made) == {0, *range(5 * SHARD, 6 * SHARD)}  # the first image tells the layout
    assert small_records.contents(out) == small_records.contents(three[2])


def test_a_part_is_no_data_set_and_the_join_may_be_repeated(tmp_path, three):
    with pytest.raises(FileNotFoundError, match=r"a part of a data set.*protloc data join"):
        records.open(three[0])
    with pytest.raises(RecordsError, match="holds part 1 of 3"):
        pack(three[0], "2/3")
    with pytest.raises(RecordsError, match="holds part 1 of 3"):
        pack(three[0])
    first = parts.join(three, tmp_path / "joined")
    assert parts.join(three, tmp_path / "joined") == first
    other = pack(tmp_path / "other", n=20)
    with pytest.raises(RecordsError, match="records packed from something else"):
        parts.join(three, other)
    assert parts.join(three, other, restart=True).digest == first.digest


def test_missing_and_doubled_parts_are_named(tmp_path, copies):
    first, second, third = copies
    with pytest.raises(RecordsError, match=r"part 2, 3 of 3 is missing"):
        parts.join([first], tmp_path / "out")
    with pytest.raises(RecordsError) as error:
        parts.join([first, second, second], tmp_path / "out")
    assert f"{second} and {second} are both part 2." in str(error.value)
    assert "part 3 of 3 is missing" in str(error.value)
    with pytest.raises(RecordsError, match=r"is part 1 of 2, .* one of 3"):
        parts.join([first, second, third, pack(tmp_path / "half", "1/2")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parts_of_different_data_are_named(tmp_path, copies):
    first, second, third = copies
    shutil.rmtree(second)
    pack(second, "2/3", source="other pixels")
    with pytest.raises(RecordsError, match=f"{second} was packed from something else than {first}: source differ"):
        parts.join([first, second, third], tmp_path / "out")
    shutil.rmtree(second)
    pack(second, "2/3", n=N - 1, name="named")
    with pytest.raises(RecordsError, match="manifest, n, name differ"):
        parts.join([first, second, third], tmp_path / "out")


def test_damage_and_differing_files_are_named(tmp_path, copies):
    first, second, third = copies
    shard = sorted(second.glob("*.array_record"))[0]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    sorted(third.glob("*.array_record"))[0].unlink()
    (first / "notes.txt").write_text("a")
    (second / "notes.txt").write_text("b")
    with pytest.raises(RecordsError) as error:
        parts.join(copies, tmp_path / "out")
    for words in (f"{shard} is damaged or missing; run part 2 again", "run part 3 again", "notes.txt of"):
        assert words in str(error.value)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_file_systems_without_links(tmp_path, three, monkeypatch):
    linked = parts.join(three, tmp_path / "linked")
    monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(OSError("no links here")))
    assert parts.join(three, tmp_path / "copied").digest == linked.digest
    assert {p.stat().st_nlink for p in (tmp_path / "copied").glob("*.array_record")} == {1}


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/0", "a/b", "-1/3", "1/3/5"])
def test_bad_part_numbers(text):
    with pytest.raises(ValueError, match="must be I/N"):
        parts.parse(text)
    assert parts.parse("3/3") == Part(3, 3)


def test_by_command(tmp_path, capsys):
    """Simulated cells, with the file that the command writes beside the records."""
    command = ["data", "pack", "simulated", "--preset", "opencell", "--n-proteins", "4", "--fovs-per-protein", "3"]
    command += ["--size", "32", "--workers", "0", "--shard-size", "5", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "one" / "set")]) == 0
    folders = [str(tmp_path / f"p{i}") for i in (1, 2)]
    for i, folder in enumerate(folders, start=1):
        assert main([*command, "--part", f"{i}/2", "--out", folder]) == 0
    assert main(["data", "join", *folders, "--out", str(tmp_path / "joined" / "set")]) == 0
    assert "12 records" in capsys.readouterr().out.splitlines()[-1]
    one, joined = (small_records.contents(tmp_path / name / "set") for name in ("one", "joined"))
    assert joined == one and "simulated.json" in one
    assert main([*command, "--part", "3/2", "--out", str(tmp_path / "p3")]) == 2
    assert main(["data", "join", folders[0], "--out", str(tmp_path / "x")]) == 2
    assert "part 2 of 2 is missing" in capsys.readouterr().err
