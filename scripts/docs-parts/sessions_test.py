"""What a document promises and does not keep is found. Run: python3 -m unittest sessions_test"""

import os
import tempfile
import unittest

import sessions
from sessions import Failed


class CommandsTest(unittest.TestCase):
    def test_blocks_of_a_shell_are_taken_and_no_others(self):
        text = "one\n```sh\na b   # c\n\nd '# e' \\\n  f#g\n# h\n```\n```\nno\n```\n    no\n```sh\ni\n```\n"
        self.assertEqual(sessions.commands(text), ["a b", "d '# e' f#g", "i"])

    def test_hints_are_what_is_indented_behind_try(self):
        self.assertEqual(sessions.hints("data: d\nOnce ready, try:\n  a | b\n  c\nCtrl-C\n  no\n"), ["a | b", "c"])

    def test_a_command_of_which_nothing_is_known_is_found(self):
        with self.assertRaisesRegex(Failed, "nothing is known.*: b$"):
            sessions.matched("d.md", "```sh\na\nb\n```\n", [{"run": "a"}])

    def test_a_command_that_is_gone_is_found(self):
        with self.assertRaisesRegex(Failed, "no longer shows: b$"):
            sessions.matched("d.md", "```sh\na\n```\n", [{"run": "a"}, {"run": "b"}])


class SessionTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.session = sessions.Session(folder.name, dict(os.environ), lambda _: None)
        self.addCleanup(self.session.close)

    def run_one(self, **entry):
        self.session.run("d.md", entry)

    def test_a_command_that_does_what_it_says_passes(self):
        self.run_one(before="echo x > f", run="cat f; echo talk >&2", output="x\n", sees=["^talk$"])

    def test_another_exit_code_is_found(self):
        with self.assertRaisesRegex(Failed, "exit code 127, not 0"):
            self.run_one(run="no-such-program-here", sees=[])
        self.run_one(run="exit 3", status=3)

    def test_what_is_not_seen_is_found(self):
        with self.assertRaisesRegex(Failed, "'hello' is not seen"):
            self.run_one(run="echo hallo", sees=["hello"])
        with self.assertRaisesRegex(Failed, "the output is"):
            self.run_one(run="echo hallo; echo more", output="hallo\n")

    def test_a_command_that_hangs_is_found(self):
        with self.assertRaisesRegex(Failed, "not done after"):
            self.run_one(run="sleep 100", seconds=0.2)

    def test_what_goes_on_gets_its_ctrl_c_and_is_judged(self):
        self.run_one(run="trap 'echo bye; exit 0' INT; echo ready; while :; do sleep 0.05; done", until="ready", sees=["bye"])
        self.assertEqual(len(self.session.running), 1)
        self.session.stop()
        self.run_one(run="trap 'exit 4' INT; echo ready; while :; do sleep 0.05; done", until="ready")
        with self.assertRaisesRegex(Failed, "exit code 4, not 0"):
            self.session.stop()

    def test_what_ends_before_it_is_ready_is_found(self):
        with self.assertRaisesRegex(Failed, "ended with 0 before it said"):
            self.run_one(run="echo no", until="ready")


if __name__ == "__main__":
    unittest.main()
