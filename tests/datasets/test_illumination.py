"""Illumination: functions against a float64 loop, a simulated tilt taken out, plates apart, files given."""

from __future__ import annotations

import itertools
import pickle

import fsspec
import numpy as np
import pytest
import tifffile
from small_folders import config, rewrite, save

from protloc_jax.data import records
from protloc_jax.datasets import folder
from protloc_jax.datasets import illumination as lights
from protloc_jax.datasets.illumination_files import read_function
from protloc_jax.datasets.problems import DatasetError
from protloc_jax.images import ImageError


def oracle(images: list[np.ndarray], block: int, statistic: str, window: float, unit: str) -> np.ndarray:
    """[H, W] float64 of one channel, by loops: block means, statistic, median filter with edges repeated, linear
    interpolation between block centres, then 1 for the mean or the 2 % quantile."""
    height, width = images[0].shape
    tops, lefts = range(0, height, block), range(0, width, block)
    grid = np.zeros((len(tops), len(lefts)))
    for (y, top), (x, left) in itertools.product(enumerate(tops), enumerate(lefts)):
        values = [image[top : top + block, left : left + block].astype(float).mean() for image in images]
        grid[y, x] = getattr(np, statistic)(values)
    side = max(1, round(window * min(height, width) / block) // 2 * 2 + 1)
    padded = np.pad(grid, side // 2, mode="edge")
    smooth = np.zeros_like(grid)
    for y, x in itertools.product(*map(range, grid.shape)):
        smooth[y, x] = np.median(padded[y : y + side, x : x + side])
    centres = [[(s + min(s + block, n) - 1) / 2 for s in starts] for n, starts in ((height, tops), (width, lefts))]

    def between(at: float, marks: list[float], values: np.ndarray) -> np.ndarray:
        if at <= marks[0]:
            return values[0]
        for low in range(len(marks) - 1):
            if at <= marks[low + 1]:
                share = (at - marks[low]) / (marks[low + 1] - marks[low])
                return (1 - share) * values[low] + share * values[low + 1]
        return values[-1]

    full = np.zeros((height, width))
    for y in range(height):
        row = between(y, centres[0], smooth)
        for x in range(width):
            full[y, x] = between(x, centres[1], row)
    if unit == "mean":
        return np.maximum(full / full.mean(), 0.05)
    one = np.quantile(smooth, 0.02)
    return np.maximum(full / one, 1.0)


@pytest.mark.parametrize(
    ("shape", "statistic", "unit"),
    [((20, 30), "mean", "mean"), ((20, 30), "median", "minimum"), ((130, 171), "mean", "mean"),
     ((150, 140), "median", "mean")],
)  # fmt: skip
def test_functions_agree_with_loops(shape, statistic, unit):
    rng = np.random.default_rng(4)
    ramp = 1 + np.linspace(0, 1, shape[1])[None] * np.linspace(0.5, 1, shape[0])[:, None]
    images = [(rng.integers(100, 4000, shape) * ramp).astype(np.uint16) for _ in range(5)]
    small = [lights.reduced(image[..., None]) for image in images]
    block = small[0][1]
    assert block == max(1, min(shape) // 64)
    grid, dark = lights.fit(
        [one for one, _ in small], shape, block, statistic=statistic, window=0.3, unit=unit, smoothing="median"
    )
    assert dark == []
    full = grid.full()
    np.testing.assert_allclose(full[..., 0], oracle(images, block, statistic, 0.3, unit), rtol=2e-5)
    assert unit == "mean" or full.min() >= 1


def tilt(side: int, angle: int) -> np.ndarray:
    """[H, W] brightness from 0.7 to 1.3 across the field, differently for each plate and channel."""
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    return 1 + 0.6 * (x if angle % 2 else y) * (1 if angle % 4 < 2 else -1)


def screen(tmp_path, sites: int = 30, side: int = 48):
    """Two plates of spots on a background, each plate and channel under a tilt of its own; and the untilted images."""
    rng = np.random.default_rng(8)
    lines, clean = ["path,plate,site"], []
    for p, plate in enumerate(("P1", "P2")):
        for site in range(sites):
            image = np.full((side, side, 2), 3000.0) + rng.normal(0, 60, (side, side, 2))
            for _ in range(4):
                y, x = rng.integers(4, side - 4, 2)
                image[y - 3 : y + 4, x - 3 : x + 4] += 8000
            clean.append(image)
            seen = np.stack([image[..., c] * tilt(side, 2 * p + c) for c in range(2)], -1)
            save(tmp_path / plate / f"{site}.tif", np.rint(seen).astype(np.uint16))
            lines.append(f"{plate}/{site}.tif,{plate},{site}")
    return rewrite(tmp_path, lines), clean


@pytest.mark.parametrize(("smoothing", "most"), [("median", 0.02), ("gaussian", 0.05)])
def test_a_tilt_is_taken_out(tmp_path, smoothing, most):
    """The background of each plate and channel, tilted by 60 %, is flat to 2 % (median) afterwards."""
    table, clean = screen(tmp_path)
    cfg = config(table, illumination="estimate", illumination_statistic="median", illumination_smoothing=smoothing)
    info = folder.pack(cfg, tmp_path / "out", workers=0)
    assert info.dtype == "uint16"
    with records.open(tmp_path / "out") as opened:
        for rows in (range(30), range(30, 60)):
            found = np.median([opened[r] for r in rows], 0)
            truth = np.median([clean[r] for r in rows], 0)
            raw = np.median([tifffile.imread(tmp_path / f"P{1 + (r >= 30)}" / f"{r % 30}.tif") for r in rows], 0)
            ratio = found[4:-4, 4:-4] / truth[4:-4, 4:-4]
            before = raw.transpose(1, 2, 0)[4:-4, 4:-4] / truth[4:-4, 4:-4]
            slope = np.abs(np.median(ratio, 1) - np.median(ratio)).max()
            assert np.abs(np.median(before, 1) - np.median(before)).max() > 0.2
            assert slope < most
            assert np.abs(np.median(ratio, 0) - np.median(ratio)).max() < most
            assert abs(np.median(ratio) - 1) < 0.03
    function = np.load(tmp_path / "out" / "illumination" / "P2_gfp.npy", allow_pickle=False)
    assert function.shape == (48, 48)
    assert abs(function.mean() - 1) < 1e-5
    notes = folder.prepare(cfg).notes
    assert any("illumination functions of 2 plate(s) are estimated (median" in n for n in notes)
    assert any(n.startswith("illumination correction saturated 0 of") for n in notes)


def test_a_plate_sees_only_its_own_images(tmp_path):
    table, _ = screen(tmp_path, sites=4, side=24)
    cfg = config(table, illumination="estimate")
    both = folder.prepare(cfg)
    alone = folder.prepare(config(table, illumination="estimate", where=("plate=P2",)))
    np.testing.assert_array_equal(both.images(5), alone.images(1))
    assert any("plates with fewer than 20 images show their cells" in n and "'P1' (4)" in n for n in both.notes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(both.images))(5), both.images(5))
    assert both.source != folder.prepare(config(table)).source


def test_saturation_is_counted_and_bits_are_kept(tmp_path):
    flat = np.full((16, 16, 2), 200, np.uint8)
    flat[0, 0], flat[0, 1] = 255, 100
    save(tmp_path / "a.tif", flat)
    table = rewrite(tmp_path, ["path,plate", "a.tif,p"])
    (tmp_path / "light").mkdir()
    function = np.ones((16, 16), np.float32)
    function[8:] = 0.5
    np.save(tmp_path / "light" / "p_gfp.npy", function)
    np.save(tmp_path / "light" / "p_rfp.npy", np.full((16, 16), 1.6))
    found = folder.prepare(config(table, illumination="given", illumination_folder=str(tmp_path / "light")))
    image = found.images(0)
    assert image.dtype == np.uint8
    expected = flat.astype(float)
    expected[8:, :, 0] /= 0.5
    expected[..., 1] /= 1.6
    np.testing.assert_array_equal(image, np.clip(np.rint(expected), 0, 255))
    assert any("saturated 128 of 512 values" in n for n in found.notes)
    save(tmp_path / "a.tif", np.concatenate([flat, flat]))
    with pytest.raises(DatasetError, match=r"the illumination function of plate 'p' is 16 x 16 x 2 where"):
        folder.prepare(config(table, illumination="given", illumination_folder=str(tmp_path / "light")))


def test_given_functions_as_cellprofiler_names_them(tmp_path):
    table, _ = screen(tmp_path, sites=2, side=24)
    for p, plate in enumerate(("P1", "P2")):
        (tmp_path / "illum" / plate).mkdir(parents=True)
        np.save(tmp_path / "illum" / plate / f"{plate}_IllumDNA.npy", tilt(24, 2 * p))
        tifffile.imwrite(tmp_path / "illum" / plate / f"{plate}_IllumER.npy", tilt(24, 2 * p + 1).astype(np.float32))
    options = {
        "illumination": "given", "illumination_folder": str(tmp_path / "illum"), "files": ("gfp=DNA", "rfp=ER"),
        "illumination_pattern": "{plate}/{plate}_Illum{channel}.npy", "pattern": "{plate}/{site}.tif",
    }  # fmt: skip
    with pytest.raises(DatasetError) as caught:
        folder.prepare(config(table, **options))
    assert "illumination functions (2)" in str(caught.value)
    assert "P1_IllumER.npy: not a readable illumination function" in str(caught.value)
    for plate in ("P1", "P2"):
        file = tmp_path / "illum" / plate / f"{plate}_IllumER"
        file.with_suffix(".npy").rename(file.with_suffix(".tif"))
    with pytest.raises(DatasetError) as caught:
        folder.prepare(config(table, **options))
    assert "plate 'P1', channel 'ER': no file 'P1/P1_IllumER.npy'" in str(caught.value)
    np.save(tmp_path / "illum" / "P1" / "P1_IllumER.npy", tilt(24, 1))
    np.save(tmp_path / "illum" / "P2" / "P2_IllumER.npy", tilt(24, 3))
    found = folder.prepare(config(table, **options))
    raw = tifffile.imread(tmp_path / "P2" / "1.tif").transpose(1, 2, 0)
    expected = np.rint(raw / np.stack([tilt(24, 2), tilt(24, 3)], -1).astype(np.float32))
    np.testing.assert_array_equal(found.images(3), expected)


@pytest.mark.parametrize("remote", [False, True])
def test_functions_that_a_load_data_table_names(tmp_path, remote):
    """load_data_with_illum.csv: a function a plate and channel in columns of its own, here or in an object store."""
    if remote:
        fsspec.filesystem("memory").store.clear()
    start = "memory://b/" if remote else ""
    lines = [
        "URL_OrigER,FileName_OrigDNA,PathName_OrigDNA,URL_IllumER,FileName_IllumDNA,PathName_IllumDNA,Metadata_Plate"
    ]
    images = {}
    for p in range(2):
        for c, word in enumerate(("DNA", "ER")):
            np.save(tmp_path / f"P{p}_Illum{word}.npy", tilt(24, 2 * p + c))
        for i in range(2):
            images[2 * p + i] = np.random.default_rng(2 * p + i).integers(9, 999, (24, 24, 2)).astype(np.uint16)
            for c, word in enumerate(("DNA", "ER")):
                save(tmp_path / f"{p}{i}{word}.png", images[2 * p + i][..., c])
            lines.append(
                f"{start}{p}{i}ER.png,{p}{i}DNA.png,{start}.,{start}P{p}_IllumER.npy,P{p}_IllumDNA.npy,{start}.,P{p}"
            )
    table = rewrite(tmp_path, [line.replace("memory://b/.,", "memory://b,") for line in lines])
    if remote:
        for path in tmp_path.glob("*.[np][pn][yg]"):
            fsspec.filesystem("memory").pipe(f"/b/{path.name}", path.read_bytes())
            path.unlink()
    options = {"illumination": "table", "fetch_from": ("memory://b",), "stage": str(tmp_path / "stage")}
    found = folder.prepare(config(table, "er,dna", **options))
    for row in range(4):
        light = np.stack([tilt(24, 2 * (row // 2) + 1), tilt(24, 2 * (row // 2))], -1).astype(np.float32)
        np.testing.assert_array_equal(found.images(row), np.rint(images[row][..., ::-1] / light))
    assert found.manifest.group_columns == ("plate",)
    table.write_text(table.read_text().replace("P1_IllumER", "P7_IllumER"))
    with pytest.raises(DatasetError, match=r"P7_IllumER\.npy"):
        folder.prepare(config(table, "er,dna", **options))
    table.write_text(table.read_text().replace("IllumDNA,", "IllumX,"))
    with pytest.raises(DatasetError, match=r"no FileName_Illum or URL_Illum columns for dna; has it: er"):
        folder.prepare(config(table, "er,dna", **options))
    with pytest.raises(DatasetError, match="needs a table with Illum columns"):
        folder.prepare(config(tmp_path / "stage" if remote else tmp_path, "x", illumination="table", constant="keep"))


class Evil:
    def __reduce__(self):
        return (open, ("canary", "w"))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("object.npy", lambda p: np.save(p, np.asarray([Evil()], object), allow_pickle=True), "Python objects"),
        ("pickle.npy", lambda p: p.write_bytes(pickle.dumps([1])), "not a readable"),
        ("cut.npy", lambda p: (np.save(p, np.ones((64, 64))), p.write_bytes(p.read_bytes()[:5000])), "claims 32,768"),
        ("zero.npy", lambda p: np.save(p, np.zeros((4, 4))), "finite and positive"),
        ("nan.npy", lambda p: np.save(p, np.full((4, 4), np.nan)), "finite and positive"),
        ("stack.npy", lambda p: np.save(p, np.ones((2, 4, 4))), r"is \[H, W\]"),
        ("text.npy", lambda p: np.save(p, np.asarray([["a", "b"]])), r"is \[H, W\]"),
        ("3.tif", lambda p: tifffile.imwrite(p, np.ones((3, 8, 9), "f4"), photometric="minisblack"), r"\[H, W\]"),
    ],
)  # fmt: skip
def test_functions_that_are_refused(tmp_path, monkeypatch, name, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(ImageError, match=message):
        read_function(tmp_path / name)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("shape", ["(400000, 400000)", "(4, 4", "(4, -4)", "__import__('os').abort()"])
def test_bombs_and_broken_headers_of_functions(tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 128)
    with pytest.raises(ImageError, match="not a readable illumination function"):
        read_function(tmp_path / "a.npy")


def test_what_cannot_be_estimated(tmp_path):
    table, _ = screen(tmp_path, sites=2, side=24)
    with pytest.raises(DatasetError, match=r"illumination_by: no column 'plaet'. Did you mean 'plate'"):
        folder.prepare(config(table, illumination="estimate", illumination_by="plaet"))
    save(tmp_path / "P2" / "1.tif", np.ones((20, 24, 2), np.uint16))
    with pytest.raises(DatasetError, match=r"plate 'P2': images of one size are needed, not 20 x 24, 24 x 24"):
        folder.prepare(config(table, illumination="estimate"))
    save(tmp_path / "P2" / "1.tif", np.full((24, 24, 2), 5, np.uint16))
    dark = np.zeros((24, 24, 2), np.uint16)
    dark[..., 0] = np.arange(24)
    for name in "01":
        save(tmp_path / "P2" / f"{name}.tif", dark)
    found = folder.prepare(config(table, illumination="estimate"))
    assert any("channels without any light are left as they are: 'P2' rfp" in n for n in found.notes)
    assert (found.images(3)[..., 1] == 0).all()
    for words, message in (
        ({"illumination": "given"}, "say with illumination_folder"),
        ({"illumination_folder": "x"}, "is read with illumination=given only"),
        ({"illumination_window": 0.0}, "illumination_window"),
    ):
        with pytest.raises(ValueError, match=message):
            config(table, **words)
