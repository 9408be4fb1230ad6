#!/usr/bin/env python3
"""guidellm, unmodified, against the gateway. Needs the packages guidellm and gguf (several GB: torch is among them).

The tokenizer folder that guidellm wants is exported from the served GGUF file."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import harness

REQUESTS = 24


def main():
    from transformers import AutoTokenizer
    with tempfile.TemporaryDirectory() as folder, harness.Cluster(agents=("cpu:threads=2",)) as cluster:
        model = pathlib.Path(harness.model())
        AutoTokenizer.from_pretrained(str(model.parent), gguf_file=model.name).save_pretrained(f"{folder}/tokenizer")
        report = pathlib.Path(folder) / "report.json"
        subprocess.run(
            [str(pathlib.Path(sys.executable).parent / "guidellm"), "run",
             "--backend", f"kind=openai_http,target=http://{cluster.host}:{cluster.port}",
             "--profile", "kind=concurrent,streams=8", "--constraint", f"kind=max_requests,count={REQUESTS}",
             "--tokenizer", f"kind=hf_auto,model={folder}/tokenizer",
             "--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=16", "--disable-progress",
             "--output", f"kind=json,path={report}", "--output", "kind=console"],
            check=True, timeout=600, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        totals = json.loads(report.read_text())["benchmarks"][0]["metrics"]["request_totals"]
        assert totals["successful"] == REQUESTS and totals["errored"] == 0, totals
        print(f"guidellm: {totals}")


if __name__ == "__main__":
    main()
