"""What is known fits the documents of this tree; whether the commands do as known, scripts/docs-test says. Run: python3 -m unittest known_test"""

import pathlib
import tomllib
import unittest

import sessions

HERE = pathlib.Path(__file__).resolve().parent


class KnownTest(unittest.TestCase):
    def test_every_command_of_every_document_is_known_and_there(self):
        root = HERE.parents[1]
        known = tomllib.loads((HERE / "known.toml").read_text(encoding="utf-8"))["document"]
        for document in known:
            if not document.get("hints"):
                sessions.matched(document["path"], (root / document["path"]).read_text(encoding="utf-8"), document["command"])
        # A document that shows commands and is not tried would rot.
        tops = [path for path in root.iterdir() if path.name not in (".git", "target", "data")]
        texts = [text for top in tops for text in ([top] if top.suffix == ".md" else top.rglob("*.md")) if "node_modules" not in text.parts]
        shown = {str(text.relative_to(root)) for text in texts if "```sh" in text.read_text(encoding="utf-8")}
        self.assertEqual(shown - {document["path"] for document in known}, set(), "documents with sh blocks that known.toml does not know")


if __name__ == "__main__":
    unittest.main()
