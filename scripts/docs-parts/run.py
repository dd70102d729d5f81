"""Runs what the documents of a tree show, as known.toml knows it. Usage: run.py TREE"""

import os
import pathlib
import sys
import tomllib

import sessions


def main(tree):
    known = tomllib.loads((pathlib.Path(__file__).parent / "known.toml").read_text(encoding="utf-8"))["document"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "CARGO_TARGET"))}
    # A user who installed a package has it there.
    environment["PATH"] = f"{environment['PATH']}:{tree}/target/release"
    session = sessions.Session(tree, environment, lambda text: print(text, flush=True))
    count = 0
    try:
        last = []
        for document in known:
            path = document["path"]
            # Of a script, the commands that it tells its user to try.
            text = told_by(session, path) if document.get("hints") else (tree / path).read_text(encoding="utf-8")
            for entry in sessions.matched(path, text, document["command"]):
                session.run(path, entry)
                count += 1
                if "after_stop" in entry:
                    last.append((path, {"run": entry["run"], **entry["after_stop"]}))
        session.stop()
        for path, entry in last:
            session.run(path, entry)
    except sessions.Failed as failure:
        print(f"docs-test: FAILED: {failure}", file=sys.stderr)
        return 1
    finally:
        session.close()
    print(f"docs-test: {count} commands of {len(known)} texts did what they say")
    return 0


def told_by(session, path):
    """The hints of a command that runs, as a block."""
    for _, entry, _, output, errors in session.running:
        if entry["run"] == path:
            return "```sh\n" + "\n".join(sessions.hints(sessions.read(output) + sessions.read(errors))) + "\n```\n"
    raise sessions.Failed(f"{path} does not run")


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve()))
