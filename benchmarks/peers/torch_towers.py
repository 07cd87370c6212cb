"""PyTorch with Hugging Face transformers as a contestant; see README.md."""

import json

import torch
import transformers
from contestant import answer_requests, measure, read_arrays


class Towers:
    def load(self, checkpoint, tower, threads, dtype="float32", **_):
        torch.set_num_threads(threads)
        with open(f"{checkpoint}/config.json", encoding="utf-8") as file:
            naflex = json.load(file)["model_type"] == "siglip2"
        prefix = "Siglip2" if naflex else "Siglip"
        family = getattr(transformers, f"{prefix}{'Vision' if tower == 'vision' else 'Text'}Model")
        dtype = "bfloat16" if dtype == "int8" else dtype
        self.dtype = getattr(torch, dtype)
        self.model = family.from_pretrained(checkpoint, dtype=self.dtype).eval()
        attention = self.model.config._attn_implementation
        versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
        return {"description": f"{versions}, {attention} attention, {dtype}"}

    def input(self, kind, shape, files):
        arrays = read_arrays(files)
        if kind == "pixels":
            self.arguments = {"pixel_values": arrays["pixelValues"].reshape(shape).to(self.dtype)}
        elif kind == "texts":
            self.arguments = {"input_ids": arrays["inputIds"].reshape(shape)}
        else:
            self.arguments = {
                "pixel_values": arrays["patches"].reshape(shape).to(self.dtype),
                "pixel_attention_mask": arrays["mask"].reshape(shape[:2]),
                "spatial_shapes": arrays["spatialShapes"].reshape(-1, 2),
            }
        return {}

    def forward(self):
        with torch.inference_mode():
            return self.model(**self.arguments).pooler_output

    def run(self, output):
        self.forward().float().contiguous().numpy().tofile(output)
        return {}

    def time(self, repeats):
        return measure(self.forward, repeats)


if __name__ == "__main__":
    answer_requests(Towers())
