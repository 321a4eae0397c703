"""The two pictures of the README, from a real run: the terminal as SVG, the report's page as PNG.

python docs/pictures.py        # needs a Chromium (chromium, google-chrome) for the page
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
WIDTH = 120
"""Columns of the terminal."""


def in_terminal(arguments: list[str], cwd: Path) -> str:
    """What a command writes to a terminal, with its colors; of lines that it rewrites the last state."""
    main, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": "60", "TERM": "xterm-256color"}
    child = subprocess.Popen(arguments, cwd=cwd, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    output = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the terminal is closed: the command has ended
            break
        if not piece:
            break
        output += piece
    if child.wait():
        raise SystemExit(output.decode())
    return output.decode().replace("\r\n", "\n")


def settled(text: str) -> str:
    """Without the states of the progress bar that were overwritten."""
    lines = []
    for line in text.split("\n"):
        last = line.rsplit("\r", 1)[-1].rsplit("\x1b[2K", 1)[-1].replace("\x1b[?25l", "").replace("\x1b[?25h", "")
        plain = Text.from_ansi(last).plain
        is_progress = "━" in plain or (plain and 0x2800 <= ord(plain[0]) < 0x2900)  # a bar, or a spinner in Braille
        if plain.strip() and not is_progress:
            lines.append(last)
    return "\n".join(lines)


def draw_terminal(command: str, text: str) -> None:
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), color_system="truecolor")  # noqa: SIM115
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(text))
    console.save_svg(str(HERE / "terminal.svg"), title=command)


def draw_page(page: Path, folder: Path) -> None:
    browser = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--user-data-dir={folder}/browser"]
    shot = [f"--screenshot={HERE / 'report.png'}", "--window-size=1100,1250", page.as_uri()]
    subprocess.run([browser, *options, *shot], check=True, capture_output=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(HERE.parent / "configs" / "digits_cnn.yaml", folder)
        text = in_terminal([sys.executable, "-m", "trainkit", "train", "digits_cnn.yaml"], folder)
        draw_terminal("trainkit train digits_cnn.yaml", settled(text))
        draw_page(next(folder.glob("runs/*/report.html")), folder)


if __name__ == "__main__":
    main()
