"""Hugging Face tokenizers, the Rust library, as a contestant of model/tokenizer.mjs; see README.md."""

import json
import os
import time

import numpy
from contestant import answer_requests, measure

LENGTH = 64


class Tokenizers:
    def load(self, folder, threads, **_):
        os.environ["RAYON_NUM_THREADS"] = str(threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        import tokenizers
        from tokenizers import normalizers, processors

        start, before = time.perf_counter(), time.process_time()
        tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), tokenizer.normalizer])
        tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
        tokenizer.enable_truncation(LENGTH)
        tokenizer.enable_padding(length=LENGTH, pad_id=0, pad_token="<pad>")
        self.tokenizer = tokenizer
        self.turn = 0
        self.encode(["a photo of a cat"])
        return {
            "description": f"tokenizers {tokenizers.__version__} (Rust, from Python), encode_batch_fast, {threads} threads",
            "milliseconds": (time.perf_counter() - start) * 1000,
            "cpuMilliseconds": (time.process_time() - before) * 1000,
        }

    def input(self, kind, shape, files):
        with open(files["texts"], encoding="utf-8") as file:
            self.batches = json.load(file)
        return {}

    def encode(self, texts):
        return numpy.array([row.ids for row in self.tokenizer.encode_batch_fast(texts)], dtype=numpy.int32)

    def encode_next(self):
        self.turn = (self.turn + 1) % len(self.batches)
        return self.encode(self.batches[self.turn])

    def run(self, output, part):
        assert part == "all"
        self.encode([text for batch in self.batches for text in batch]).tofile(output)
        return {}

    def time(self, repeats):
        return measure(self.encode_next, repeats)


if __name__ == "__main__":
    answer_requests(Tokenizers())
