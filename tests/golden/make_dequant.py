#!/usr/bin/env python3
"""Writes dequant.bin: random blocks of every tensor type and the floats that the PyPI package
`gguf` makes of them. Needs numpy and gguf (made with gguf 0.19.0).

Layout, little-endian: "HXDQ", u32 count; then for each type: u32 name length, name, u32 values,
u32 bytes, the bytes, the values as float32.
"""
import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType as types
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

# Where each block keeps its half-precision scales: those must be finite, all else is random.
SCALES = {"Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "IQ4_NL": [0],
          "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def finite_halves(random, count):
    bits = random.integers(0, 1 << 16, count, dtype=np.uint16)
    return np.where((bits & 0x7C00) == 0x7C00, bits & 0x83FF, bits).astype(np.uint16)


def random_blocks(random, name, blocks, size):
    data = random.integers(0, 256, (blocks, size), dtype=np.uint8)
    for at in SCALES[name]:
        # half of them of the size that weights have, half any finite half at all
        usual = (random.standard_normal(blocks) * 0.01).astype(np.float16).view(np.uint16)
        halves = np.where(np.arange(blocks) % 2 == 0, usual, finite_halves(random, blocks))
        data[:, at:at + 2] = halves.astype(np.uint16).reshape(-1, 1).view(np.uint8)
    return data.reshape(-1)


def every_half():
    """A seventh of all halves but no NaN, whose payload conversions keep or not as they please."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    return bits[~np.isnan(bits.view(np.float16))][::7].copy()


def main():
    random = np.random.default_rng(20240607)
    out = [b"HXDQ", struct.pack("<I", 12)]
    for name in ["F32", "F16", "BF16", *SCALES]:
        values, size = GGML_QUANT_SIZES[types[name]]
        if name == "F32":
            data = random.standard_normal(256).astype(np.float32).view(np.uint8)
        elif name == "F16":
            data = every_half().view(np.uint8)
        elif name == "BF16":
            data = finite_halves(random, 1024).view(np.uint8)
        else:
            data = random_blocks(random, name, 2048 // values, size)
        floats = np.asarray(dequantize(data, types[name]), dtype=np.float32).reshape(-1)
        out += [struct.pack("<I", len(name)), name.encode(),
                struct.pack("<II", floats.size, data.size), data.tobytes(), floats.tobytes()]
    path = pathlib.Path(__file__).with_name("dequant.bin")
    path.write_bytes(b"".join(out))
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
