"""PyTorch with Hugging Face transformers, eager or compiled, as a contestant; see README.md."""

import json

import torch
import transformers
from contestant import answer_requests, measure, read_arrays


class Towers:
    def load(self, checkpoint, tower, threads, dtype="float32", compiled=False, **_):
        torch.set_num_threads(threads)
        with open(f"{checkpoint}/config.json", encoding="utf-8") as file:
            naflex = json.load(file)["model_type"] == "siglip2"
        prefix = "Siglip2" if naflex else "Siglip"
        family = getattr(transformers, f"{prefix}{'Vision' if tower == 'vision' else 'Text'}Model")
        dtype = "bfloat16" if dtype == "int8" else dtype
        self.dtype = getattr(torch, dtype)
        self.model = family.from_pretrained(checkpoint, dtype=self.dtype).eval()
        self.compiled = compiled
        attention = self.model.config._attn_implementation
        versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
        mode = "compiled" if compiled else "eager"
        return {"description": f"{versions}, {mode}, {attention} attention, {dtype}"}

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
        self.call = self.model
        if self.compiled:
            # For the shapes of this input, whatever came before.
            torch.compiler.reset()
            self.call = torch.compile(self.model, dynamic=False)
        return {}

    def forward(self):
        with torch.inference_mode():
            return self.call(**self.arguments).pooler_output

    def run(self, output):
        self.forward().float().contiguous().numpy().tofile(output)
        return {}

    def time(self, repeats):
        return measure(self.forward, repeats)


if __name__ == "__main__":
    answer_requests(Towers())
