"""The other end of a contestant that runs in Python: answers requests on standard input, one at a time."""

import gc
import json
import sys
import time

import numpy
import torch

INTEGERS = {"inputIds", "mask", "spatialShapes"}


def read_arrays(files):
    """Tensors of raw files by name: float32, or int64 from int32."""
    return {
        name: torch.from_numpy(
            numpy.fromfile(file, dtype=numpy.int32).astype(numpy.int64)
            if name in INTEGERS
            else numpy.fromfile(file, dtype=numpy.float32)
        )
        for name, file in files.items()
    }


def measure(run, repeats):
    """The answer to `time`."""
    milliseconds = []
    before = time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        milliseconds.append((time.perf_counter() - start) * 1000)
    return {"milliseconds": milliseconds, "cpuMilliseconds": (time.process_time() - before) * 1000}


def peak_memory(reset):
    """The answer to `memory`."""
    if reset:
        gc.collect()
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    with open("/proc/self/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    kilobytes = {name: int(fields[name].split()[0]) for name in ("VmHWM", "VmRSS")}
    return {"peak": kilobytes["VmHWM"] * 1024, "current": kilobytes["VmRSS"] * 1024}


def answer_requests(contestant):
    """Answers with the methods of the contestant that have the requests' names."""
    for line in sys.stdin:
        settings = json.loads(line)
        request = settings.pop("request")
        try:
            answer = peak_memory(**settings) if request == "memory" else getattr(contestant, request)(**settings)
        except Exception as error:  # the other end reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
