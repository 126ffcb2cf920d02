"""Reads each file of the command line in a process of its own: processor seconds and growth of peak memory, as JSON.

    python hostile_worker.py FILE...

Each file is read in a fork, so that one file's memory is not hidden under another's peak.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

import zarr  # noqa: F401 - imported before the forks, so that its own memory is not counted as a file's

from protloc_jax import images


def look(path: str) -> dict[str, object]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    error = ""
    for function in (images.header, images.read):
        try:
            function(path)
        except images.ImageError as refused:
            error = str(refused)
    seconds = time.process_time() - began
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {"error": error, "seconds": seconds, "bytes": grown}


def main(paths: list[str]) -> None:
    found = {}
    for path in paths:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.write(write, json.dumps(look(path)).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            found[path] = json.loads(pipe.read())
        os.waitpid(child, 0)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
