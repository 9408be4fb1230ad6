"""Short forms of the kill matrix, of a join under load, of stage-local recovery and of the churn (their scripts'
long ones run with tools/test.sh --long)."""

import unittest

import churn
import join_under_load
import kill_matrix
import stage_recovery


class ShortForms(unittest.TestCase):
    def test_kills_at_exact_points(self):
        chosen = kill_matrix.short_cells()[::2]
        lines = []
        out = kill_matrix.run(chosen, lines.append, background=1)
        self.assertEqual(out["violations"], [], "\n".join(lines))
        self.assertGreaterEqual(out["kills"], len(chosen))

    def test_a_lost_stage_alone_is_computed_again(self):
        lines = []
        for stage in (0, 1):  # that of the replica, and another
            rows, wrong = stage_recovery.run([200], 1, lines.append, modes=(True,), stage=stage)
            self.assertEqual(wrong, [], "\n".join(lines))
            self.assertEqual(len(rows), 1)

    def test_churn(self):
        lines = []
        out = churn.run(minutes=0.15, period=3, at_once=1, report=lines.append)
        self.assertEqual(out["violations"], [], "\n".join(lines))
        self.assertGreater(out["answers"], 0)

    def test_a_join_under_load(self):
        lines = []
        done, before, during = join_under_load.run(1, 3, report=lines.append)
        self.assertEqual(done[0].violations, [], "\n".join(lines))
        self.assertGreater(min(before, during), 0)  # how they compare is for a quiet machine to say

    def test_growth_is_noticed(self):
        flat = [(100, 50, 9)] * 16
        self.assertEqual(churn.grown(flat), [])
        self.assertEqual(len(churn.grown([(100 + 4 * i, 50 + 2 * i, 9) for i in range(16)])), 2)


if __name__ == "__main__":
    unittest.main()
