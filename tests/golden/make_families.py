#!/usr/bin/env python3
"""Writes families/NAME/: tiny random models of the families that Hexgen serves, made with
`transformers`, and the logits that it computes for them in float32 on the CPU.

Needs torch, transformers and safetensors. logits.json: {"ids": [...], "logits": [[...], ...]},
one row of the vocabulary per position.
"""
import json
import pathlib
import shutil

import torch
import transformers

SIZES = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=96, max_position_embeddings=256)
MODELS = {
    "llama": ("Llama", dict(rms_norm_eps=1e-5, rope_theta=10000.0)),
    "llama3": ("Llama", dict(rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32))),
    "llama_linear": ("Llama", dict(rms_norm_eps=1e-5, rope_scaling=dict(
        rope_type="linear", factor=2.0))),
    "mistral": ("Mistral", dict(rms_norm_eps=1e-5, head_dim=32, sliding_window=None)),
    "qwen2": ("Qwen2", dict(rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True)),
    "qwen2_yarn": ("Qwen2", dict(rms_norm_eps=1e-6, rope_theta=1e6, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=64))),
    "qwen3": ("Qwen3", dict(rms_norm_eps=1e-6, rope_theta=1e6, head_dim=32,
                            tie_word_embeddings=True)),
}


def randomise(model):
    """Norms and biases too, so that a forgotten one shows."""
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") or "layernorm" in name:
            parameter.data = 1 + 0.2 * torch.randn_like(parameter)
        elif name.endswith(".bias"):
            parameter.data = 0.3 * torch.randn_like(parameter)
        else:
            parameter.data = torch.randn_like(parameter) * (1.2 / parameter.shape[-1] ** 0.5)


def main():
    root = pathlib.Path(__file__).with_name("families")
    for name, (family, options) in MODELS.items():
        torch.manual_seed(1 + list(MODELS).index(name))
        config = getattr(transformers, family + "Config")(**{**SIZES, **options})
        config._attn_implementation = "eager"
        model = getattr(transformers, family + "ForCausalLM")(config).eval()
        randomise(model)
        model = model.to(torch.bfloat16)
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        # Read back, for the casts above have rounded the rotary frequencies too.
        model = type(model).from_pretrained(folder, dtype=torch.float32,
                                            attn_implementation="eager").eval()
        ids = [(7 * i * i + 3 * i + 5) % SIZES["vocab_size"] for i in range(40)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        rows = [[float(f"{value:.6g}") for value in row] for row in logits.tolist()]
        (folder / "logits.json").write_text(json.dumps({"ids": ids, "logits": rows}) + "\n")
        print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes,",
              f"largest logit {logits.abs().max():.2f}", flush=True)


if __name__ == "__main__":
    main()
