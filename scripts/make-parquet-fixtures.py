"""Makes test/fixtures/parquet with pyarrow 25: python scripts/make-parquet-fixtures.py

pictures.parquet is laid out like a Hugging Face data set with embedded pictures: 60 rows in 6 row groups; the picture
of row r is one pixel of the colour (r, 0, 0). paths-CODEC.parquet hold paths and lists of captions.
"""

import pathlib
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "test" / "fixtures" / "parquet"
CODECS = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]


def png(red):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes([0, red, 0, 0]), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def pictures():
    rows = [{"bytes": png(r), "path": f"{r}.png"} for r in range(60)]
    captions = [f"caption {r}" for r in range(60)]
    captions[17] = None
    rows[23] = {"bytes": b"not a picture", "path": "23.png"}
    rows[31] = {"bytes": None, "path": "elsewhere.png"}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), "caption": captions, "width": pa.array([1] * 60, pa.int32())})
    options = {"compression": "snappy", "row_group_size": 10, "write_statistics": False, "store_schema": False}
    pq.write_table(table, FOLDER / "pictures.parquet", **options)


def paths():
    names = [f"{r % 7}.png" for r in range(20)]
    texts = [[f"first {r}", f"second {r}"] for r in range(20)]
    texts[3] = []
    damaged = pa.array([t.encode() if r != 5 else b"\xff\xfe" for r, t in enumerate(f"plain {r}" for r in range(20))])
    table = pa.table({
        "file_name": names,
        "text": pa.array(texts, pa.list_(pa.string())),
        "plain": damaged.view(pa.string()),
        "raw": damaged,
    })
    for codec in CODECS:
        options = {"compression": codec, "row_group_size": 8, "write_statistics": False, "store_schema": False}
        pq.write_table(table, FOLDER / f"paths-{codec}.parquet", **options)


FOLDER.mkdir(exist_ok=True)
pictures()
paths()
