"""Ways to damage a folder of records made by small_records, each leaving every other record as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from small_records import image

from protloc_jax.data import codec, info, records

PER_SHARD = 16  # as small_records.pack writes them


def shard_file(directory: Path, number: int) -> Path:
    return directory / info.load(directory).shards[number].file


def flip_in_file(directory: Path, *numbers: int) -> None:
    """Flip one bit in the middle of each record where it lies in its file."""
    for number in numbers:
        with records.open(directory, tolerant=True) as found:
            payload = found.shards.read(number)
        path = shard_file(directory, number // PER_SHARD)
        data = bytearray(path.read_bytes())
        data[data.index(payload) + len(payload) // 2] ^= 1
        path.write_bytes(bytes(data))


def replace(directory: Path, payloads: Mapping[int, bytes]) -> None:
    """Write shards again, whole and with right checksums of their own, in which some records have other bytes."""
    for shard in {number // PER_SHARD for number in payloads}:
        path = shard_file(directory, shard)
        reader = ArrayRecordReader(str(path))
        old = [reader.read([i])[0] for i in range(reader.num_records())]
        reader.close()
        writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for position, payload in enumerate(old):
            writer.write(payloads.get(shard * PER_SHARD + position, payload))
        writer.close()


def wrong_payloads() -> dict[str, tuple[bytes, str]]:
    """By kind: bytes that are not record 20, and how they are told."""
    good = codec.encode(image(20), 20)
    flipped = bytearray(good)
    flipped[-3] ^= 4
    return {
        "other record": (codec.encode(image(20), 7), "says that it is record 7."),
        "other size": (
            codec.encode(image(20, 4, 4), 20),
            "holds (4, 4, 3) uint8 where (10, 12, 3) uint8 was expected.",
        ),
        "other type": (
            codec.encode(image(20, dtype="uint16"), 20),
            "holds (10, 12, 3) uint16 where (10, 12, 3) uint8 was expected.",
        ),
        "too few channels": (codec.encode(image(20, channels=2), 20), "holds (10, 12, 2) uint8"),
        "empty": (b"", "is not an image record of this format."),
        "cut": (good[:-5], f"is {len(good) - 5} bytes long, its header says {len(good)}."),
        "flipped": (bytes(flipped), "frame 2 is damaged"),
    }
