"""The rows of the fault table that have to have a test, each with its pass rule in short.

Row NN is tested by the files test_row_NN_*.py of this folder.
"""

from __future__ import annotations

ROWS: dict[int, str] = {
    1: "kill -9 inside an asynchronous save: the run that goes on equals the undisturbed one to the bit",
    2: "kill -9 between saves, in mid-epoch, at its border, in an evaluation: no example twice, none left out",
    3: "another number of devices: the same examples, losses within 1e-5; another global batch is refused",
    4: "another number of processes: the same, and any number of them reads the checkpoint",
    5: "SIGTERM at any moment: saved and left with 75 within the grace time; a second one ends at once",
    6: "one of several processes killed: the others end within the heartbeat limit and name it; a retry goes on",
    7: "a step that never ends: the watchdog fires in time, writes the stacks, every process ends non-zero",
    8: "a process that joins late is waited for, or the message says who is missing",
    9: "a damaged checkpoint is noticed before use, named, moved aside, and the one before it is taken",
    10: "a copied run directory goes on; one that cannot be written is refused at the start",
    11: "a full disk: a warning with the bytes needed, no remains, the next save works; the end after several",
    12: "storage slower than the interval: saves are left out, memory and the time of a step stay",
    13: "a checkpoint that is never older than so many minutes, after a damaged resume as well",
    17: "a gradient that is not finite changes nothing, is counted, recorded for replay, and ends the run in the end",
    18: "a spike of the loss is flagged; skipping it or going back is an option that repeats exactly",
    19: "collapse is told within 200 steps; a healthy run is never accused",
    21: "weights that do not fit are refused with the differences; a digest can be asked for",
    24: "a tracker that fails or hangs changes nothing of the training",
    26: "a second job in the run directory is refused; the lock of a dead one is taken over",
    27: "a killed worker ends the run in ten seconds and is named; no orphans, no shared memory left",
    28: "device memory that does not hold the run: a message with numbers and a smaller setting, checkpoints intact",
    30: "two runs of one seed are equal at steps 1, 10 and 100, whatever the workers and the prefetching",
    31: "an embedding killed in the middle goes on; its table equals that of one go to the bit",
}
# Tested beside the code they are about; they may have a file here as well.
ELSEWHERE = (14, 15, 16, 20, 22, 23, 25, 29, 32)
