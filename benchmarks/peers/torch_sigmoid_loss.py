"""The sigmoid loss in PyTorch, eager, as a contestant; see README.md."""

import math

import numpy
import torch
import torch.nn.functional as F
from contestant import answer_requests, measure, read_arrays


class SigmoidLoss:
    def load(self, threads, **_):
        torch.set_num_threads(threads)
        return {"description": f"PyTorch {torch.__version__}, eager, F.logsigmoid and autograd"}

    def input(self, kind, shape, files):
        arrays = read_arrays(files)
        self.images = arrays["images"].reshape(shape).requires_grad_()
        self.texts = arrays["texts"].reshape(shape).requires_grad_()
        self.scale = torch.tensor(math.log(100), requires_grad=True)
        self.bias = torch.tensor(-12.0, requires_grad=True)
        self.parameters = [self.scale, self.bias, self.images, self.texts]
        return {}

    def compute(self):
        for parameter in self.parameters:
            parameter.grad = None
        logits = self.images @ self.texts.t() * self.scale.exp() + self.bias
        signs = 2 * torch.eye(len(logits)) - 1
        loss = -F.logsigmoid(signs * logits).sum(dim=-1).mean()
        loss.backward()
        return loss.detach()

    def run(self, output, part):
        loss = self.compute()
        values = [loss.reshape(1), *[parameter.grad.flatten() for parameter in self.parameters]]
        torch.cat(values).numpy().astype(numpy.float32).tofile(output)
        return {}

    def time(self, repeats):
        return measure(self.compute, repeats)


if __name__ == "__main__":
    answer_requests(SigmoidLoss())
