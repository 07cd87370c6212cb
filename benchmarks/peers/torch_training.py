"""Training steps of PyTorch with Hugging Face transformers as a contestant; see README.md."""

import json
import time

import numpy
import torch
import torch.nn.functional as F
import transformers
from contestant import answer_requests, measure, read_arrays


def sigmoid_loss(logits):
    signs = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(signs * logits).sum(dim=-1).mean()


def is_kernel(name, parameter):
    """Weights of linear layers, which decay in big_vision's recipe; biases, norms, tables and the probe do not."""
    return parameter.ndim > 1 and not name.endswith(("token_embedding.weight", "position_embedding.weight", "probe"))


class Training:
    def load(self, checkpoint, threads, optimizer, dtype="float32", weights="float32", **_):
        """`dtype` of computation: in bfloat16 under autocast, or without it where the `weights` are bfloat16, too."""
        torch.set_num_threads(threads)
        self.autocast = dtype != weights
        self.type = getattr(torch, weights)
        with open(f"{checkpoint}/config.json", encoding="utf-8") as file:
            naflex = json.load(file)["model_type"] == "siglip2"
        family = transformers.Siglip2Model if naflex else transformers.SiglipModel
        self.model = family.from_pretrained(checkpoint, dtype=self.type).train()
        self.clip_norm = optimizer["clipNorm"]
        named = list(self.model.named_parameters())
        # AdamW multiplies the decay by the learning rate; the recipe does not.
        decay = optimizer["weightDecay"] / optimizer["learningRate"]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for name, p in named if is_kernel(name, p)], "weight_decay": decay},
                {"params": [p for name, p in named if not is_kernel(name, p)], "weight_decay": 0.0},
            ],
            lr=optimizer["learningRate"],
            betas=tuple(optimizer["betas"]),
            eps=optimizer["epsilon"],
        )
        attention = self.model.config.vision_config._attn_implementation
        versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
        types = f"{dtype} by autocast, weights in {weights}" if self.autocast else f"all in {dtype}"
        return {"description": f"{versions}, eager, {types}, {attention} attention, torch.optim.AdamW"}

    def input(self, kind, shape, files):
        arrays = read_arrays(files)
        self.arguments = {"input_ids": arrays["inputIds"].reshape(shape[0], -1)}
        if kind == "pixels":
            self.arguments["pixel_values"] = arrays["pixelValues"].reshape(shape).to(self.type)
        else:
            self.arguments["pixel_values"] = arrays["patches"].reshape(shape).to(self.type)
            self.arguments["pixel_attention_mask"] = arrays["mask"].reshape(shape[:2])
            self.arguments["spatial_shapes"] = arrays["spatialShapes"].reshape(-1, 2)
        return {}

    def backward(self):
        """Leaves gradients in the parameters; returns the loss and the seconds of forward and backward pass."""
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.model(**self.arguments).logits_per_text
        loss = sigmoid_loss(logits.float())
        middle = time.perf_counter()
        loss.backward()
        return loss, [middle - start, time.perf_counter() - middle]

    def step(self):
        loss, parts = self.backward()
        start = time.perf_counter()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        middle = time.perf_counter()
        self.optimizer.step()
        result = loss.item(), norm.item()
        self.parts.append([*parts, middle - start, time.perf_counter() - middle])
        return result

    def gradients(self, parameters):
        loss, _ = self.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters()])
        named = dict(self.model.named_parameters())
        some = [named[name].grad.float().flatten() for name in parameters]
        return torch.cat([torch.stack([loss.detach(), norm.float()]), *some])

    def run(self, output, part, parameters=()):
        self.parts = []
        values = self.gradients(parameters) if part == "gradients" else torch.tensor(self.step())
        values.detach().numpy().astype(numpy.float32).tofile(output)
        return {}

    def time(self, repeats, part):
        if part != "step":
            raise ValueError(f"cannot time {part}")
        self.parts = []
        answer = measure(self.step, repeats)
        names = ("forward", "backward", "clipping", "optimizer")
        return {**answer, "parts": {name: [1000 * each for each in of] for name, of in zip(names, zip(*self.parts))}}


if __name__ == "__main__":
    answer_requests(Training())
