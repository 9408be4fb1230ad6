"""Schemathesis, which reads our OpenAPI description and tries what it allows and what it forbids."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import harness

# All but positive_data_acceptance: a schema cannot say which token ids, lengths and pairs of fields go together.
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth")
SCHEMATHESIS = importlib.util.find_spec("schemathesis") is not None


class OpenApi(unittest.TestCase):
    @unittest.skipUnless(os.environ.get("HEXGEN_LONG"), "runs with --long")
    @unittest.skipUnless(SCHEMATHESIS, f"{sys.executable} has no schemathesis: pip install 'schemathesis>=4,<5'")
    def test_every_answer_is_described(self):
        with harness.Cluster(agents=("cpu:threads=2",), serve=("--max-model-len", "64", "--api-key", "a-long-key-123")
                             ) as cluster, tempfile.TemporaryDirectory() as folder:
            url = f"http://{cluster.host}:{cluster.port}"
            description = pathlib.Path(folder, "openapi.json")
            description.write_bytes(cluster.get("/openapi.json").body)
            done = subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", "run", str(description), "--url", url, "--checks", CHECKS,
                 "--header", f"Authorization: Bearer {cluster.api_key}", "--max-examples", "60", "--seed", "1",
                 "--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color", "--no-shrink",
                 "--request-timeout", "300", "--generation-database", "none", "--output-truncate", "false"],
                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800)
            self.assertTrue(cluster.running())
            self.assertEqual(done.returncode, 0, done.stdout[-20000:])
            print("    " + "\n    ".join(done.stdout.splitlines()[-12:]), flush=True)


if __name__ == "__main__":
    unittest.main()
