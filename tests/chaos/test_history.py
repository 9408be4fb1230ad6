"""The history checker finds what it is there to find."""

import json
import unittest

import history

EXPECTED = history.Answer([5, 6, 7, 8, 9], "abcde", "length")


def chunk(token, text, reason=None, name="r"):
    return json.dumps({"id": name, "choices": [{"index": 0, "text": text, "token_ids": [token],
                                                "finish_reason": reason}]})


GOOD = [chunk(5, "a"), chunk(6, "b"), chunk(7, "c"), chunk(8, "d"), chunk(9, "e", "length"), "[DONE]"]
ERROR = json.dumps({"error": {"message": "lost"}})


def judge(payloads):
    transcript = history.Transcript()
    for payload in payloads:
        transcript.add(payload)
    return history.check(transcript, EXPECTED)


class Checker(unittest.TestCase):
    def test_an_undisturbed_answer_passes(self):
        self.assertEqual(judge(GOOD), [])

    def test_each_way_to_be_wrong_is_named(self):
        cases = {
            "gap": GOOD[:1] + GOOD[2:],
            "duplicate": GOOD[:2] + GOOD[1:],
            "reorder": GOOD[:1] + [GOOD[2], GOOD[1]] + GOOD[3:],
            "instead of 7": GOOD[:2] + [chunk(3, "c")] + GOOD[3:],
            "only 4 of 5": GOOD[:3] + [chunk(8, "d", "length"), "[DONE]"],
            "the text differs": GOOD[:1] + [chunk(6, "B")] + GOOD[2:],
            "2 terminal events": GOOD[:3] + [chunk(8, "d", "length")] + GOOD[4:],
            "0 terminal events": GOOD[:4] + [chunk(9, "e")] + GOOD[5:],
            "instead of length": GOOD[:4] + [chunk(9, "e", "stop")] + GOOD[5:],
            "[DONE] came 0 times": GOOD[:5],
            "[DONE] came 2 times": GOOD + ["[DONE]"],
            "after [DONE]": GOOD + [GOOD[0]],
            "more after the end": GOOD[:5] + [chunk(1, "f"), "[DONE]"],
            "too many": GOOD[:4] + [chunk(9, "e"), chunk(1, "f", "length"), "[DONE]"],
            "error frame": GOOD[:3] + [ERROR, "[DONE]"],
            "2 ids": GOOD[:1] + [chunk(6, "b", name="s")] + GOOD[2:],
            "not JSON": GOOD[:1] + ["{"] + GOOD[1:],
            "usage says": GOOD[:5] + [json.dumps({"id": "r", "choices": [], "usage": {"completion_tokens": 6}}),
                                      "[DONE]"],
        }
        for word, payloads in cases.items():
            with self.subTest(word):
                self.assertTrue(any(word in sentence for sentence in judge(payloads)), judge(payloads))

    def test_a_refusal_is_not_an_answer(self):
        transcript = history.Transcript()
        transcript.status = 503
        self.assertEqual(history.check(transcript, EXPECTED), ["refused with 503"])


if __name__ == "__main__":
    unittest.main()
