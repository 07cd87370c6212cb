"""Pillow with NumPy, and Hugging Face's image processor, as contestants; see README.md."""

import io
import math

import numpy
import PIL
import torch
from contestant import answer_requests, measure
from PIL import Image


def target_size(height, width, patch_size, most):
    """Height and width in pixels of the largest grid of the picture's shape: transformers' rule for NaFlex."""

    def rounded(scale, size):
        return max(patch_size, math.ceil(size * scale / patch_size) * patch_size)

    least, largest = 1e-6, 100.0
    while largest - least >= 1e-5:
        scale = (least + largest) / 2
        if rounded(scale, height) * rounded(scale, width) / patch_size**2 <= most:
            least = scale
        else:
            largest = scale
    return rounded(least, height), rounded(least, width)


class Pillow:
    """What a processor in Python does, and no more: resize, scale and shift, patch order."""

    description = f"Pillow {PIL.__version__}, NumPy {numpy.__version__}"

    def __init__(self, patch_size, most):
        self.patch_size, self.most = patch_size, most

    def __call__(self, pictures):
        return numpy.concatenate([self.patches(picture) for picture in pictures])

    def patches(self, picture):
        side = self.patch_size
        height, width = target_size(picture.shape[0], picture.shape[1], side, self.most)
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        values = numpy.asarray(resized).astype(numpy.float32)
        values *= numpy.float32(2 / 255)
        values -= 1
        rows = values.reshape(height // side, side, width // side, side, 3).transpose(0, 2, 1, 3, 4)
        return rows.reshape(-1, 3 * side * side)


class HuggingFace:
    def __init__(self, patch_size, most):
        import transformers

        # Since transformers 5 the plain name is that of the one that needs torchvision.
        name = "Siglip2ImageProcessorPil"
        family = getattr(transformers, name, None) or transformers.Siglip2ImageProcessor
        self.processor = family(patch_size=patch_size, max_num_patches=most)
        self.description = f"{family.__name__} of transformers {transformers.__version__}, Pillow {PIL.__version__}"

    def __call__(self, pictures):
        return self.processor(images=list(pictures), return_tensors="pt")

    @staticmethod
    def packed(features):
        values, mask = features["pixel_values"].numpy(), features["pixel_attention_mask"].numpy()
        return values[mask == 1]


class Processors:
    def load(self, processor, patchSize, maxPatches, threads, **_):
        torch.set_num_threads(threads)
        self.process = {"pillow": Pillow, "hugging face": HuggingFace}[processor](patchSize, maxPatches)
        return {"description": self.process.description}

    def input(self, kind, shape, files):
        self.kind = kind
        if kind == "jpeg":
            with open(files["bytes"], "rb") as file:
                self.pictures = file.read()
        else:
            self.pictures = numpy.fromfile(files["pixels"], dtype=numpy.uint8).reshape(shape)
        return {}

    def forward(self):
        if self.kind == "jpeg":
            return numpy.asarray(Image.open(io.BytesIO(self.pictures)).convert("RGB"))
        return self.process(self.pictures)

    def run(self, output):
        result = self.forward()
        if not isinstance(result, numpy.ndarray):
            result = self.process.packed(result)
        numpy.ascontiguousarray(result, dtype=numpy.float32).tofile(output)
        return {}

    def time(self, repeats):
        return measure(self.forward, repeats)


if __name__ == "__main__":
    answer_requests(Processors())
