"""Exports the vision tower of a checkpoint folder with fixed resolution to an ONNX graph.

    python export_vision_onnx.py CHECKPOINT GRAPH.onnx

Needs torch and transformers. Input: pixel_values [batch, 3, height, width]; outputs: last_hidden_state, pooler_output.
"""

import argparse
import os

import torch
from transformers import SiglipVisionModel


class VisionTower(torch.nn.Module):
    """Positional tensors in, plain tensors out: what the exporter traces."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        output = self.model(pixel_values=pixel_values)
        return output.last_hidden_state, output.pooler_output


def skip_model_functions():
    """The exporter loads the finished graph into the onnx package to add functions of custom operators. There are none
    here, so without the package the graph is written as it is."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        from torch.onnx._internal.torchscript_exporter import onnx_proto_utils

        onnx_proto_utils._add_onnxscript_fn = lambda model_bytes, custom_opsets: model_bytes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("graph")
    options = parser.parse_args()

    skip_model_functions()
    # Of sdpa and eager attention, and of opsets 18 and 20 (the first with an operator for GELU), onnxruntime runs this
    # pair fastest: the peer gets the graph that suits it best.
    model = SiglipVisionModel.from_pretrained(
        options.checkpoint, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    size = model.config.image_size
    temporary = f"{options.graph}.{os.getpid()}"
    with torch.inference_mode():
        torch.onnx.export(
            VisionTower(model),
            (torch.rand(2, 3, size, size) * 2 - 1,),
            temporary,
            input_names=["pixel_values"],
            output_names=["last_hidden_state", "pooler_output"],
            dynamic_axes={
                "pixel_values": {0: "batch"},
                "last_hidden_state": {0: "batch"},
                "pooler_output": {0: "batch"},
            },
            opset_version=20,
            dynamo=False,
        )
    os.replace(temporary, options.graph)


if __name__ == "__main__":
    main()
