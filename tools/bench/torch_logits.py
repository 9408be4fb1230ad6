#!/usr/bin/env python3
"""Writes FOLDER: a random Llama-shaped model (config.json, model.safetensors in bf16) and the logits
that PyTorch computes for it, for `bench_gpu torch FOLDER`.

Needs torch, transformers and safetensors. Runs on a GPU when there is one. Deterministic but for
what the library versions change. torch.bin, little-endian: int32 tokens, int32 vocabulary, int32
ids[tokens], float32 logits[tokens][vocabulary] of a float32 run, then of a bf16 run.
"""
import argparse
import pathlib

import numpy
import torch
import transformers


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=pathlib.Path)
    for name, value in dict(layers=4, hidden=512, heads=8, kv_heads=2, ffn=1536, vocab=2048,
                            tokens=200, seed=1).items():
        options.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    o = options.parse_args()
    config = transformers.LlamaConfig(
        hidden_size=o.hidden, intermediate_size=o.ffn, num_hidden_layers=o.layers,
        num_attention_heads=o.heads, num_key_value_heads=o.kv_heads, head_dim=o.hidden // o.heads,
        vocab_size=o.vocab, max_position_embeddings=2048, rms_norm_eps=1e-5,
        tie_word_embeddings=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    random = numpy.random.Generator(numpy.random.PCG64(o.seed))
    with torch.device("meta"):
        shapes = transformers.LlamaForCausalLM(config).state_dict()
    values = {}
    for name, parameter in shapes.items():
        drawn = torch.from_numpy(random.standard_normal(tuple(parameter.shape), numpy.float32))
        if name.endswith("norm.weight"):
            drawn = 1 + 0.2 * drawn
        else:
            drawn *= 1.2 / parameter.shape[-1] ** 0.5
        values[name] = drawn.to(torch.bfloat16)
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(values)
    o.folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(o.folder)
    ids = random.integers(0, o.vocab, o.tokens, dtype=numpy.int32)
    runs = []
    for dtype in (torch.float32, torch.bfloat16):
        # Read back: a cast would have rounded the rotary frequencies too.
        run = transformers.LlamaForCausalLM.from_pretrained(
            o.folder, dtype=dtype, attn_implementation="eager").to(device).eval()
        with torch.no_grad():
            out = run(torch.from_numpy(ids.astype(numpy.int64))[None].to(device)).logits[0]
        runs.append(out.float().cpu().numpy())
    with open(o.folder / "torch.bin", "wb") as file:
        file.write(numpy.array([o.tokens, o.vocab], numpy.int32).tobytes())
        file.write(ids.tobytes())
        for logits in runs:
            file.write(numpy.ascontiguousarray(logits, numpy.float32).tobytes())
    difference = numpy.linalg.norm(runs[1] - runs[0]) / numpy.linalg.norm(runs[0])
    print(f"torch {torch.__version__} on {device}: {o.tokens} positions, bf16 against float32 "
          f"{difference:.2e}")


if __name__ == "__main__":
    main()
