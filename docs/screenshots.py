"""Makes the screenshots of these documents anew, in docs/pictures.

    pip install playwright pyte
    python docs/screenshots.py report runs/lenet5-22        # of a finished run's report.html, by Debian's chromium
    python docs/screenshots.py terminal 80 95               # of a search of lenet5, after 95 seconds; and 140 columns

A search for a screenshot is ended by Ctrl-C once the picture is taken.
"""

import fcntl
import io
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
ROWS = 24


def take_report(run_dir: Path) -> None:
    """Takes the head of a run's report on a wide screen, light and dark, and on a telephone."""
    from playwright.sync_api import sync_playwright

    address = (run_dir / "report.html").absolute().as_uri()
    screens = {"report": (1280, 860, "light"), "report-dark": (1280, 860, "dark"), "report-narrow": (390, 860, "light")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, scheme) in screens.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(address)
            page.wait_for_selector(".plotly svg")
            page.screenshot(path=PICTURES / f"{name}.png")
        browser.close()


def read_screen(command: list[str], folder: str, columns: int, seconds: float) -> list[list[tuple[str, str, bool]]]:
    """Runs a command in a folder and in a terminal so wide, and ends it after so many seconds.

    Returns what the terminal showed then: for each line its characters, each with its colour and whether it is bold.
    """
    import pyte

    screen = pyte.Screen(columns, ROWS)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(ROWS)}
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1.0)[0]:
            stream.feed(os.read(terminal, 65536))
    shown = [[(c.data, c.fg, c.bold) for c in (screen.buffer[y][x] for x in range(columns))] for y in range(ROWS)]
    os.kill(child, signal.SIGINT)
    while True:
        try:
            if not os.read(terminal, 65536):
                break
        except OSError:  # Linux says so once the process has ended
            break
    os.waitpid(child, 0)
    return shown


def draw_screen(lines: list[list[tuple[str, str, bool]]], out: Path) -> None:
    """Draws a terminal's characters as an SVG, which loads no fonts."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    while lines and not "".join(character for character, _, _ in lines[-1]).strip():
        lines.pop()
    console = Console(record=True, width=len(lines[0]), file=io.StringIO(), force_terminal=True)
    for line in lines:
        text = Text()
        for character, colour, bold in line:
            # pyte names what rich calls yellow after the terminals of old
            named = {"default": "", "brown": "yellow"}.get(colour, f"#{colour}" if len(colour) == 6 else colour)
            text.append(character, " ".join(["bold"] * bold + [named]).strip())
        console.print(text, no_wrap=True, crop=True)
    without_fonts = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    console.save_svg(str(out), title="tune-prune search", code_format=without_fonts, unique_id=out.stem)


def take_terminal(columns: int, seconds: float) -> None:
    """Takes the terminal of a search of lenet5 after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tune_prune", "search", "--space", "lenet5", "--budget", "100", "--seed", "20"]
        draw_screen(read_screen(command, folder, columns, seconds), PICTURES / f"terminal-{columns}.svg")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    if sys.argv[1] == "report":
        take_report(Path(sys.argv[2]))
    else:
        take_terminal(int(sys.argv[2]), float(sys.argv[3]))
