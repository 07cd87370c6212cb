"""Makes the small pictures of test/fixtures/decode/ and the RGB bytes Pillow decodes from each.

    python scripts/make-image-fixtures.py

Needs Pillow 12 with WebP, AVIF and libtiff. `expected.json` holds, for every file, what
`ImageOps.exif_transpose(Image.open(file)).convert("RGB")` gives: width, height and base64 pixels. Forms Pillow cannot
write itself (16-bit RGB, interlacing, 2- and 4-bit grey, tiles) are written byte by byte below.
"""

import base64
import io
import json
import pathlib
import struct
import zlib

from PIL import Image, ImageCms, ImageOps

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "test" / "fixtures" / "decode"
WIDTH, HEIGHT = 7, 5


def value(index, maximum=255):
    """A deterministic, uneven sample in 0..maximum that reaches both ends."""
    special = {0: 0, 1: maximum}
    return special.get(index, (index * 2654435761 >> 7) % (maximum + 1))


def rows(channels, maximum=255, width=WIDTH, height=HEIGHT):
    return [[value(y * width * channels + x, maximum) for x in range(width * channels)] for y in range(height)]


def image(mode, channels, size=(WIDTH, HEIGHT)):
    data = bytes(sample for row in rows(channels, 255, *size) for sample in row)
    return Image.frombytes(mode, size, data)


# --- PNG -------------------------------------------------------------------------------------------------------------

PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_samples(samples, depth):
    if depth == 16:
        return b"".join(struct.pack(">H", sample) for sample in samples)
    bits = "".join(format(sample, f"0{depth}b") for sample in samples)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def png(color_type, depth, samples, interlaced=False, extra=()):
    channels = PNG_CHANNELS[color_type]
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    body = b""
    for left, top, step_x, step_y in passes:
        for row in samples[top::step_y]:
            picked = [row[x * channels + c] for x in range(left, WIDTH, step_x) for c in range(channels)]
            if picked:
                body += b"\0" + pack_samples(picked, depth)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color_type, 0, 0, int(interlaced))
    chunks = [png_chunk(b"IHDR", header), *(png_chunk(kind, data) for kind, data in extra)]
    chunks += [png_chunk(b"IDAT", zlib.compress(body, 9)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


PALETTE = bytes(value(i + 7) for i in range(16 * 3))
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def png_pictures():
    yield "grey1", png(0, 1, rows(1, 1))
    yield "grey2", png(0, 2, rows(1, 3))
    yield "grey4", png(0, 4, rows(1, 15))
    yield "grey8", png(0, 8, rows(1))
    yield "grey8-transparent-colour", png(0, 8, rows(1), extra=[(b"tRNS", struct.pack(">H", 255))])
    low = [[sample % 400 for sample in row] for row in rows(1, 65535)]
    yield "grey16", png(0, 16, low)
    yield "grey16-transparent-colour", png(0, 16, low, extra=[(b"tRNS", struct.pack(">H", low[1][1]))])
    yield "grey16-interlaced", png(0, 16, low, interlaced=True)
    yield "rgb8", png(2, 8, rows(3))
    yield "rgb8-interlaced", png(2, 8, rows(3), interlaced=True)
    yield "rgb8-transparent-colour", png(2, 8, rows(3), extra=[(b"tRNS", struct.pack(">HHH", *rows(3)[1][:3]))])
    yield "rgb8-gamma", png(2, 8, rows(3), extra=[(b"gAMA", struct.pack(">I", 100000))])
    yield "rgb16", png(2, 16, rows(3, 65535))
    yield "palette4", png(3, 4, rows(1, 15), extra=[(b"PLTE", PALETTE)])
    yield "palette4-interlaced", png(3, 4, rows(1, 15), interlaced=True, extra=[(b"PLTE", PALETTE)])
    yield "palette8-alpha", png(3, 8, rows(1, 15), extra=[(b"PLTE", PALETTE), (b"tRNS", bytes(range(0, 256, 17)))])
    yield "palette8-one-transparent", png(3, 8, rows(1, 15), extra=[(b"PLTE", PALETTE), (b"tRNS", b"\xff\xff\0")])
    yield "grey8-alpha", png(4, 8, rows(2))
    yield "grey16-alpha", png(4, 16, rows(2, 65535))
    yield "rgb8-alpha", png(6, 8, rows(4))
    yield "rgb16-alpha", png(6, 16, rows(4, 65535))
    for orientation in range(1, 9):
        yield f"orientation{orientation}", png(2, 8, rows(3), extra=[(b"eXIf", exif(orientation)[6:])])
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0" + (XMP % 7).encode()
    yield "orientation7-xmp", png(2, 8, rows(3), extra=[(b"iTXt", xmp)])
    yield "orientation6-grey16-alpha", png(4, 16, rows(2, 65535), extra=[(b"eXIf", exif(6)[6:])])
    yield "profile", png(2, 8, rows(3), extra=[(b"iCCP", b"swapped\0\0" + zlib.compress(swapped_profile(), 9))])


def swapped_profile():
    """An sRGB profile with its red and blue primaries exchanged: applying it would change every pixel."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    assert tags != profile
    return tags


# --- TIFF ------------------------------------------------------------------------------------------------------------


def tiff(width, height, bits, photometric, data, tile=None, extra_tags=()):
    """A little-endian single-page TIFF; `data` is one strip, or a list of 16 x 16 tiles."""
    blocks = data if tile else [data]
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, bits), 259: (3, [1]), 262: (3, [photometric])}
    tags[277] = (3, [len(bits)])
    offsets, position = [], 8
    for block in blocks:
        offsets.append(position)
        position += len(block) + len(block) % 2
    sizes = [len(block) for block in blocks]
    if tile:
        tags |= {322: (4, [tile]), 323: (4, [tile]), 324: (4, offsets), 325: (4, sizes)}
    else:
        tags |= {273: (4, offsets), 278: (4, [height]), 279: (4, sizes)}
    tags |= dict(extra_tags)
    overflow = position + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag in sorted(tags):
        kind, values = tags[tag]
        packed = b"".join(struct.pack("<H" if kind == 3 else "<I", item) for item in values)
        if len(packed) > 4:
            field = struct.pack("<I", overflow + len(tail))
            tail += packed
        else:
            field = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, len(values)) + field
    body = b"".join(block + b"\0" * (len(block) % 2) for block in blocks)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", position) + body + directory + tail


def flat(samples, format="B"):
    return b"".join(struct.pack("<" + format, sample) for row in samples for sample in row)


def tiled_tiff():
    width, height = 20, 3
    samples = rows(3, 255, width, height)
    tiles = []
    for left in (0, 16):
        block = b"".join(bytes(row[left * 3 : (left + 16) * 3]).ljust(48, b"\0") for row in samples)
        tiles.append(block.ljust(16 * 48, b"\0"))
    return tiff(width, height, [8, 8, 8], 2, tiles, tile=16)


def tiff_pictures():
    yield "grey8", tiff(WIDTH, HEIGHT, [8], 1, flat(rows(1)))
    yield "grey8-white-is-zero", tiff(WIDTH, HEIGHT, [8], 0, flat(rows(1)))
    yield "grey16", tiff(WIDTH, HEIGHT, [16], 1, flat([[s % 400 for s in row] for row in rows(1, 65535)], "H"))
    floats = [[sample * 1.3 - 20 for sample in row] for row in rows(1)]
    yield "grey-float", tiff(WIDTH, HEIGHT, [32], 1, flat(floats, "f"), extra_tags=[(339, (3, [3]))])
    integers = [[sample * 2 - 20 for sample in row] for row in rows(1)]
    yield "grey-int32", tiff(WIDTH, HEIGHT, [32], 1, flat(integers, "i"), extra_tags=[(339, (3, [2]))])
    yield "grey8-alpha", tiff(WIDTH, HEIGHT, [8] * 2, 1, flat(rows(2)), extra_tags=[(338, (3, [2]))])
    yield "rgb8", tiff(WIDTH, HEIGHT, [8] * 3, 2, flat(rows(3)))
    yield "rgb8-alpha", tiff(WIDTH, HEIGHT, [8] * 4, 2, flat(rows(4)), extra_tags=[(338, (3, [2]))])
    yield "rgb16", tiff(WIDTH, HEIGHT, [16] * 3, 2, flat(rows(3, 65535), "H"))
    yield "cmyk", tiff(WIDTH, HEIGHT, [8] * 4, 5, flat(rows(4)), extra_tags=[(332, (3, [1]))])
    yield "cmyk16", tiff(WIDTH, HEIGHT, [16] * 4, 5, flat(rows(4, 65535), "H"), extra_tags=[(332, (3, [1]))])
    yield "orientation6", tiff(WIDTH, HEIGHT, [8] * 3, 2, flat(rows(3)), extra_tags=[(274, (3, [6]))])
    yield "tiled", tiled_tiff()
    yield "bilevel", saved(image("L", 1).convert("1"), "TIFF", compression="group4")
    yield "palette", saved(image("RGB", 3).quantize(16), "TIFF")
    yield "pages", saved(image("RGB", 3), "TIFF", save_all=True, append_images=[Image.new("RGB", (3, 4), "red")])


# --- the rest --------------------------------------------------------------------------------------------------------


def saved(picture, format, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def smooth(mode="RGB"):
    """A picture without noise, as lossy codecs expect; larger than one 16 x 16 block."""
    picture = Image.new("RGB", (18, 10))
    picture.putdata([(x * 14, y * 25, 255 - x * 6 - y * 12) for y in range(10) for x in range(18)])
    return picture.convert(mode)


def jpeg_pictures():
    yield "grey", saved(smooth("L"), "JPEG", quality=90)
    yield "ycc420", saved(smooth(), "JPEG", quality=90)
    yield "ycc444-progressive", saved(smooth(), "JPEG", quality=90, subsampling=0, progressive=True)
    yield "rgb-adobe", saved(smooth(), "JPEG", quality=90, keep_rgb=True)
    yield "cmyk-adobe", saved(smooth("CMYK"), "JPEG", quality=90)
    yield "orientation6", saved(smooth(), "JPEG", quality=90, exif=exif(6))
    yield "orientation5-xmp", saved(smooth(), "JPEG", quality=90, xmp=(XMP % 5).encode())
    yield "profile", saved(smooth(), "JPEG", quality=90, icc_profile=swapped_profile())


def gif_pictures():
    picture = image("RGB", 3).quantize(16)
    yield "plain", saved(picture, "GIF")
    # Pillow interlaces only from 16 rows on.
    yield "interlaced", saved(image("RGB", 3, (5, 17)).quantize(16), "GIF", interlace=1)
    yield "transparent", saved(picture, "GIF", transparency=3)
    frames = [image("RGB", 3).quantize(16), Image.new("RGB", (WIDTH, HEIGHT), "red").quantize(4)]
    yield "animated", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    yield "grey", saved(image("L", 1), "GIF")
    yield "no-palette", partial_gif(False, palette=False)
    # A first frame that covers only a part of the canvas, without and with a transparent colour.
    yield "partial", partial_gif(False)
    yield "partial-transparent", partial_gif(True)


def partial_gif(transparent, palette=True):
    small = saved(image("RGB", 3, (3, 2)).quantize(4), "GIF", interlace=0, **({"transparency": 2} if transparent else {}))
    data = bytearray(small)
    data[6:10] = struct.pack("<HH", WIDTH, HEIGHT)
    data[11] = 1
    descriptor = data.index(b",\0\0\0\0\x03\0\x02\0")
    data[descriptor + 1 : descriptor + 5] = struct.pack("<HH", 2, 1)
    if not palette:
        size = 3 << ((data[10] & 7) + 1)
        data[10] &= 0x7F
        del data[13 : 13 + size]
    return bytes(data)


def webp_pictures():
    yield "lossless", saved(image("RGB", 3), "WEBP", lossless=True)
    yield "lossless-alpha", saved(image("RGBA", 4), "WEBP", lossless=True, exact=True)
    yield "lossy", saved(smooth(), "WEBP", quality=80)
    frames = [image("RGB", 3), Image.new("RGB", (WIDTH, HEIGHT), "red")]
    yield "animated", saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    yield "orientation8", saved(image("RGB", 3), "WEBP", lossless=True, exif=exif(8))


def avif_pictures():
    yield "lossy", saved(smooth(), "AVIF", quality=80, subsampling="4:4:4")
    yield "orientation6", saved(smooth(), "AVIF", quality=80, subsampling="4:4:4", exif=exif(6))


PICTURES = {
    "png": png_pictures,
    "tiff": tiff_pictures,
    "jpg": jpeg_pictures,
    "gif": gif_pictures,
    "webp": webp_pictures,
    "avif": avif_pictures,
}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    expected = {}
    for extension, pictures in PICTURES.items():
        for name, data in pictures():
            file = FOLDER / f"{name}.{extension}"
            file.write_bytes(data)
            with Image.open(file) as opened:
                rgb = ImageOps.exif_transpose(opened).convert("RGB")
            expected[file.name] = {
                "width": rgb.width,
                "height": rgb.height,
                "mode": opened.mode,
                "rgb": base64.b64encode(rgb.tobytes()).decode(),
            }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=0) + "\n")


main()
