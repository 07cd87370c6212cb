"""Writes test/fixtures/resize/resize.json: SHA-256 of pictures resized by Pillow.

    python scripts/make-resize-fixture.py

Needs Pillow 12.3 or newer and numpy. The pictures are not stored: byte i is hash(i, seed) >> 24 ("noise"), or 255 where
that is above 127 and else 0 ("extremes", whose bicubic overshoot is clipped); see hash in test/support/golden.ts.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

# height, width → height, width
SIZES = [
    ((1, 1), (112, 112)),
    ((2, 2), (208, 208)),
    ((1, 7), (16, 112)),
    ((3, 1000), (16, 4096)),
    ((1000, 3), (4096, 16)),
    ((16, 4096), (16, 4096)),
    ((4096, 16), (512, 16)),
    ((5, 20000), (16, 32)),
    ((768, 1024), (224, 288)),
    ((479, 641), (224, 304)),
    ((40, 50), (224, 288)),
    ((300, 512), (300, 64)),
    ((512, 300), (64, 300)),
    ((300, 64), (300, 512)),
    ((33, 47), (48, 32)),
    ((17, 31), (31, 17)),
    ((255, 257), (256, 256)),
    ((2000, 1500), (40, 1500)),  # more columns than one tile
    ((1200, 11), (32, 300)),  # more than 100 times as tall as wide: vertically first
    ((1200, 12), (32, 300)),  # exactly 100 times: horizontally first
    ((1200, 11), (1216, 16)),  # grows: horizontally first
    ((5000, 1), (1024, 16)),
]


def hashes(count: int, seed: int) -> np.ndarray:
    h = np.arange(count, dtype=np.uint32) + np.uint32((seed * 0x9E3779B9) & 0xFFFFFFFF)
    h ^= h >> 16
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> 13
    h *= np.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


cases = []
for index, (source, target) in enumerate(SIZES):
    for resample in ("bilinear", "bicubic"):
        seed = len(cases) + 1
        channels = (3, 3, 4, 1, 2)[len(cases) % 5]
        kind = ("noise", "extremes")[index % 2]
        pixels = (hashes(source[0] * source[1] * channels, seed) >> 24).astype(np.uint8).reshape(*source, channels)
        if kind == "extremes":
            pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
        colour = pixels[:, :, :3] if channels >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
        filter_ = Image.Resampling[resample.upper()]
        resized = Image.fromarray(np.ascontiguousarray(colour)).resize((target[1], target[0]), filter_)
        cases.append(
            {
                "source": source,
                "channels": channels,
                "seed": seed,
                "kind": kind,
                "target": target,
                "filter": resample,
                "sha256": hashlib.sha256(np.asarray(resized).tobytes()).hexdigest(),
            }
        )

folder = Path(__file__).resolve().parent.parent / "test" / "fixtures" / "resize"
folder.mkdir(exist_ok=True)
lines = ",\n".join(json.dumps(case) for case in cases)
(folder / "resize.json").write_text(f"[\n{lines}\n]\n")
