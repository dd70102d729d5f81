"""Takes the shell blocks out of documents and runs them word for word, as a new user would.

1. A block is what stands between ```sh and ```; a line of it is a command, less its comment. A line that ends in a backslash goes on.
2. Every command must be known, and every one known must be in its document: `known.toml` says what must be seen of each. So neither changes
   without the other.
3. Commands run one by one in a bash of their own, in one folder, each bounded in time. One that says `until` goes on running from when that was
   seen, and gets a Ctrl-C when the session is over; then what says `after_stop` runs once more.

Knows nothing of what the commands do.
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time

SECONDS = 60


class Failed(Exception):
    """What a reader of the document would not get; the text says which command of which document, and what came."""


def commands(text):
    """The commands of the ```sh blocks of a document, in order."""
    found, inside, begun = [], False, ""
    for line in text.splitlines():
        if not inside:
            inside = line.rstrip() == "```sh"
        elif line.startswith("```"):
            inside = False
        elif line.endswith("\\"):
            begun += line[:-1].strip() + " "
        else:
            command = without_comment(begun + line.strip())
            begun = ""
            if command:
                found.append(command)
    return found


def without_comment(line):
    """The line up to a # at its begin or behind a blank, outside of quotes."""
    quote = ""
    for at, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at].strip()
    return line.strip()


def matched(path, text, known):
    """What is known of each command of a document, in its order; Failed where the two do not fit."""
    there = commands(text)
    expected = [entry["run"] for entry in known]
    for command in there:
        if command not in expected:
            raise Failed(f"{path}: nothing is known of what must be seen of: {command}")
    for command in expected:
        if command not in there:
            raise Failed(f"{path} no longer shows: {command}")
    return [next(entry for entry in known if entry["run"] == command) for command in there]


class Session:
    """Commands of one or more documents in one folder, with what runs on behind them."""

    def __init__(self, folder, environment, say=print):
        self.folder = folder
        self.environment = environment
        self.say = say
        self.running = []
        self.files = contextlib.ExitStack()

    def run(self, path, entry):
        """Runs one command and judges it; one with `until` is left running."""
        self.say(f"  {path}: {entry['run']}")
        self.before(path, entry.get("before"))
        output = self.files.enter_context(tempfile.TemporaryFile())
        errors = self.files.enter_context(tempfile.TemporaryFile())
        process = subprocess.Popen(["bash", "-c", entry["run"]], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=errors, start_new_session=True, preexec_fn=hears_ctrl_c)
        ends = time.monotonic() + entry.get("seconds", SECONDS)
        until = entry.get("until")
        while process.poll() is None:
            if until and re.search(until, read(output) + read(errors)):
                self.running.append((path, entry, process, output, errors))
                return
            if time.monotonic() > ends:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Failed(told(path, entry, f"not done after {entry.get('seconds', SECONDS)} s", read(output), read(errors)))
            time.sleep(0.05)
        if until:
            raise Failed(told(path, entry, f"ended with {process.returncode} before it said {until!r}", read(output), read(errors)))
        judge(path, entry, process.returncode, read(output), read(errors))

    def before(self, path, command):
        """What a document takes for granted."""
        if command:
            subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, check=True,
                           timeout=SECONDS, stdout=subprocess.DEVNULL)

    def stop(self):
        """Ctrl-C for what runs, and its end judged."""
        while self.running:
            path, entry, process, output, errors = self.running.pop()
            self.say(f"  {path}: {entry['run']}: Ctrl-C")
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Failed(told(path, entry, f"still there {SECONDS} s after Ctrl-C", read(output), read(errors))) from None
            judge(path, entry, process.returncode, read(output), read(errors))

    def close(self):
        """Ends what still runs, whatever was seen of it."""
        for _, _, process, _, _ in self.running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.running.clear()
        self.files.close()


def hears_ctrl_c():
    """Where this runs in a shell's background, SIGINT is ignored, and a program that starts so cannot ask for it again."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read(file):
    """All that a process wrote so far; its own place in the file stays."""
    return os.pread(file.fileno(), 1 << 24, 0).decode("utf-8", "replace")


def judge(path, entry, status, output, errors):
    """Failed unless the exit code, the standard output (`output`, whole) and every pattern of `sees` are as known."""
    if status != entry.get("status", 0):
        raise Failed(told(path, entry, f"exit code {status}, not {entry.get('status', 0)}", output, errors))
    if "output" in entry and output != entry["output"]:
        raise Failed(told(path, entry, f"the output is {output!r}, not {entry['output']!r}", "", errors))
    for pattern in entry.get("sees", []):
        if not re.search(pattern, output + errors, re.MULTILINE):
            raise Failed(told(path, entry, f"{pattern!r} is not seen", output, errors))


def told(path, entry, why, output, errors):
    """A failure with all that was seen."""
    return f"{path}: {entry['run']}\n{why}\n{output}{errors}".rstrip()


def hints(output):
    """Commands that a program tells its user to try: lines behind one that ends in 'try:', as long as they are indented."""
    found, after = [], False
    for line in output.splitlines():
        if line.endswith("try:"):
            after = True
        elif after and line.startswith("  "):
            found.append(line.strip())
        else:
            after = False
    return found

