"""Steps are done once, found again, redone where something changed, and gone on with after a kill."""

from __future__ import annotations

import pytest

from protloc_jax.studies.steps import Made, StudyStopped, Workshop, given, stated


class Recorder:
    """Stands for the command line: writes its last word's file, and notes what was asked."""

    def __init__(self, status=0):
        self.calls, self.status = [], status

    def __call__(self, words):
        self.calls.append(list(words))
        if not self.status:
            with open(words[-1], "w") as file:
                file.write(" ".join(words[:-1]))
        return self.status


def shop_at(path, recorder):
    return Workshop(path, recorder, say=lambda line: None)


def test_a_step_is_done_once_and_found_from_another_place(tmp_path):
    first = Recorder()
    made = shop_at(tmp_path / "a", first).command("one", ["do", "--out", "{out}"], file="x.txt")
    assert made.path.read_text() == "do --out" and len(first.calls) == 1
    (tmp_path / "a").rename(tmp_path / "b")
    again = Recorder()
    shop = shop_at(tmp_path / "b", again)
    found = shop.command("one", ["do", "--out", "{out}"], file="x.txt")
    assert found.digest == made.digest and not again.calls and shop.log[0]["before"]


def test_what_uses_a_changed_step_is_redone_and_nothing_else(tmp_path):
    recorder = Recorder()
    shop = shop_at(tmp_path, recorder)

    def both(option):
        one = shop.command("one", ["one", option, "{out}"], file="x")
        other = shop.command("other", ["other", "{out}"], file="x")
        return shop.command("two", ["two", ("from=", one), other, "{out}"], file="x")

    before = both("a")
    assert [call[0] for call in recorder.calls] == ["one", "other", "two"]
    assert recorder.calls[2][1].startswith("from=") and recorder.calls[2][1].endswith("/x")
    assert both("a") == before and len(recorder.calls) == 3
    after = both("b")
    assert [call[0] for call in recorder.calls[3:]] == ["one", "two"] and after.path != before.path


def test_settings_in_a_used_file_count(tmp_path):
    recorder = Recorder()
    shop = shop_at(tmp_path, recorder)
    for value in (1, 1, 2):
        shop.command("one", ["one", "{out}"], file="x", uses=[stated({"steps": value})])
    assert len(recorder.calls) == 2


def test_a_step_that_stops_is_gone_on_with_in_its_folder(tmp_path):
    stopped = Recorder(status=75)
    with pytest.raises(StudyStopped, match="step 'one' ended with status 75: protloc do") as error:
        shop_at(tmp_path, stopped).command("one", ["do", "{out}"], file="x")
    assert error.value.status == 75
    goes_on = Recorder()
    made = shop_at(tmp_path, goes_on).command("one", ["do", "{out}"], file="x")
    assert goes_on.calls == stopped.calls and made.path.is_file()


def test_a_killed_computation_is_repeated(tmp_path):
    shop, calls = shop_at(tmp_path, Recorder()), []

    def work(folder):
        calls.append(folder)
        (folder / "half").write_text("")
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shop.compute("sum", work, settings={"a": 1})
    assert shop.compute("sum", work, settings={"a": 1}).path == calls[0] == calls[1]
    assert shop.compute("sum", work, settings={"a": 1}).path == calls[0] and len(calls) == 2


def test_a_result_that_was_removed_is_made_again(tmp_path):
    recorder = Recorder()
    shop = shop_at(tmp_path, recorder)
    shop.command("one", ["do", "{out}"], file="x").path.unlink()
    assert shop.command("one", ["do", "{out}"], file="x").path.is_file() and len(recorder.calls) == 2


def test_given_things_are_told_apart_by_names_and_sizes(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "a.tif").write_text("1")
    before = given(folder)
    assert given(folder) == before
    (folder / "b.tif").write_text("1")
    assert given(folder).digest != before.digest
    assert given(folder / "a.tif") == Made(folder / "a.tif", given(folder / "a.tif").digest)
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist"):
        given(tmp_path / "nowhere")


def test_a_phase_counts_and_tells_what_is_left(tmp_path, monkeypatch):
    lines, clock = [], iter(range(0, 10_000, 120))
    monkeypatch.setattr("protloc_jax.studies.steps.time.monotonic", lambda: next(clock))
    shop = Workshop(tmp_path, Recorder(), say=lines.append)
    with shop.phase("features", 3):
        for name in ("one", "two", "one"):
            shop.command(name, ["do", name, "{out}"], file="x")
    told = [line for line in lines if line.startswith("[")]
    assert told == [
        "[features 1/3] one",
        "[features 2/3, about 4 min left] two",
        "[features 3/3] one: done before",
    ]
