"""PyTorch and Hugging Face on the shapes, type and card of a result of `siglip2 bench`.

    python3 benchmarks/peers/torch_kernels.py RESULT.json [--repeats 20]

Reads which cases were measured, times every peer of theirs on the same card, and writes RESULT-peers.json and
RESULT-peers.md with ratios (above 1: siglip2 is faster). Run it right after, on the same machine: clocks drift.

Timing is that of `siglip2 bench`: events around one call, 256 MB of cache zeroed before each, median. The GPU is kept busy
for a millisecond before the first event, so that a call whose kernels are queued within that time is not charged for
Python; the Hugging Face processors, which are bound by Python, are charged for all of it. Attention, forward and backward,
is compared with float32 before it is timed. A peer that fails or is missing says why.
"""

import argparse
import json
import math
import pathlib
import statistics

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda"
FLUSH_BYTES = 256 << 20
LEAD_CYCLES = 2_000_000  # about a millisecond


class Timer:
    """Milliseconds of single calls, caches cold."""

    def __init__(self, repeats):
        self.repeats = repeats
        self.cache = torch.empty(FLUSH_BYTES // 4, dtype=torch.int32, device=DEVICE)

    def __call__(self, run, lead=True):
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        samples = []
        for _ in range(self.repeats):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.cache.zero_()
            if lead:
                torch.cuda._sleep(LEAD_CYCLES)
            start.record()
            run()
            end.record()
            end.synchronize()
            samples.append(start.elapsed_time(end))
        return samples


def require_close(actual, expected, tolerance):
    """Raises when a value is off by more than `tolerance` of the root mean square."""
    expected = expected.float()
    error = (actual.float() - expected).abs().max() / expected.square().mean().sqrt()
    if not error <= tolerance:
        raise ValueError(f"the output is off by {error:.1e} of its root mean square")


def normal(*shape, dtype):
    return torch.randn(*shape, device=DEVICE, dtype=torch.float32).to(dtype)


def compiled(function):
    """The function compiled for one shape: without a reset, shapes met earlier would make it dynamic, or eager."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


# Attention: query, key and value as the models have them, [batch, tokens, heads, dim], seen as [batch, heads, tokens, dim].

SDPA = {
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def attention_inputs(case, dtype):
    shape = case["shape"]
    size = (case["batch"], shape["tokens"], shape["heads"], shape["headDim"])
    return [normal(*size, dtype=dtype).transpose(1, 2) for _ in range(3)]


def attention_peers(case, dtype, timer):
    query, key, value = attention_inputs(case, dtype)
    with sdpa_kernel(SDPBackend.MATH):
        expected = F.scaled_dot_product_attention(*(t[:1].float() for t in (query, key, value)))
    for name, backend in SDPA.items():

        def run(backend=backend):
            with sdpa_kernel(backend), torch.no_grad():
                return F.scaled_dot_product_attention(query, key, value)

        def measured(run=run):
            require_close(run()[:1], expected, 0.05)
            return timer(run)

        yield name, measured


def attention_backward_peers(case, dtype, timer):
    inputs = [t.detach().requires_grad_() for t in attention_inputs(case, dtype)]
    first = [t[:1].detach().float().requires_grad_() for t in inputs]
    grad = torch.randn_like(inputs[0])
    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.autograd.grad(F.scaled_dot_product_attention(*first), first, grad[:1].float())
    for name, backend in SDPA.items():

        def measured(backend=backend):
            with sdpa_kernel(backend):
                output = F.scaled_dot_product_attention(*inputs)

            def run():
                return torch.autograd.grad(output, inputs, grad, retain_graph=True)

            for actual, gradient in zip(run(), expected):
                require_close(actual[:1], gradient, 0.1)
            return timer(run)

        yield name, measured


# The sigmoid loss, as open_clip and Hugging Face write it.


def sigmoid_loss(images, texts, scale, bias):
    logits = images @ texts.t() * scale.exp() + bias
    signs = 2 * torch.eye(len(logits), device=logits.device, dtype=logits.dtype) - 1
    return -F.logsigmoid(signs * logits).sum(dim=-1).mean()


def sigmoid_loss_peers(case, dtype, timer):
    pairs, width = case["batch"], case["shape"]["width"]
    images, texts = (F.normalize(normal(pairs, width, dtype=torch.float32), dim=-1).to(dtype) for _ in range(2))
    leaves = [images.requires_grad_(), texts.requires_grad_()]
    leaves += [torch.tensor(value, device=DEVICE, dtype=dtype, requires_grad=True) for value in (math.log(10), -10.0)]

    def eager():
        return torch.autograd.grad(sigmoid_loss(*leaves), leaves)

    def measured_compiled():
        loss = compiled(sigmoid_loss)
        return timer(lambda: torch.autograd.grad(loss(*leaves), leaves))

    yield "PyTorch eager", lambda: timer(eager)
    yield "PyTorch compiled", measured_compiled


# Layers.


def linear_peers(case, dtype, timer):
    shape = case["shape"]
    rows, inner, outer = case["batch"], shape["inFeatures"], shape["outFeatures"]
    inputs, weight = normal(rows, inner, dtype=dtype), normal(outer, inner, dtype=dtype) * inner**-0.5
    bias = normal(outer, dtype=dtype)
    gelu = shape["activation"] == "gelu"

    @torch.no_grad()
    def eager():
        output = F.linear(inputs, weight, bias)
        return F.gelu(output, approximate="tanh") if gelu else output

    yield "PyTorch eager", lambda: timer(eager)
    yield "PyTorch compiled", lambda: timer(compiled(eager))


def linear_backward_peers(case, dtype, timer):
    shape = case["shape"]
    rows, inner, outer = case["batch"], shape["inFeatures"], shape["outFeatures"]
    leaves = [normal(rows, inner, dtype=dtype), normal(outer, inner, dtype=dtype), normal(outer, dtype=dtype)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    output = F.linear(*leaves)
    grad = torch.randn_like(output)
    yield "PyTorch eager", lambda: timer(lambda: torch.autograd.grad(output, leaves, grad, retain_graph=True))


def layer_norm_leaves(case, dtype):
    rows, width = case["batch"], case["shape"]["width"]
    return [normal(rows, width, dtype=dtype).requires_grad_()] + [
        normal(width, dtype=dtype).requires_grad_() for _ in range(2)
    ]


def layer_norm_peers(case, dtype, timer):
    inputs, weight, bias = layer_norm_leaves(case, dtype)

    @torch.no_grad()
    def eager():
        return F.layer_norm(inputs, weight.shape, weight, bias, 1e-6)

    yield "PyTorch eager", lambda: timer(eager)
    yield "PyTorch compiled", lambda: timer(compiled(eager))


def layer_norm_backward_peers(case, dtype, timer):
    leaves = layer_norm_leaves(case, dtype)
    output = F.layer_norm(leaves[0], leaves[1].shape, leaves[1], leaves[2], 1e-6)
    grad = torch.randn_like(output)
    yield "PyTorch eager", lambda: timer(lambda: torch.autograd.grad(output, leaves, grad, retain_graph=True))


def gelu_peers(case, dtype, timer):
    inputs = normal(case["batch"], case["shape"]["columns"], dtype=dtype)
    yield "PyTorch eager", lambda: timer(lambda: F.gelu(inputs, approximate="tanh"))


def gelu_backward_peers(case, dtype, timer):
    inputs = normal(case["batch"], case["shape"]["columns"], dtype=dtype).requires_grad_()
    output = F.gelu(inputs, approximate="tanh")
    grad = torch.randn_like(output)
    yield "PyTorch eager", lambda: timer(lambda: torch.autograd.grad(output, [inputs], grad, retain_graph=True))


# Pictures: the Hugging Face processors with the pictures on the card, as tensors.


def patchify_peers(case, dtype, timer):
    shape = case["shape"]
    pixels = torch.randint(0, 256, (3, shape["height"], shape["width"]), dtype=torch.uint8, device=DEVICE)
    pictures = [pixels.clone() for _ in range(case["batch"])]

    def fast():
        import transformers

        # The name before transformers 5; since then the fast one, of torchvision, has the plain name.
        name = "Siglip2ImageProcessorFast" if int(transformers.__version__[0]) < 5 else "Siglip2ImageProcessor"
        make = getattr(transformers, name)
        processor = make(patch_size=shape["patchSize"], max_num_patches=shape["maxPatches"])

        def run():
            return processor(images=pictures, return_tensors="pt", device=DEVICE)["pixel_values"]

        if not run().is_cuda:
            raise RuntimeError(f"{name} of transformers {transformers.__version__} does not compute on the card")
        return timer(run, lead=False)

    yield "Hugging Face fast processor on CUDA", fast


PEERS = {
    "attention": attention_peers,
    "attentionBackward": attention_backward_peers,
    "sigmoidLoss": sigmoid_loss_peers,
    "linear": linear_peers,
    "linearBackward": linear_backward_peers,
    "layerNorm": layer_norm_peers,
    "layerNormBackward": layer_norm_backward_peers,
    "gelu": gelu_peers,
    "geluBackward": gelu_backward_peers,
    "naflexPatchify": patchify_peers,
}


def measure_case(case, dtype, timer):
    found = []
    try:
        for name, run in PEERS[case["kernel"]](case, dtype, timer):
            found.append({"peer": name})
            try:
                found[-1]["samples"] = run()
                found[-1]["median"] = statistics.median(found[-1]["samples"])
                found[-1]["ratio"] = found[-1]["median"] / case["cold"]["median"]
            except Exception as error:  # a peer that cannot is a result too
                found[-1]["failure"] = describe(error)
            torch.cuda.empty_cache()
    except Exception as error:  # its inputs cannot be made
        found.append({"peer": "all", "failure": describe(error)})
    torch.cuda.empty_cache()
    return found


def describe(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def to_markdown(result, versions, rows):
    lines = [
        f"# Peers on {result['description']}, {result['dtype']}",
        "",
        f"{versions}. siglip2 as in the result beside this file, commit {result['machine'].get('commit', 'unknown')}.",
        "Ratio: the peer's time over siglip2's; above 1 siglip2 is faster.",
        "",
        "| kernel | shape | siglip2 ms | peer | peer ms | ratio |",
        "| --- | --- | ---: | --- | ---: | ---: |",
    ]
    for case, peers in rows:
        for entry in peers:
            time = f"{entry['median']:.3g}" if "median" in entry else entry["failure"]
            ratio = f"{entry['ratio']:.2f}" if "ratio" in entry else ""
            cells = [case["kernel"], case["name"], f"{case['cold']['median']:.3g}", entry["peer"], time, ratio]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=pathlib.Path)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here: these peers are measured on the card of the result")
    result = json.loads(options.result.read_text())
    dtype = getattr(torch, result["dtype"])
    torch.backends.cuda.matmul.allow_tf32 = False
    timer = Timer(options.repeats)
    rows = []
    for case in result["measurements"]:
        if case["kernel"] in PEERS:
            print(case["kernel"], case["name"], flush=True)
            rows.append((case, measure_case(case, dtype, timer)))
    versions = f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}"
    base = options.result.with_suffix("")
    document = {"versions": versions, "peers": [{**case, "peers": peers} for case, peers in rows]}
    pathlib.Path(f"{base}-peers.json").write_text(json.dumps(document, indent=2) + "\n")
    markdown = to_markdown(result, versions, rows)
    pathlib.Path(f"{base}-peers.md").write_text(markdown)
    print(markdown)


if __name__ == "__main__":
    main()
